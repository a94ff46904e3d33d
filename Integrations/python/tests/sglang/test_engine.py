"""A whole SGLang with its storage in a store: restarts, layouts of pages, tenants, damage, and the page's own command."""

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
from tiny_model import write_model, write_tokenizer

sys.path.append(str(Path(__file__).parents[1]))

from documented import command, others  # noqa: E402
from served import Served, free_port  # noqa: E402

pytestmark = pytest.mark.slow

PAGE = 64


def tokens(seed: int, count: int) -> list[int]:
    generator = random.Random(seed)
    return [generator.randrange(3, 4096) for _ in range(count)]


PROMPT = tokens(1, 700)
# SGLang takes a prefix in pages, and from its storage not the page of the last token.
STORED = 640
DAMAGED = tokens(2, 700)
TENANT = tokens(3, 700)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "one"
    write_model(folder, seed=1)
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
    ("layout", "copies", "more"),
    [
        ("page_first", "kernel", {}),
        ("page_first_direct", "direct", {"hicache_storage_pass_prefix_keys": False}),
        ("layer_first", "kernel", {}),
    ],
)
def test_a_restart(model: Path, tmp_path: Path, layout: str, copies: str, more: dict[str, Any]) -> None:
    """What one engine stored, the next one finds: in each layout, with and without the keys before a page."""
    settings = storage(tmp_path / "store", model, **more)
    options = {"hicache_mem_layout": layout, "hicache_io_backend": copies}
    with Engine(model, settings, tmp_path / "first", **options) as engine:
        assert engine.generate(PROMPT)["cached"] == 0
        first = engine.generate(PROMPT)
        assert first["cached"] == STORED
        engine.generate(DAMAGED)
        damaged = engine.generate(DAMAGED)
        # A tenant's pages are its own.
        assert engine.generate(TENANT, salt="one")["cached"] == 0
        tenant = engine.generate(TENANT, salt="one")
        assert tenant["cached"] == STORED
        assert engine.generate(TENANT, salt="two")["cached"] == 0
    lost = damage(tmp_path / "store", len(DAMAGED) // PAGE)
    with Engine(model, settings, tmp_path / "second", **options) as engine:
        restored = engine.generate(PROMPT)
        assert restored["cached"] == STORED and same(restored, first)
        restored = engine.generate(TENANT, salt="one")
        assert restored["cached"] == STORED and same(restored, tenant)
        # Damaged pages are computed.
        part = engine.generate(DAMAGED)
        assert part["cached"] < STORED or not lost
        assert part["tokens"][0] == damaged["tokens"][0]
        # And the store may be taken away.
        shutil.rmtree(tmp_path / "store")
        engine.flush()
        assert engine.generate(PROMPT)["tokens"][0] == first["tokens"][0]


def damage(path: Path, pages: int) -> bool:
    """Flips a bit of a page that is stored behind others: of the fourth one of the second prompt, by the order of slots."""
    (file, *_) = sorted((path / "slots").iterdir())
    content = file.read_bytes()
    size = len(content)
    while size and content[size - 1] == 0:
        size -= 1
    at = size // 2
    if not content[at]:
        return False
    with file.open("r+b") as opened:
        opened.seek(at)
        opened.write(bytes([content[at] ^ 1]))
    return True


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
