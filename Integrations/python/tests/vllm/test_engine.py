"""The connector in a real vLLM: a small model whose random weights make every token depend on the KV before it.

What was restored is compared bit for bit with what vLLM's own prefix cache gives for the same prompt, tokens and
log-probabilities: computing the whole prompt differs in the last bits, as its batches have other shapes.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from engine import Engine, stats
from tiny_model import write_model

import kvstore

BLOCK = 128
MODES = ["async", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("sync", "layerwise"))]


def tokens(seed: int, count: int) -> list[int]:
    generator = random.Random(seed)
    return [generator.randrange(3, 4096) for _ in range(count)]


def usable(prompt: list[int]) -> int:
    """The tokens of full blocks, leaving one to compute."""
    return (len(prompt) - 1) // BLOCK * BLOCK


def settings(path: Path, **more: Any) -> dict[str, Any]:
    return {"path": str(path), "disk_bytes": "512MiB", "host_bytes": "32MiB", **more}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (one["tokens"], one["logprobs"]) == (other["tokens"], other["logprobs"])


PROMPT = tokens(1, 1000)
DAMAGED_LATE = tokens(2, 900)
DAMAGED_FIRST = tokens(3, 700)
# Full blocks only: the last one cannot be used whole.
WHOLE = tokens(4, 4 * BLOCK)
SHARED = tokens(5, 3 * BLOCK)
FAMILY = [SHARED + tokens(100 + index, 200 + 40 * index) for index in range(5)]


@dataclass
class Warm:
    """A store that an engine has filled, and what vLLM's own prefix cache gave."""

    model: Path
    path: Path
    hits: dict[str, dict[str, Any]]
    long: list[int]
    log: str


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "one", seed=1)
    write_model(folder / "two", seed=2)
    return folder


