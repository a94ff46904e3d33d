"""The adapter in C: the same as test_identity.py, with fields out of llama.h's own text."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from damage import flip

import kvstore

ROOT = Path(__file__).resolve().parents[4]
PREFIX = Path(os.environ.get("KVSTORE_PREFIX") or ROOT / ".build-install")
# Scripts/setup-llama makes it.
LLAMA = os.environ.get("KVSTORE_LLAMA", "")
pytestmark = pytest.mark.skipif(not LLAMA, reason="KVSTORE_LLAMA names no llama.cpp")
ADAPTER = ROOT / "Integrations/llama.cpp"
ROUNDING = 0.05

# As in kvstore_llama_settings.c, where the reasons are.
LEFT_OUT = {
    "model": {"progress_callback", "progress_callback_user_data", "check_tensors"},
    "context": {
        "n_ctx",
        "n_batch",
        "n_ubatch",
        "n_threads",
        "n_threads_batch",
        "n_seq_max",
        "abort_callback",
        "abort_callback_data",
        "embeddings",
        "no_perf",
        "swa_full",
    },
}
# Lists whose content is in the identity: an empty one is none.
EMPTY_LISTS = {"kv_overrides", "tensor_split"}


def fields(structure: str) -> list[tuple[str, str]]:
    """Names and kinds (number, ratio, pointer) of a struct's fields in llama.h."""
    text = (Path(LLAMA) / "include/llama.h").read_text()
    body = re.search(rf"struct {structure} {{(.*?)\n    }};", text, re.DOTALL)
    assert body
    found = []
    for declaration in re.sub(r"//[^\n]*", "", body[1]).split(";"):
        parsed = re.fullmatch(r"\s*(.+?[\s*])(\w+)\s*", declaration, re.DOTALL)
        if parsed:
            pointer = "*" in parsed[1] or "callback" in parsed[1]
            found.append((parsed[2], "p" if pointer else "f" if parsed[1].strip() == "float" else "i"))
    return found


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("c-engine")
    for name in ("model", "context"):
        lines = [f"FIELD({field}, '{kind}')" for field, kind in fields(f"llama_{name}_params")]
        (folder / f"{name}_fields.h").write_text("\n".join(lines) + "\n")
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "kvstore"],
        env={**os.environ, "PKG_CONFIG_PATH": f"{PREFIX}/lib/pkgconfig"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    subprocess.run(
        ["cc", "-std=gnu99", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{folder}", f"-I{ADAPTER}"]
        + ["-isystem", f"{LLAMA}/include", "-o", str(folder / "c_engine"), str(Path(__file__).with_name("c_engine.c"))]
        + [str(file) for file in ADAPTER.glob("kvstore_llama*.c")]
        + [f"-L{LLAMA}/lib", f"-Wl,-rpath,{LLAMA}/lib", "-lllama", "-lggml", "-lggml-base", *flags]
        + [f"-Wl,-rpath,{PREFIX}/lib", "-pthread"],
        check=True,
        timeout=300,
    )
    return folder / "c_engine"


class Runs:
    """A model, and what an engine answers with it."""

    def __init__(self, engine: Path, folder: Path, memory: Path) -> None:
        self.engine, self.folder, self.memory = engine, folder, memory
        self.model = gguf.write_model(folder / "model.gguf")[0]
        self.rows: list[tuple[str, float, bool]] = []

    def __call__(self, *arguments: Any, model: Path | None = None, store: Path | None = None, **switches: str) -> Any:
        """The answer, None if the engine refused the arguments."""
        self.count = getattr(self, "count", 0) + 1
        done = subprocess.run(
            [self.engine, model or self.model, store or self.memory / f"store-{self.count}", *map(str, arguments)],
            env={**os.environ, **switches},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode != 3, done.stderr
        return json.loads(done.stdout) if done.returncode == 0 else None

    def change(self, name: str, answer: Any, plain: Any) -> bool:
        if answer is None:
            return False
        difference = float(np.abs(np.array(answer["logits"]) - np.array(plain["logits"])).max())
        self.rows.append((name, difference, answer["identity"] != plain["identity"]))
        return True

    def judge(self, what: str, left_out: set[str]) -> None:
        changed = [row for row in self.rows if row[1] != 0]
        named = [row for row in self.rows if row[2]]
        print(
            f"\nC {what}: {len({row[0] for row in self.rows})} changed in {len(self.rows)} ways, logits changed in "
            f"{len(changed)}, namespaces in {len(named)}; left out: {sorted({row[0] for row in self.rows if not row[2]})}"
        )
        for name, difference, is_named in self.rows:
            if not is_named:
                assert name in left_out, f"{name} is in no namespace, and for no reason"
                assert difference < ROUNDING, f"{name} changes logits by {difference}, and no namespace"


@pytest.fixture
def runs(engine: Path, tmp_path: Path, memory: Path) -> Iterator[Runs]:
    yield Runs(engine, tmp_path, memory)


VALUES = {"i": (0, 1, 2, 3, 8, 32, 2048, -1), "f": (0.25, 3.0, -0.5), "p": ("room", "yes", "no")}


@pytest.mark.parametrize(
    "kinds",
    [
        (),
        pytest.param(
            ("context", "type_k", 8, "context", "type_v", 8, "context", "flash_attn_type", 1),
            marks=pytest.mark.slow,
        ),
    ],
)
@pytest.mark.parametrize("part", ["model", "context"])
def test_every_parameter(runs: Runs, part: str, kinds: tuple[Any, ...]) -> None:
    plain = runs(*kinds)
    # What lies between the fields does not count.
    assert [runs(*kinds)["identity"] for _ in range(3)] == [plain["identity"]] * 3
    refused = []
    for name, kind in fields(f"llama_{part}_params"):
        taken = 0
        for value in VALUES[kind]:
            # The value that it has is no change; setting it again tells.
            answer = runs(*kinds, part, name, value)
            if answer is not None and (kind == "p" or answer["identity"] != plain["identity"] or name in LEFT_OUT[part]):
                taken += runs.change(name, answer, plain)
            elif answer is not None and answer["logits"] != plain["logits"]:
                runs.change(name, answer, plain)
            if taken == 2:
                break
        if not taken and name not in EMPTY_LISTS:
            refused.append(name)
    runs.judge(f"{part} {'q8_0' if kinds else 'f16'}", LEFT_OUT[part] | EMPTY_LISTS)
    print("refused with any other value:", refused)
    if part == "context":
        assert {"rope_freq_base", "rope_freq_scale"} <= {name for name, difference, _ in runs.rows if difference > ROUNDING}
        assert set(refused) <= {"ctx_type", "kv_unified", "ctx_other", "samplers", "n_samplers"}, refused


def test_overrides_and_switches(runs: Runs) -> None:
    plain = runs()
    for name, (kind, value) in gguf.metadata().items():
        if kind == 9:
            continue
        letter = {8: "s", 6: "f"}.get(kind, "i")
        for other in (f"{value}x", "gpt2") if letter == "s" else (value * 2, value / 2 if letter == "f" else value // 2):
            runs.change(name, runs("override", name, letter, other), plain)
    for letter, value in (("i", 1), ("f", 1), ("b", 1), ("s", 1)):
        assert runs.change(f"nobody knows {letter}", runs("override", "nobody.knows", letter, value), plain)
    runs.judge("kv_overrides", set())
    assert len({runs("override", "nobody.knows", letter, 1)["identity"] for letter in "ifbs"}) == 4
    assert {"llama.rope.freq_base"} <= {name for name, difference, _ in runs.rows if difference > ROUNDING}
    runs.rows.clear()
    quantized = ("context", "type_k", 8, "context", "type_v", 8, "context", "flash_attn_type", 1)
    plain = runs(*quantized)
    for name in ("LLAMA_ATTN_ROT_DISABLE", "LLAMA_GRAPH_REUSE_DISABLE", "GGML_NOT_YET_KNOWN", "LLAMA_TRACE", "PATHS"):
        assert runs.change(name, runs(*quantized, **{name: "1"}), plain)
    runs.judge("switches", {"LLAMA_TRACE", "PATHS"})
    assert runs.rows[0][1] > 0


def hit(runs: Runs, first: tuple[Any, ...], then: tuple[Any, ...], first_model: Path, then_model: Path) -> None:
    store = runs.folder / f"shared-{len(list(runs.folder.iterdir()))}"
    assert runs(*first, model=first_model, store=store)["stored"] == 384
    answer = runs(*then, model=then_model, store=store)
    right = runs(*then, model=then_model)
    assert (answer["restored"], answer["logits"]) == (0, right["logits"])
    again = runs(*then, model=then_model, store=store)
    assert again["restored"] == 384
    # 17 tokens in one batch, or 145 in one: rounding.
    assert np.abs(np.array(again["logits"]) - np.array(right["logits"])).max() < ROUNDING


@pytest.mark.parametrize("original", [1024, None])
def test_long_rope_chooses_its_factors_by_the_context_s_size(runs: Runs, original: int | None) -> None:
    path = runs.folder / "long.gguf"
    changes = {**gguf.long_rope(original), "llama.context_length": (4, 1024)}
    gguf.write_model(path, changes=changes, long_factors=True)
    short, long = (("context", "n_ctx", size) for size in (1024, 2048))
    hit(runs, short, long, path, path)
    name = "llama.rope.scaling.original_context_length"
    moved = [("context", "n_ctx", size, "override", name, "i", 1536) for size in (1280, 2048)]
    hit(runs, *moved, path, path)
    assert runs(*short, model=path)["identity"] == runs("context", "n_ctx", 512, model=path)["identity"]


def test_every_part_of_a_split_model_counts(runs: Runs) -> None:
    ours, theirs = runs.folder / "ours", runs.folder / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
    parts, others = gguf.write_model(ours / "m", parts=3), gguf.write_model(theirs / "m", parts=3, second_seed=99)
    assert parts[0].read_bytes() == others[0].read_bytes()
    hit(runs, (), (), parts[0], others[0])


@pytest.mark.parametrize("block", [64, 128])
@pytest.mark.parametrize("kind", ["lfm2", "granitehybrid", "mamba", "mamba2", "rwkv7"])
def test_layers_with_a_state(runs: Runs, kind: str, block: int) -> None:
    """What another process stored is restored bit for bit, the recurrent state included; and nothing of other weights."""
    path = gguf.write_kind(runs.folder / "hybrid.gguf", kind)
    options = ("block", block)
    store = runs.folder / "store"
    first = runs(*options, model=path, store=store)
    assert first is not None and (first["restored"], first["stored"]) == (0, 384)
    again = runs(*options, model=path, store=store)
    assert (again["restored"], again["stored"]) == (384, 384)
    assert again["logits"] == first["logits"]
    # Without a store the same is computed.
    assert runs(*options, model=path)["logits"] == first["logits"]
    other = gguf.write_kind(runs.folder / "other.gguf", kind, seed=4)
    assert runs(*options, model=other, store=store)["restored"] == 0


@pytest.mark.parametrize("kind", ["llama", "granitehybrid", "mamba"])
def test_damage(runs: Runs, kind: str) -> None:
    """What is damaged is computed, and stored again."""
    path, store = gguf.write_kind(runs.folder / "model.gguf", kind), runs.folder / "store"
    first = runs("block", 64, model=path, store=store)
    assert flip(store) > 0
    again = runs("block", 64, model=path, store=store)
    assert (again["restored"], again["logits"]) == (0, first["logits"])
    assert runs("block", 64, model=path, store=store)["restored"] == 384


@pytest.mark.parametrize("kind", ["llama", "granitehybrid", "rwkv7"])
def test_a_conversation_that_is_over(runs: Runs, kind: str) -> None:
    """What it shares with another one stays, and nothing else; its record does, too."""
    path, store = gguf.write_kind(runs.folder / "model.gguf", kind), runs.folder / "store"
    # A checkpoint at each block's end, so that the front can be restored.
    options = ("block", 64, "checkpoint", 64)
    runs(*options, "count", 450, model=path, store=store)
    kept = payload(store)
    over = runs(*options, "count", 1000, "fork", 192, "session", "run 17", "end", "yes", model=path, store=store)
    assert (over["restored"], over["stored"], over["ended"]) == (192, 960, 12)
    assert payload(store) == kept
    again = runs(*options, "count", 1000, "fork", 192, model=path, store=store)
    assert (again["restored"], again["logits"]) == (192, over["logits"])
    shown = subprocess.run([PREFIX / "bin/kvstore", "inspect", "sessions", store, "--json"], capture_output=True, text=True)
    (session,) = json.loads(shown.stdout)["sessions"]
    assert (session["name"], session["is_ended"], session["step_count"]) == ("run 17", True, 1)
    assert session["steps"][0]["computed_token_count"] == 1000 - 192


def payload(path: Path) -> int:
    with kvstore.Store(path, capacity="128MiB", host="16MiB") as outside:
        return int(outside.stats()["payload_bytes_stored"])
