"""Whatever changes what llama.cpp computes is another namespace: every setting there is, changed one after the other.

The fields come from llama-cpp-python's own structures, the switches from the libraries' text, the overrides from the model's
metadata: what a later version adds is changed as well.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

llama_cpp = pytest.importorskip("llama_cpp")
from llama_cpp import llama_cpp as api  # noqa: E402

import kvstore.llama_loaded as loaded  # noqa: E402

PROMPT = [3 + (number * 7919 + number * number) % 500 for number in range(401)]
# Logits are 4 or so; rounding of other batches and kernels is far below, another computation far above.
ROUNDING = 0.05


class Engines:
    """Engines in processes of their own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("engine.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def __call__(self, **spec: Any) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps({"prompts": [PROMPT], **spec}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def stop(self) -> None:
        self._process.communicate(timeout=60)


@pytest.fixture(scope="module")
def engines() -> Iterator[Engines]:
    started = Engines()
    yield started
    started.stop()


class Bench:
    """A model, what it answers as it is, and what became of each change."""

    def __init__(self, engines: Engines, folder: Path, memory: Path, **spec: Any) -> None:
        self.engines, self.folder = engines, folder
        self.spec = {"model": str(gguf.write_model(folder / "model.gguf")[0]), "store": str(memory / "store"), **spec}
        self.plain = self(**{})
        assert "refused" not in self.plain, self.plain
        self.rows: list[tuple[str, float, bool]] = []

    def __call__(self, **changes: Any) -> dict[str, Any]:
        return self.engines(**{**self.spec, **changes})

    def change(self, name: str, **changes: Any) -> bool:
        """Notes what a change did; False if the engine refused it."""
        answer = self(**changes)
        if "refused" in answer:
            return False
        self.note(name, answer, self.plain)
        return True

    def note(self, name: str, answer: dict[str, Any], plain: dict[str, Any]) -> None:
        difference = float(np.abs(np.array(answer["logits"]) - np.array(plain["logits"])).max())
        self.rows.append((name, difference, answer["identity"] != plain["identity"]))

    def judge(self, what: str, left_out: dict[str, str]) -> None:
        """Where logits changed, so has the namespace; where neither did, there is a reason in the list."""
        changed = [row for row in self.rows if row[1] != 0 or not np.isfinite(row[1])]
        named = [row for row in self.rows if row[2]]
        print(
            f"\n{what}: {len({row[0] for row in self.rows})} changed in {len(self.rows)} ways, logits changed in "
            f"{len(changed)}, namespaces in {len(named)}; left out: {sorted({row[0] for row in self.rows if not row[2]})}"
        )
        for name, difference, is_named in self.rows:
            if not is_named:
                assert name.split("=")[0] in left_out, f"{name} is in no namespace, and for no reason"
                assert difference < ROUNDING, f"{name} changes logits by {difference}, and no namespace"


@pytest.fixture
def bench(engines: Engines, tmp_path: Path, memory: Path) -> Bench:
    return Bench(engines, tmp_path, memory)


def candidates(name: str, kind: Any, default: Any) -> list[Any]:
    """Other values of a field, by its type alone."""
    if kind is ctypes.c_bool:
        return [not default]
    if kind in (ctypes.c_float, ctypes.c_double):
        return [value for value in (default * 1.5 + 0.25, 3.0, 0.0) if value != default]
    if issubclass(kind, ctypes._CFuncPtr):
        return ["yes", "no"]
    if kind is ctypes.c_void_p or issubclass(kind, ctypes._Pointer):
        return ["room"]
    values = [default + 1, default * 2, 0, 1, 2, 3, 8, 32, 2048, -1]
    return [value for value in dict.fromkeys(values) if value != default and (value >= 0 or kind is not ctypes.c_uint32)]


def fields(structure: Any) -> list[tuple[str, Any, Any]]:
    return [(name, kind, getattr(structure, name)) for name, kind, *_ in structure._fields_]


@pytest.mark.parametrize(
    ("function", "left_out"),
    [
        ("llama_model_load_from_file", loaded.MODEL_FIELDS_LEFT_OUT),
        ("llama_init_from_model", loaded.CONTEXT_FIELDS_LEFT_OUT),
    ],
)
@pytest.mark.parametrize(
    "kinds", [{}, pytest.param({"type_k": 8, "type_v": 8, "flash_attn": True}, marks=pytest.mark.slow)]
)
def test_every_parameter(bench: Bench, function: str, left_out: dict[str, str], kinds: dict[str, Any]) -> None:
    bench.spec["options"] = kinds
    bench.plain = bench()
    structure = (
        api.llama_model_default_params() if "model_load" in function else api.llama_context_default_params()
    )
    refused = []
    for name, kind, default in fields(structure):
        taken = 0
        default = bench.plain["parameters"][function].get(name, default)
        for value in candidates(name, kind, default):
            taken += bench.change(name, **{function: {name: value}})
            if taken == 3:
                break
        if not taken:
            refused.append(name)
    bench.judge(f"{function} {kinds}", left_out)
    print("refused with any other value:", refused)
    # The lists name nothing that is not there.
    names = {name for name, *_ in structure._fields_}
    assert set(left_out) <= names, set(left_out) - names
    changed = {name for name, difference, _ in bench.rows if difference > ROUNDING}
    if function == "llama_init_from_model":
        # It would show if the model did not depend on its settings.
        assert {"rope_freq_base", "rope_freq_scale"} <= changed


def test_every_override(bench: Bench) -> None:
    names = [name for name, (kind, _) in gguf.metadata().items() if kind != 9]
    names += ["llama.rope.scaling.factor", "llama.attention.clamp_kqv", "llama.nobody.knows.this", "llama.logit_scale"]
    refused = []
    for name in names:
        kind, value = gguf.metadata().get(name, (6, 0.0))
        others: list[Any] = {
            6: lambda: [float(value) * 3 + 0.5, 2.0],
            8: lambda: ["other", "gpt2"],
        }.get(kind, lambda: [value * 2, value // 2, value + 1, 1])()
        if not sum(bench.change(name, options={"kv_overrides": {name: other}}) for other in others):
            refused.append(name)
    # Of another type, and one key's place taken by another's.
    bench.change("type", options={"kv_overrides": {"llama.nobody.knows.this": 1}})
    bench.change("type", options={"kv_overrides": {"llama.nobody.knows.this": True}})
    bench.judge("kv_overrides", {})
    print("refused with any other value:", refused)
    changed = {name for name, difference, _ in bench.rows if difference > ROUNDING}
    assert {"llama.rope.freq_base", "llama.attention.layer_norm_rms_epsilon"} <= changed
    identities = set()
    for overrides in ({"x.a": 1}, {"x.a": 1.0}, {"x.a": True}, {"x.a": "1"}, {"x.b": 1}, {"x.a": 1, "x.b": 1}):
        identities.add(bench(options={"kv_overrides": overrides})["identity"])
    assert len(identities) == 6


def test_every_key_of_the_file(bench: Bench) -> None:
    for name, (kind, value) in gguf.metadata().items():
        if kind == 9 or name == "general.architecture":
            continue
        other = {6: lambda: value * 3 + 0.5, 8: lambda: f"{value}x"}.get(kind, lambda: value * 2)()
        path = bench.folder / f"{name}.gguf"
        gguf.write_model(path, changes={name: (kind, other)})
        bench.change(name, model=str(path))
    gguf.write_model(bench.folder / "seed.gguf", seed=4)
    bench.change("weights", model=str(bench.folder / "seed.gguf"))
    gguf.write_model(bench.folder / "layer.gguf", second_seed=4)
    bench.change("weights of a layer", model=str(bench.folder / "layer.gguf"))
    bench.judge("GGUF keys", {})
    assert len([row for row in bench.rows if row[1] > ROUNDING]) >= 4


def switches() -> list[str]:
    """All names in the libraries that look like switches of the environment."""
    folder = Path(api._lib._name).resolve().parent
    found: set[str] = set()
    for file in folder.glob("lib*.so*"):
        if file.name.startswith(("libllama", "libggml")):
            found |= {name.decode() for name in re.findall(rb"(?<=\0)(?:LLAMA|GGML)_[A-Z0-9_]+(?=\0)", file.read_bytes())}
    return sorted(found)


def test_every_switch_of_the_environment(engines: Engines, tmp_path: Path, memory: Path) -> None:
    bench = Bench(engines, tmp_path, memory, options={"type_k": 8, "type_v": 8, "flash_attn": True})
    names = switches()
    assert "LLAMA_ATTN_ROT_DISABLE" in names
    # One that is not there yet.
    for name in [*names, "LLAMA_NOT_YET_KNOWN", "GGML_NOT_YET_KNOWN"]:
        bench.change(name, environment={name: "1"})
    bench.judge("switches", loaded.ENVIRONMENT_LEFT_OUT)
    changed = {name for name, difference, _ in bench.rows if difference != 0}
    assert "LLAMA_ATTN_ROT_DISABLE" in changed


def test_adapters_and_what_is_set_later(bench: Bench) -> None:
    first, second = (str(gguf.write_lora(bench.folder / f"lora-{seed}.gguf", seed)) for seed in (1, 2))
    for name, changes in {
        "lora": {"options": {"lora_path": first}},
        "other lora": {"options": {"lora_path": second}},
        "lora scale": {"options": {"lora_path": first, "lora_scale": 3.0}},
        "lora scale 0": {"options": {"lora_path": first, "lora_scale": 0.0}},
        "lora set later": {"later": ["lora"], "lora": first},
        "other lora set later": {"later": ["lora"], "lora": second},
        "stronger lora set later": {"later": ["lora stronger"], "lora": first},
        "vector": {"calls": ["vector"]},
        "stronger vector": {"calls": ["vector stronger"]},
        "vector of fewer layers": {"calls": ["vector of fewer layers"]},
        "vector set later": {"later": ["vector"]},
        "causal_attn": {"calls": ["causal_attn"]},
        "causal_attn set later": {"later": ["causal_attn"]},
        "warmup": {"calls": ["warmup"]},
        "a call of a later version": {"calls": ["new call"]},
    }.items():
        assert bench.change(name, **changes), name
    bench.judge("adapters and calls", {})
    assert len([row for row in bench.rows if row[1] > ROUNDING]) >= 10
    # What was taken off again is as if it had never been; what was set twice is what was set last.
    lora = {"lora": first}
    assert bench(later=["lora", "no lora"], **lora)["identity"] != bench(later=["lora"], **lora)["identity"]
    assert bench(later=["lora", "no lora"], **lora)["logits"] == bench.plain["logits"]
    assert bench(later=["lora stronger", "lora"], **lora)["identity"] == bench(calls=["lora"], **lora)["identity"]
    # Equal files are one adapter, under whatever name; another content under the old name is another one.
    moved = bench.folder / "moved" / "lora-1.gguf"
    moved.parent.mkdir()
    moved.write_bytes(Path(first).read_bytes())
    one = bench(options={"lora_path": first})
    assert bench(options={"lora_path": str(moved)})["identity"] == one["identity"]
    moved.write_bytes(Path(second).read_bytes())
    assert bench(options={"lora_path": str(moved)})["identity"] != one["identity"]


def test_fields_that_are_not_known() -> None:
    class Later(ctypes.Structure):
        _fields_ = [
            *api.llama_context_params._fields_,
            ("new_number", ctypes.c_int32),
            ("new_ratio", ctypes.c_float),
            ("new_switch", ctypes.c_bool),
            ("new_address", ctypes.c_void_p),
            ("new_list", ctypes.POINTER(ctypes.c_int)),
        ]

    plain = loaded.described(Later(), loaded.CONTEXT_FIELDS_LEFT_OUT)
    seen = {json.dumps(plain)}
    for name, value in {
        "new_number": 1,
        "new_ratio": 0.5,
        "new_switch": True,
        "new_address": 4096,
        "new_list": ctypes.pointer(ctypes.c_int(1)),
    }.items():
        later = Later()
        setattr(later, name, value)
        seen.add(json.dumps(loaded.described(later, loaded.CONTEXT_FIELDS_LEFT_OUT)))
    assert len(seen) == 6
    # A pointer to what nobody can read here is this process' affair.
    assert any(loaded.this_process() in text for text in seen)


# ------------------------------------------------------------ what was shown


def hit(bench: Bench, first: dict[str, Any], then: dict[str, Any]) -> None:
    """Stores with one setting, asks with another: nothing is restored, and the answer is that of no store."""
    store = {"store": str(bench.folder / f"store-{len(list(bench.folder.iterdir()))}"), "cached": True}
    assert bench(**first, **store)["blocks"] == len(PROMPT) // 64
    answer, right = bench(**then, **store), bench(**then)
    assert not answer["restored"]
    assert answer["logits"] == right["logits"]
    # And what was stored with the same setting is found.
    again = bench(**then, **store)
    assert again["restored"] and again["logits"] == right["logits"]


def test_overrides_rotation_and_adapters_are_no_hits_of_each_other(bench: Bench) -> None:
    hit(bench, {}, {"options": {"kv_overrides": {"llama.rope.freq_base": 20000.0}}})
    quantized = {"options": {"type_k": 8, "type_v": 8, "flash_attn": True}}
    hit(bench, quantized, {**quantized, "environment": {"LLAMA_ATTN_ROT_DISABLE": "1"}})
    lora = str(gguf.write_lora(bench.folder / "lora.gguf", 1))
    hit(bench, {}, {"options": {"lora_path": lora}})
    hit(bench, {"options": {"lora_path": lora}}, {"options": {"lora_path": lora, "lora_scale": 3.0}})


@pytest.mark.parametrize("original", [1024, None])
def test_long_rope_chooses_its_factors_by_the_context_s_size(bench: Bench, original: int | None) -> None:
    path = bench.folder / "long.gguf"
    gguf.write_model(
        path, changes={**gguf.long_rope(original), "llama.context_length": (4, 1024)}, long_factors=True
    )
    short, long = ({"model": str(path), "options": {"n_ctx": size}} for size in (1024, 2048))
    hit(bench, short, long)
    # The bound itself may be overridden.
    name = "llama.rope.scaling.original_context_length"
    moved = [
        {"model": str(path), "options": {"n_ctx": size, "kv_overrides": {name: 1536}}} for size in (1280, 2048)
    ]
    hit(bench, *moved)
    # Sizes on one side of it share what they store.
    assert bench(**short)["identity"] == bench(model=str(path), options={"n_ctx": 512})["identity"]


def test_every_part_of_a_split_model_counts(bench: Bench) -> None:
    ours, theirs = bench.folder / "ours", bench.folder / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
    parts = gguf.write_model(ours / "m", parts=3)
    others = gguf.write_model(theirs / "m", parts=3, second_seed=99)
    assert parts[0].read_bytes() == others[0].read_bytes()
    hit(bench, {"model": str(parts[0])}, {"model": str(others[0])})
    for part, other in itertools.islice(zip(parts, others, strict=True), 1, None):
        part.write_bytes(other.read_bytes())
    assert bench(model=str(parts[0]))["identity"] == bench(model=str(others[0]))["identity"]


def test_an_image_is_not_stored_under_the_ids_of_an_earlier_text(bench: Bench) -> None:
    text = PROMPT[:330]
    front, tail = text[:70], text[326:] + [7] * 60
    image = {"front": front, "image": 256, "tail": tail}
    asked = front + text[70:326] + tail
    store = str(bench.folder / "images")
    # The text leaves its ids behind; the image comes into the same positions.
    mixed = bench(prompts=[text, image], cached=True, store=store)
    assert mixed["blocks"] == len(text) // 64
    right = bench(prompts=[asked])
    again = bench(prompts=[asked], cached=True, store=store)
    assert again["logits"] == right["logits"]
    # In a store of its own, nothing behind the text before the image is stored at all.
    alone = bench(prompts=[image], cached=True, store=str(bench.folder / "alone"))
    assert alone["blocks"] == len(front) // 64
    # The image's own answer is what it is without a store, also where its ids are stored as a text.
    plain = bench(prompts=[text, image])
    assert mixed["logits"] == plain["logits"]
    # In the engine that has just seen the image, another text with these ids is not taken for it.
    other = [*asked[:-40], *range(100, 170)]
    turn = bench(prompts=[text, image, other], cached=True, store=str(bench.folder / "turn"))
    right = bench(prompts=[other])
    assert np.abs(np.array(turn["logits"]) - np.array(right["logits"])).max() < ROUNDING


def test_a_model_file_that_changes_under_the_engine_ends_the_store(bench: Bench) -> None:
    tmp_path = bench.folder
    answer = bench(cached=True, calls=["write"], store=str(tmp_path / "other"))
    assert answer["blocks"] == 0
    # Replaced, as updates do, it stays what was loaded; what is asked of the new file is another model's.
    path = Path(bench.spec["model"])
    gguf.write_model(tmp_path / "new.gguf", seed=8)
    before = bench()["identity"]
    (tmp_path / "new.gguf").rename(path)
    assert bench()["identity"] != before


def test_what_was_loaded_before_anybody_watched_is_refused(tmp_path: Path) -> None:
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import gguf, kvstore, llama_cpp
from pathlib import Path
from llama_cpp import llama_cpp as api
original = api.llama_context_default_params
def two_sequences():
    parameters = original()
    parameters.n_seq_max, parameters.kv_unified = 2, True
    return parameters
api.llama_context_default_params = two_sequences
import kvstore.llama_cpp
(model,) = gguf.write_model(Path({str(tmp_path / "model.gguf")!r}))
store = kvstore.Store({str(tmp_path / "store")!r}, capacity="128MiB", host="16MiB")
llama = llama_cpp.Llama(str(model), n_ctx=512, verbose=False)
kvstore.llama_cpp.allow_block_copies()
try:
    kvstore.llama_cpp.KVStoreCache(llama, model, store)
except ValueError as reason:
    print(reason)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "before the model is loaded" in done.stdout, done.stderr[-2000:]