@pytest.fixture(scope="session")
def warm(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """Run 1: cold, then again for vLLM's own hits; the process ends."""
    folder = tmp_path_factory.mktemp("warm")
    with Engine(models / "one", settings(folder / "store"), folder / "log") as engine:
        prompts = {"plain": PROMPT, "late": DAMAGED_LATE, "first": DAMAGED_FIRST, "whole": WHOLE}
        cold = {name: engine.generate(prompt)[0] for name, prompt in prompts.items()}
        assert [answer["cached"] for answer in cold.values()] == [0, 0, 0, 0]
        hits = {name: engine.generate(prompt)[0] for name, prompt in prompts.items()}
        for name, prompt in prompts.items():
            assert hits[name]["cached"] == usable(prompt)
        # The control: with other tokens in the first block, and the same ones behind it, the answer is another one.
        other = engine.generate(tokens(9, BLOCK) + PROMPT[BLOCK:])[0]
        assert not same(other, hits["plain"])

        # Generated tokens are stored too: the next turn of a conversation finds them.
        turn = engine.generate(PROMPT, tokens=2 * BLOCK)[0]
        long = PROMPT + turn["tokens"] + tokens(6, 50)
        assert engine.generate(long)[0]["cached"] == (len(PROMPT) + 2 * BLOCK - 1) // BLOCK * BLOCK
        hits["long"] = engine.generate(long)[0]

        # Another salt shares nothing, and has its own.
        assert engine.generate(PROMPT, salt="tenant")[0]["cached"] == 0
        assert engine.generate(PROMPT, salt="tenant")[0]["cached"] == usable(PROMPT)

        # Several at once, with a shared prefix, computed, from vLLM's cache, and from the store.
        engine.generate(*FAMILY)
        local = engine.generate(*FAMILY)
        engine.reset_prefix_cache()
        restored = engine.generate(*FAMILY)
        for prompt, ours, theirs in zip(FAMILY, restored, local, strict=True):
            assert ours["cached"] == usable(prompt)
            assert near(ours, theirs)
        said = engine.said()
    yield Warm(models / "one", folder / "store", hits, long, said)


def near(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Batches of other shapes change the last bits; restored KV of another prompt would change everything."""
    return one["tokens"][0] == other["tokens"][0] and all(
        abs(float.fromhex(ours) - float.fromhex(theirs)) < 0.1
        for ours, theirs in zip(one["logprobs"][:1], other["logprobs"][:1], strict=True)
    )


def damage(path: Path, prompt: list[int], block: int) -> None:
    """Flips one bit in the payload of one block, whose slot is found by the tokens in its header."""
    part = struct.pack(f"<{BLOCK}I", *prompt[block * BLOCK : (block + 1) * BLOCK])
    places = 0
    for file in (path / "slots").iterdir():
        content = file.read_bytes()
        at = content.find(part)
        while at >= 0:
            where = at + 100_000  # behind the header, inside the payload
            with file.open("r+b") as opened:
                opened.seek(where)
                opened.write(bytes([content[where] ^ 0x10]))
            places += 1
            at = content.find(part, at + 1)
    assert places == 1, f"{places} slots hold block {block}"


@pytest.fixture
def store(warm: Warm, tmp_path: Path) -> Path:
    """A copy of the filled store, to damage or fill up; a process that is killed leaves its link to the lock file."""
    shutil.copytree(warm.path, tmp_path / "store", symlinks=True)
    return tmp_path / "store"


@pytest.mark.parametrize("mode", MODES)
def test_after_a_restart(warm: Warm, store: Path, tmp_path: Path, mode: str) -> None:
    """Run 2: everything comes from disk, in each way of loading; damaged blocks are computed again."""
    damage(store, DAMAGED_LATE, 3)
    damage(store, DAMAGED_FIRST, 0)
    with Engine(warm.model, settings(store, load=mode, staging=mode == "sync"), tmp_path / "log") as engine:
        for name, prompt in {"plain": PROMPT, "whole": WHOLE, "long": warm.long}.items():
            restored = engine.generate(prompt)[0]
            assert restored["cached"] == usable(prompt), name
            assert same(restored, warm.hits[name]), name
        assert "KV load failure" not in engine.said()
        # vLLM binds the threads that compute, each to a core; ours may be anywhere.
        worker, cores = engine.worker_process(), os.sched_getaffinity(0)
        assert len(cores) == 1 or os.sched_getaffinity(worker) != cores
        assert sum(os.sched_getaffinity(int(thread)) == cores for thread in os.listdir(f"/proc/{worker}/task")) >= 4

        for name, prompt in {"late": DAMAGED_LATE, "first": DAMAGED_FIRST}.items():
            assert near(engine.generate(prompt)[0], warm.hits[name]), name
        assert engine.said().count("Recovered from KV load failure") == 2
        # What was computed again is stored again.
        engine.reset_prefix_cache()
        for name, prompt in {"late": DAMAGED_LATE, "first": DAMAGED_FIRST}.items():
            healed = engine.generate(prompt)[0]
            assert healed["cached"] == usable(prompt), name
            assert near(healed, warm.hits[name]), name
        assert engine.said().count("Recovered from KV load failure") == 2

        if mode == "async":
            killed_while_it_loads(engine, store)
        else:
            shutil.rmtree(store)
            engine.reset_prefix_cache()
            assert near(engine.generate(PROMPT)[0], warm.hits["plain"])
            assert engine.generate(tokens(50, 500))[0]["cached"] == 0


def killed_while_it_loads(engine: Engine, path: Path) -> None:
    """A killed engine leaves no lease behind."""
    with kvstore.Store(path, capacity="512MiB", host="32MiB") as outside:
        assert outside.stats()["leases_active"] == 0
        # The worker stands still: the scheduler takes its lease, and nobody releases it.
        os.kill(engine.worker_process(), signal.SIGSTOP)
        engine.begin(FAMILY[0])
        deadline = time.monotonic() + 60
        while outside.stats()["leases_active"] == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert outside.stats()["leases_active"] == 1
        engine.kill()
        assert outside.stats()["leases_active"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("other", ["model", "dtype"])
def test_other_engines_share_nothing(warm: Warm, models: Path, store: Path, tmp_path: Path, other: str) -> None:
    model = models / "two" if other == "model" else warm.model
    dtype = "float16" if other == "dtype" else "bfloat16"
    with Engine(model, settings(store), tmp_path / "log", dtype=dtype) as engine:
        first = engine.generate(PROMPT)[0]
        assert first["cached"] == 0
        assert not same(first, warm.hits["plain"])
        assert engine.generate(PROMPT)[0]["cached"] == usable(PROMPT)


@pytest.mark.slow
def test_an_engine_that_sleeps(warm: Warm, store: Path, tmp_path: Path) -> None:
    """It finds what was stored when it wakes up, also of the last request before; one that gave its weights away stops."""
    with Engine(warm.model, settings(store), tmp_path / "log") as engine:
        last = tokens(60, 900)
        cold = engine.generate(last)[0]
        assert cold["cached"] == 0
        engine.sleep(1)
        for name, prompt in {"plain": PROMPT, "whole": WHOLE}.items():
            restored = engine.generate(prompt)[0]
            assert restored["cached"] == usable(prompt) and same(restored, warm.hits[name]), name
        restored = engine.again(last, usable(last))
        assert restored["cached"] == usable(last) and near(restored, cold)
        engine.sleep(2)
        assert near(engine.generate(PROMPT)[0], warm.hits["plain"])
        engine.reset_prefix_cache()
        assert engine.generate(PROMPT)[0]["cached"] == 0
        assert "sleep at level 2 may have changed the weights" in engine.said()
    # What others may use was not touched.
    assert stats(store)["blocks_stored"] > 0


@pytest.mark.slow
def test_a_full_disk(warm: Warm, small_disk: Path, tmp_path: Path) -> None:
    """The store makes do with what the file system has, less than it was given, and evicts."""
    with Engine(warm.model, settings(small_disk / "store"), tmp_path / "log") as engine:
        for seed in range(70, 90):
            answer = engine.generate(tokens(seed, 1500))[0]
            assert answer["cached"] == 0
        assert shutil.disk_usage(small_disk).free < 4 << 20
        engine.reset_prefix_cache()
        assert near(engine.generate(tokens(89, 1500))[0], answer)
        assert near(engine.generate(PROMPT)[0], warm.hits["plain"])


@pytest.mark.slow
def test_a_disk_that_cannot_be_written(warm: Warm, small_disk: Path, tmp_path: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with Engine(warm.model, settings(small_disk / "store"), tmp_path / "log") as engine:
        assert "running without the store" in engine.said()
        assert near(engine.generate(PROMPT)[0], warm.hits["plain"])
        assert engine.generate(PROMPT)[0]["cached"] == usable(PROMPT)


def test_settings_that_are_wrong_stop_the_engine(warm: Warm, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="unknown setting disk_size; there are"):
        Engine(warm.model, {"path": str(tmp_path / "store"), "disk_size": "1GiB"}, tmp_path / "log")
