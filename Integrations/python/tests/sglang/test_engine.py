"""A whole SGLang with its storage in a store: restarts, layouts of pages, ranks, tenants, adapters, damage, the page's command."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from engine import CPU, Engine, environment
from mixed_models import write_mixed_model
from tiny_model import write_adapter, write_generation_config, write_model, write_tokenizer

sys.path.append(str(Path(__file__).parents[1]))

from documented import command, others  # noqa: E402
from served import Served, free_port  # noqa: E402

pytestmark = pytest.mark.slow

PAGE = 64
COMMAND = Path(os.environ.get("KVSTORE_PREFIX") or Path(__file__).resolve().parents[4] / ".build-install") / "bin/kvstore"


def tokens(seed: int, count: int) -> list[int]:
    generator = random.Random(seed)
    return [generator.randrange(3, 4096) for _ in range(count)]


PROMPT = tokens(1, 700)
STORED = 640
TENANT = tokens(3, 700)
# More than 128 pages of 16 tokens.
LONG = tokens(4, 2200)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "one"
    write_model(folder, seed=1)
    write_generation_config(folder)
    return folder


def storage(path: Path, model: Path, **more: Any) -> dict[str, Any]:
    return {
        "backend_name": "kvstore",
        "module_path": "kvstore.sglang",
        "class_name": "KVStoreHiCache",
        "interface_v1": 1,
        "hicache_storage_pass_prefix_keys": True,
        "path": str(path),
        "disk_bytes": "512MiB",
        "host_bytes": "32MiB",
        "model_path": str(model),
        **more,
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (one["tokens"], one["logprobs"]) == (other["tokens"], other["logprobs"])


@pytest.mark.parametrize(
    ("layout", "copies", "page", "more"),
    [
        # More pages than SGLang asks for in a batch.
        ("page_first", "kernel", 16, {}),
        ("page_first_direct", "direct", PAGE, {"hicache_storage_pass_prefix_keys": False}),
        ("layer_first", "kernel", PAGE, {}),
        ("layer_first", "kernel", PAGE, {"interface_v1": 0}),
    ],
)
def test_a_restart(model: Path, tmp_path: Path, layout: str, copies: str, page: int, more: dict[str, Any]) -> None:
    """What one engine stored, the next one finds: in each layout, with and without the keys before a page, by copies too."""
    settings = storage(tmp_path / "store", model, **more)
    options = {"hicache_mem_layout": layout, "hicache_io_backend": copies, "page_size": page}
    # SGLang takes a prefix in pages, and from its storage not the page of the last token.
    stored = len(LONG) // page * page
    with Engine(model, settings, tmp_path / "first", **options) as engine:
        assert engine.generate(LONG)["cached"] == 0
        first = engine.generate(LONG)
        assert first["cached"] == stored
        # A tenant's pages are its own.
        assert engine.generate(TENANT, salt="one")["cached"] == 0
        tenant = engine.generate(TENANT, salt="one")
        assert engine.generate(TENANT, salt="two")["cached"] == 0
    with Engine(model, settings, tmp_path / "second", **options) as engine:
        restored = engine.generate(LONG)
        assert restored["cached"] == stored and same(restored, first)
        restored = engine.generate(TENANT, salt="one")
        assert restored["cached"] == tenant["cached"] and same(restored, tenant)
        # The store may be taken away.
        shutil.rmtree(tmp_path / "store")
        engine.flush()
        assert engine.generate(LONG)["tokens"][0] == first["tokens"][0]


def test_gemma3_after_a_restart(tmp_path: Path) -> None:
    """Its sliding windows share a pool with full attention, and its class inherits from transformers'."""
    write_mixed_model(tmp_path / "gemma3", "gemma3")
    settings = storage(tmp_path / "store", tmp_path / "gemma3")
    with Engine(tmp_path / "gemma3", settings, tmp_path / "first") as engine:
        assert engine.generate(PROMPT)["cached"] == 0
        first = engine.generate(PROMPT)
        assert first["cached"] == STORED
    with Engine(tmp_path / "gemma3", settings, tmp_path / "second") as engine:
        restored = engine.generate(PROMPT)
        assert restored["cached"] == STORED and same(restored, first)
        # Nothing but what the prompts have in common.
        assert engine.generate([*PROMPT[:PAGE], *tokens(5, 300)])["cached"] == PAGE
    stored = [part for part in inspect("namespaces", tmp_path / "store")["namespaces"] if part["block_count"]]
    assert len(stored) == 1, stored


def test_damaged_pages_are_computed(model: Path, tmp_path: Path) -> None:
    settings = storage(tmp_path / "store", model)
    with Engine(model, settings, tmp_path / "first") as engine:
        first = engine.generate(PROMPT)
    assert damage(tmp_path / "store") > 0
    with Engine(model, settings, tmp_path / "second") as engine:
        again = engine.generate(PROMPT)
        # Those that were found damaged are stored anew.
        engine.flush()
        healed = engine.generate(PROMPT)
    assert (again["cached"], again["tokens"]) == (0, first["tokens"])
    assert healed["cached"] == STORED and healed["tokens"] == first["tokens"]


