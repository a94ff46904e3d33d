"""States of recurrent layers in a real vLLM: pinned, evicted or damaged while the KV beside them is there."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from engine import Engine, ask, within

import kvstore

pytestmark = pytest.mark.slow

BLOCK = 256
OPTIONS = {"block_size": BLOCK}
# The least that a store of these blocks works in, so that it can be filled.
DISK = 64 << 20


def tokens(seed: int, count: int) -> list[int]:
    generator = random.Random(seed)
    return [generator.randrange(3, 4096) for _ in range(count)]


def settings(path: Path) -> dict[str, Any]:
    return {"path": str(path), "disk_bytes": DISK, "host_bytes": "16MiB"}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (one["tokens"], one["logprobs"]) == (other["tokens"], other["logprobs"])


def near(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one["tokens"][0] == other["tokens"][0] and (
        abs(float.fromhex(one["logprobs"][0]) - float.fromhex(other["logprobs"][0])) < 0.1
    )


def namespace(path: Path, section: str | None) -> dict[str, Any] | None:
    """That of the engine's blocks, or of its states; None: nothing was stored yet."""
    for found in ask("inspect", "namespaces", path)["namespaces"]:
        if found["identity"]["side_section"] == section and found["identity"]["engine_format"]:
            return dict(found)
    return None


def keys_of(path: Path, section: str | None) -> set[str]:
    """Of the first blocks of the runs that are stored; each state is one."""
    found = namespace(path, section)
    if found is None:
        return set()
    trees = ask("inspect", "tree", path, "--namespace", found["id"])["namespaces"]
    return {run["first_block_key"] for tree in trees for run in tree["runs"]}


def states(path: Path) -> set[str]:
    return keys_of(path, "recurrent")


def forget(path: Path, key: str) -> None:
    found = namespace(path, "recurrent")
    assert found is not None
    ask("forget", path, key, "--namespace", found["id"])


def damage(path: Path, key: str) -> None:
    """Flips a bit in the middle of a state."""
    found = namespace(path, "recurrent")
    assert found is not None
    (block,) = ask("inspect", "block", path, key, "--namespace", found["id"])["blocks"]
    (file,) = [file for file in (path / "slots").iterdir() if int(file.stem[-8:], 16) == block["file"]]
    at = block["slot"] * found["slot_bytes"] + found["slot_bytes"] // 2
    with file.open("r+b") as opened:
        opened.seek(at)
        (byte,) = opened.read(1)
        opened.seek(at)
        opened.write(bytes([byte ^ 0x10]))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "qwen3-next"
    script = Path(__file__).with_name("mixed_models.py")
    subprocess.run([sys.executable, str(script), "qwen3-next", str(folder)], check=True, capture_output=True)
    return folder


@dataclass
class Conversation:
    """A prompt whose last full block is its second one, and a later turn of it, whose last full block is the fourth."""

    turn: list[int]
    states: list[str]
    """The key of the state behind each."""
    hit: dict[str, Any]


def conversation(engine: Engine, path: Path, seed: int) -> Conversation:
    first = tokens(seed, 2 * BLOCK + 80)
    turn = first + tokens(seed + 1, 2 * BLOCK)
    keys: list[str] = []
    for prompt in (first, turn):
        before = states(path)
        engine.generate(prompt)
        assert within(60, lambda before=before: len(states(path) - before) == 1), (before, states(path))
        keys += states(path) - before
    hit = engine.generate(turn)[0]
    assert hit["cached"] == 4 * BLOCK
    return Conversation(turn, keys, hit)


def test_a_state_that_is_lost_or_damaged_while_its_kv_is_there(model: Path, tmp_path: Path) -> None:
    """The answer is right, and what is used ends at an earlier state, or there is none; then all of it is stored again."""
    path = tmp_path / "store"
    with Engine(model, settings(path), tmp_path / "first", **OPTIONS) as engine:
        lost, last_lost, damaged = (conversation(engine, path, seed) for seed in (10, 20, 30))
    for key in (*lost.states, last_lost.states[1]):
        forget(path, key)
    damage(path, damaged.states[1])
    blocks = namespace(path, None)
    assert blocks is not None and blocks["block_count"] >= 12
    with Engine(model, settings(path), tmp_path / "second", **OPTIONS) as engine:
        for name, one, cached in (("lost", lost, 0), ("last lost", last_lost, 2 * BLOCK), ("damaged", damaged, 0)):
            answer = engine.generate(one.turn)[0]
            assert answer["cached"] == cached and near(answer, one.hit), (name, answer, one.hit)
        for one in (lost, last_lost, damaged):
            healed = engine.again(one.turn, 4 * BLOCK)
            assert healed["cached"] == 4 * BLOCK and near(healed, one.hit), (healed, one.hit)
    counts = engine.counts()
    assert (counts["misses_corrupt"], counts["blocks_quarantined"]) == (1, 1), counts


def test_a_pin_holds_the_states_too(model: Path, tmp_path: Path) -> None:
    """Blocks that others store evict what is not pinned, and nothing of what is."""
    path = tmp_path / "store"
    pinned, plain = tokens(1, 2 * BLOCK + 80), tokens(2, 2 * BLOCK + 80)
    with Engine(model, settings(path), tmp_path / "log", **OPTIONS) as engine:
        for prompt, hints in ((pinned, {"pin_seconds": 600}), (plain, {})):
            before = states(path)
            # What has the lowest priority is evicted first.
            engine.generate(prompt, hints={"priority": 0, **hints})
            assert within(60, lambda before=before: len(states(path) - before) == 1)
        assert within(60, lambda: len(ask("inspect", "pins", path)["pins"]) > 0)
        hit = engine.generate(pinned)[0]
        fill(path)
        assert within(60, lambda: len(states(path)) <= 1), states(path)
        engine.reset_prefix_cache()
        answer = engine.generate(pinned)[0]
        assert answer["cached"] == 2 * BLOCK and same(answer, hit)
        engine.reset_prefix_cache()
        assert engine.generate(plain)[0]["cached"] == 0


def fill(path: Path) -> None:
    """Stores blocks of another model's, as many as there is room for, of the size of a state: they are evicted for their like."""
    found = namespace(path, "recurrent")
    assert found is not None
    (size,) = found["identity"]["region_bytes"]
    other = kvstore.Identity(model_name="other", tokens_per_block=16, region_bytes=(size,))
    with kvstore.Store(path, capacity=DISK, host="16MiB") as outside, outside.namespace(other) as blocks:
        for index in range(DISK // size // 8):
            prompt = kvstore.Prompt(tokens(1000 + index, 8 * 16))
            blocks.offload(prompt, [bytes(size)] * 8, timeout_seconds=30)
            outside.flush(30)
