"""What a client says of a conversation reaches the store through a whole SGLang."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine import Engine
from test_engine import PAGE, inspect, storage
from tiny_model import write_model

import kvstore

pytestmark = pytest.mark.slow


def tokens(seed: int, count: int) -> list[int]:
    generator = random.Random(seed)
    return [generator.randrange(3, 4096) for _ in range(count)]


SYSTEM = tokens(1, 4 * PAGE)
# K and V of four layers with four heads of 64, in 16 bits.
PAGE_BYTES = PAGE * 4 * 4 * 64 * 2 * 2


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Path]]:
    folder = tmp_path_factory.mktemp("sessions")
    write_model(folder / "model", seed=1)
    with Engine(folder / "model", storage(folder / "store", folder / "model"), folder / "log") as engine:
        # What the conversations share.
        engine.generate(SYSTEM + tokens(2, 10))
        assert within(60, lambda: payload(folder / "store") == 4 * PAGE_BYTES)
        yield engine, folder / "store"


def payload(path: Path) -> int:
    with kvstore.Store(path, capacity="512MiB", host="32MiB") as outside:
        return int(outside.stats()["payload_bytes_stored"])


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def sessions(path: Path) -> dict[str, Any]:
    return {session["name"]: session for session in inspect("sessions", path)["sessions"]}


def test_sessions_are_recorded_step_by_step(running: tuple[Engine, Path]) -> None:
    engine, path = running
    for name, how in {"run 17": {"hints": {"session": "run 17"}}, "chat 5": {"session": "chat 5"}}.items():
        prompt = SYSTEM + tokens(3 + len(name), 2 * PAGE)
        for _ in range(3):
            prompt = prompt + engine.generate(prompt, **how)["tokens"] + tokens(len(prompt), PAGE)  # type: ignore[arg-type]
    assert within(60, lambda: {"run 17", "chat 5"} <= set(sessions(path))), sessions(path)
    assert within(60, lambda: all(sessions(path)[name]["step_count"] == 3 for name in ("run 17", "chat 5")))


@pytest.mark.parametrize("how", ["end", "close", "compacted"])
def test_a_conversation_that_is_over_frees_its_bytes(running: tuple[Engine, Path], how: str) -> None:
    """All but what others share, and though no other request comes."""
    engine, path = running
    before = payload(path)
    conversation = SYSTEM + tokens(10 + len(how), 30 * PAGE + 5)
    dead = 30 * PAGE_BYTES
    named: dict[str, Any] = {"session": "own"} if how == "close" else {"hints": {"session": how}}
    engine.generate(conversation, **named)
    assert within(60, lambda: payload(path) == before + dead), (before, payload(path))
    kept = 0
    if how == "end":
        engine.generate(conversation, hints={"session": how, "end": True})
    elif how == "close":
        engine.close_session("own")
    else:
        kept = 2 * PAGE_BYTES
        engine.generate(SYSTEM + tokens(99, 2 * PAGE + 5), hints={"session": how, "compacted": True})
    answered = time.monotonic()
    assert within(60, lambda: payload(path) <= before + kept + dead // 20), (before, dead, payload(path))
    print(f"{how}: {dead} dead bytes, {time.monotonic() - answered:.3f} s until {payload(path) - before - kept} were left")
    # Saves that were on their way do not come back.
    time.sleep(2)
    assert before <= payload(path) <= before + kept + dead // 20


def test_a_conversation_that_goes_on_after_its_end_is_stored_again(running: tuple[Engine, Path]) -> None:
    engine, path = running
    before = payload(path)
    conversation = SYSTEM + tokens(30, 6 * PAGE + 5)
    engine.generate(conversation, hints={"session": "again", "end": True})
    assert within(60, lambda: payload(path) == before), (before, payload(path))
    engine.flush()
    engine.generate(conversation, hints={"session": "again"})
    assert within(60, lambda: payload(path) == before + 6 * PAGE_BYTES), (before, payload(path))


def test_time_priority_and_pin_are_those_of_the_pages(running: tuple[Engine, Path]) -> None:
    engine, path = running
    engine.generate(tokens(40, 3 * PAGE + 5), hints={"priority": 7, "ttl_seconds": 3600, "pin_seconds": 600})

    def runs() -> list[dict[str, Any]]:
        found = [run for space in inspect("tree", path)["namespaces"] for run in space["runs"]]
        return [run for run in found if run["pinned_block_count"]]

    assert within(60, lambda: bool(runs())), inspect("tree", path)
    (run,) = runs()
    assert (run["block_count"], run["pinned_block_count"]) == (3, 3)
    assert run["first_ends_at"] and run["last_ends_at"]
    assert inspect("block", path, run["last_block_key"])["blocks"][0]["priority"] == 7
