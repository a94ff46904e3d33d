"""What a client says of a conversation reaches the store through a real vLLM."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from engine import COMMAND, Engine, ask, stats, within
from tiny_model import write_model

pytestmark = pytest.mark.slow

BLOCK = 128
# K and V of four layers with four heads of 64.
BLOCK_BYTES = BLOCK * 4 * 4 * 64 * 2 * 2


def tokens(seed: int, count: int) -> list[int]:
    generator = random.Random(seed)
    return [generator.randrange(3, 4096) for _ in range(count)]


SYSTEM = tokens(1, 4 * BLOCK)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Path]]:
    folder = tmp_path_factory.mktemp("hints")
    write_model(folder / "model", seed=1)
    settings = {"path": str(folder / "store"), "disk_bytes": "512MiB", "host_bytes": "32MiB"}
    with Engine(folder / "model", settings, folder / "log") as engine:
        yield engine, folder / "store"


def blocks(path: Path) -> int:
    return int(stats(path)["blocks_stored"])


def payload(path: Path) -> int:
    return int(stats(path)["payload_bytes_stored"])


def stored(engine: Engine, prompt: list[int]) -> int:
    """Tokens that the store has, and vLLM's own cache does not."""
    # What is being saved ends with a step.
    engine.generate(tokens(99, 8))
    engine.reset_prefix_cache()
    return int(engine.generate(prompt, tokens=1)[0]["cached"])


def test_a_session_is_recorded_step_by_step(running: tuple[Engine, Path]) -> None:
    engine, path = running
    prompt = SYSTEM + tokens(2, 300)
    for _ in range(3):
        answer = engine.generate(prompt, hints={"session": "run 17"}, tokens=40)[0]
        prompt = prompt + answer["tokens"] + tokens(len(prompt), 200)
    shown = subprocess.run([COMMAND, "inspect", "sessions", path], capture_output=True, text=True, check=True).stdout
    assert "run 17" in shown, shown


def test_a_session_that_ends_frees_what_nobody_else_can_reach(running: tuple[Engine, Path]) -> None:
    engine, path = running
    engine.generate(SYSTEM + tokens(3, 10))
    first = SYSTEM + tokens(4, 9 * BLOCK + 5)
    engine.generate(first, hints={"session": "short"})
    assert stored(engine, first) == 13 * BLOCK
    before = blocks(path)
    engine.generate(first, hints={"session": "short", "end": True})
    engine.generate(tokens(99, 8))
    assert within(5, lambda: blocks(path) <= before - 9), (before, blocks(path))
    assert stored(engine, first) == 4 * BLOCK
    assert blocks(path) <= before


def test_a_session_that_ends_frees_its_bytes_though_nothing_else_runs(
    running: tuple[Engine, Path], tmp_path: Path
) -> None:
    engine, path = running
    other = SYSTEM + tokens(12, BLOCK + 10)
    (tmp_path / "other").write_text(json.dumps(other))
    engine.generate(other)
    assert within(60, lambda: len(ask("inspect", "prefix", path, tmp_path / "other")["blocks"]) == 5)
    conversation = SYSTEM + tokens(13, 20 * BLOCK + 5)
    before = payload(path)
    engine.generate(conversation, hints={"session": "long"})
    dead = 20 * BLOCK_BYTES
    assert within(60, lambda: payload(path) == before + dead), (before, payload(path))
    engine.generate(conversation, tokens=1, hints={"session": "long", "end": True})
    answered = time.monotonic()
    assert within(60, lambda: payload(path) <= before + dead // 20), (before, dead, payload(path))
    assert payload(path) >= before
    print(f"{dead} dead bytes: {time.monotonic() - answered:.3f} s until {payload(path) - before} were left")


def test_priority_and_pin_are_those_of_the_blocks(running: tuple[Engine, Path], tmp_path: Path) -> None:
    engine, path = running
    prompt = tokens(14, 3 * BLOCK + 5)
    (tmp_path / "prompt").write_text(json.dumps(prompt))
    engine.generate(prompt, hints={"priority": 7, "pin_seconds": 600})
    ends = time.time() + 600

    def keys() -> list[str]:
        return [block["block_key"] for block in ask("inspect", "prefix", path, tmp_path / "prompt")["blocks"]]

    def pins() -> list[dict[str, Any]]:
        return [pin for pin in ask("inspect", "pins", path)["pins"] if pin["last_block_key"] == keys()[-1]]

    assert within(60, lambda: len(keys()) == 3)
    assert [ask("inspect", "block", path, key)["blocks"][0]["priority"] for key in keys()] == [7, 7, 7]
    assert within(60, lambda: bool(pins()))
    (pin,) = pins()
    assert pin["block_count"] == 3
    assert ends - 60 < datetime.fromisoformat(pin["ends_at"]).timestamp() < ends + 120


def test_a_compacted_conversation_drops_what_came_before(running: tuple[Engine, Path]) -> None:
    engine, path = running
    long = SYSTEM + tokens(5, 8 * BLOCK + 5)
    summary = SYSTEM + tokens(6, 2 * BLOCK + 5)
    engine.generate(long, hints={"session": "agent"})
    assert stored(engine, long) == 12 * BLOCK
    before = blocks(path)
    engine.generate(summary, hints={"session": "agent", "compacted": True})
    engine.generate(tokens(99, 8))
    assert within(5, lambda: blocks(path) <= before - 8 + 2), (before, blocks(path))
    assert stored(engine, summary) == 6 * BLOCK


def test_how_long_blocks_live(running: tuple[Engine, Path]) -> None:
    engine, _ = running
    brief, pinned, plain = tokens(7, 3 * BLOCK + 5), tokens(8, 3 * BLOCK + 5), tokens(9, 3 * BLOCK + 5)
    engine.generate(brief, hints={"ttl_seconds": 3})
    engine.generate(pinned, hints={"ttl_seconds": 3, "pin_seconds": 600})
    engine.generate(plain, hints={"priority": 90, "ttl_seconds": 600})
    engine.generate(tokens(99, 8))
    time.sleep(4)
    assert [stored(engine, prompt) for prompt in (brief, plain)] == [0, 3 * BLOCK]


def test_hints_that_make_no_sense_are_ignored(running: tuple[Engine, Path]) -> None:
    engine, _ = running
    prompt = tokens(10, 3 * BLOCK + 5)
    engine.generate(prompt, hints={"ttl_seconds": -1, "priority": "high", "session": "", "forget": 1, "pin_seconds": 1e12})
    assert stored(engine, prompt) == 3 * BLOCK
    for name in ("ttl_seconds", "priority", "session", "forget", "pin_seconds"):
        assert f"the hint {name} of a request is" in engine.said()