def damage(path: Path) -> int:
    """Flips a bit in each 64 KiB of what the slots hold; returns how many."""
    count = 0
    for file in (path / "slots").iterdir():
        content = file.read_bytes()
        with file.open("r+b") as opened:
            for at in range(32 << 10, len(content), 64 << 10):
                if content[at]:
                    opened.seek(at)
                    opened.write(bytes([content[at] ^ 1]))
                    count += 1
    return count


def test_two_ranks(model: Path, tmp_path: Path) -> None:
    """Each rank of tensor parallelism stores its own part, and finds it after a restart."""
    settings = storage(tmp_path / "store", model)
    # A core for each rank, where there are several; SGLang asks for it.
    cores = sorted(os.sched_getaffinity(0))
    options: dict[str, Any] = {"tp_size": 2, "variables": {"SGLANG_CPU_OMP_THREADS_BIND": f"{cores[0]}|{cores[-1]}"}}
    with Engine(model, settings, tmp_path / "first", **options) as engine:
        assert engine.generate(PROMPT)["cached"] == 0
        first = engine.generate(PROMPT)
        assert first["cached"] == STORED
    ranks = [part for part in inspect("namespaces", tmp_path / "store")["namespaces"] if part["block_count"]]
    assert len(ranks) == 2 and len({part["block_count"] for part in ranks}) == 1, ranks
    with Engine(model, settings, tmp_path / "second", **options) as engine:
        restored = engine.generate(PROMPT)
        assert restored["cached"] == STORED and same(restored, first)


def test_adapters(model: Path, tmp_path: Path) -> None:
    """An adapter finds its own pages; and since SGLang tells its storage no adapter's content, a later process finds none."""
    write_adapter(tmp_path / "adapter", seed=5)
    settings = storage(tmp_path / "store", model)
    options: dict[str, Any] = {"enable_lora": True, "lora_paths": {"one": str(tmp_path / "adapter")}}
    options |= {"lora_backend": "torch_native", "max_loras_per_batch": 2}
    with Engine(model, settings, tmp_path / "first", **options) as engine:
        plain = engine.generate(PROMPT)
        adapted = engine.generate(PROMPT, adapter="one")
        assert (plain["cached"], adapted["cached"]) == (0, 0) and adapted["tokens"] != plain["tokens"]
        again = engine.generate(PROMPT, adapter="one")
        assert (again["cached"], again["tokens"]) == (STORED, adapted["tokens"])
        engine.flush()
        assert engine.generate(PROMPT)["tokens"] == plain["tokens"]
        assert engine.generate(PROMPT, adapter="one")["tokens"] == adapted["tokens"]
        assert "what an adapter holds" in engine.said()
    with Engine(model, settings, tmp_path / "second", **options) as engine:
        found = engine.generate(PROMPT, adapter="one")
        assert (found["cached"], found["tokens"]) == (0, adapted["tokens"])


def test_a_model_with_more_pools_is_refused_at_start(tmp_path: Path) -> None:
    """One whose sliding-window layers have a pool of their own."""
    import torch
    from transformers import AutoModelForCausalLM, MellumConfig

    config = MellumConfig(
        vocab_size=4096,
        hidden_size=256,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        intermediate_size=512,
        num_hidden_layers=4,
        sliding_window=256,
        layer_types=["sliding_attention", "full_attention"] * 2,
        max_position_embeddings=8192,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    folder = tmp_path / "windows"
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).to(torch.bfloat16).save_pretrained(folder)
    with pytest.raises(AssertionError, match="kvstore: this model has a cache of kind swa beside its KV .* start SGLang without"):
        Engine(folder, storage(tmp_path / "store", folder), tmp_path / "log")


def inspect(what: str, *words: object) -> Any:
    """What `kvstore inspect` shows beside the engine."""
    said = subprocess.run([COMMAND, "inspect", what, *map(str, words), "--json"], capture_output=True, text=True, check=True)
    return json.loads(said.stdout)


class Server(Served):
    """The documented command."""

    def __init__(self, words: list[str], log: Path) -> None:
        port = free_port()
        flags = [f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}") for name, value in CPU.items()]
        assert words[0] == "python"
        words = [sys.executable, *words[1:], *flags, f"--port={port}", "--skip-server-warmup"]
        super().__init__(words, port, log, environment=environment())

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(120)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(60)


def test_the_command_as_it_stands(model: Path, tmp_path: Path) -> None:
    """With what a CPU needs behind it: a server that is stopped and started again finds what the first one stored."""
    assert others("sglang.md", "python -m sglang.launch_server") == []
    write_tokenizer(model)
    words = command("sglang.md", "python -m sglang", {"MODEL": str(model), "/var/cache/kv": str(tmp_path / "store")})
    body = {"input_ids": PROMPT, "sampling_params": {"max_new_tokens": 8, "temperature": 0, "ignore_eos": True}}
    answers = []
    for name in ("first", "second"):
        server = Server(words, tmp_path / name)
        answers.append(json.loads(server.ask("/generate", body)))
        # Pages are written behind the answer.
        time.sleep(1)
        server.stop()
    # SGLang's policy of prefetching may begin without all that is stored.
    cached = [answer["meta_info"]["cached_tokens"] for answer in answers]
    assert cached[0] == 0 and cached[1] > 0, cached
    assert answers[0]["output_ids"] == answers[1]["output_ids"]
