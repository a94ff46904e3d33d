"""Models with several kinds of layers in a real vLLM, which keeps its hybrid KV cache manager beside the connector.

As in test_engine.py, what was restored is compared bit for bit with what vLLM's own prefix cache gives.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from engine import Engine, ask, found_damaged, stats, within

# What vLLM takes for Qwen3-Next's attention by itself; on a CPU, its recurrent layers would have another block size.
OPTIONS: dict[str, dict[str, Any]] = {"qwen3-next": {"block_size": 256}}
KINDS = ["gemma3", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("gemma4", "gpt-oss", "windows", "qwen3-next"))]


def tokens(seed: int, count: int) -> list[int]:
    generator = random.Random(seed)
    return [generator.randrange(3, 4096) for _ in range(count)]


def settings(path: Path, **more: Any) -> dict[str, Any]:
    return {"path": str(path), "disk_bytes": "512MiB", "host_bytes": "64MiB", **more}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (one["tokens"], one["logprobs"]) == (other["tokens"], other["logprobs"])


def near(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one["tokens"][0] == other["tokens"][0] and (
        abs(float.fromhex(one["logprobs"][0]) - float.fromhex(other["logprobs"][0])) < 0.1
    )


# Longer than any window, and than what one step computes.
LONG = tokens(1, 3000)
DAMAGED = tokens(2, 1100)
SHORT = tokens(3, 700)
LOST = tokens(4, 1300)


def write(folder: Path, kind: str) -> Path:
    """A process of its own: what is imported here would be inherited."""
    script = Path(__file__).with_name("mixed_models.py")
    subprocess.run([sys.executable, str(script), kind, str(folder)], check=True, capture_output=True)
    return folder


@dataclass
class Warm:
    kind: str
    options: dict[str, Any]
    model: Path
    path: Path
    hits: dict[str, dict[str, Any]]
    inexact: set[str]
    turn: list[int]
    block: int
    capacity: str
    pool: int

    def blocks(self, count: int) -> int:
        """So many blocks of vLLM that as many tokens find room in an engine of this model."""
        return -(-self.pool * count // int(self.capacity.replace(",", "")))


@pytest.fixture(scope="module", params=KINDS)
def warm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """Run 1: cold, from vLLM's own cache, and from the store within one process."""
    folder = tmp_path_factory.mktemp(request.param)
    model = write(folder / "model", request.param)
    prompts = {"long": LONG, "damaged": DAMAGED, "short": SHORT, "lost": LOST}
    with Engine(model, settings(folder / "store"), folder / "log", **OPTIONS.get(request.param, {})) as engine:
        said = engine.said()
        assert "Turning off hybrid kv cache manager" not in said
        found = re.search(r"bytes a block of (\d+) tokens", said)
        assert found is not None
        block = int(found[1])
        for prompt in prompts.values():
            assert engine.generate(prompt)[0]["cached"] == 0
        hits = {name: engine.generate(prompt)[0] for name, prompt in prompts.items()}
        for name, prompt in prompts.items():
            assert hits[name]["cached"] == (len(prompt) - 1) // block * block, name
        # The control: with other tokens at the beginning the answer is another one.
        if request.param != "windows":
            assert not same(engine.generate(tokens(9, block) + SHORT[block:])[0], hits["short"])
        assert not same(engine.generate(SHORT[:-200] + tokens(9, 200))[0], hits["short"])

        # Generated tokens are stored too: the next turn of a conversation finds them.
        answer = engine.generate(LONG, tokens=2 * block)[0]
        turn = LONG + answer["tokens"] + tokens(6, 50)
        settled(engine, folder / "store", block)
        first = engine.generate(turn)[0]
        hits["turn"] = engine.generate(turn)[0]
        # vLLM itself may have forgotten windows of what was generated. Where the scheduler had not heard of them yet either, it
        # has computed them as a prompt, which differs in the last bits.
        inexact = {"turn"} if first["cached"] < hits["turn"]["cached"] else set()

        assert engine.generate(SHORT, salt="tenant")[0]["cached"] == 0
        engine.reset_prefix_cache()
        for name, prompt in {**prompts, "turn": turn}.items():
            restored = engine.generate(prompt)[0]
            assert restored["cached"] == hits[name]["cached"], name
            assert (near if name in inexact else same)(restored, hits[name]), name
        (capacity,) = re.findall(r"[CG]PU KV cache size: ([\d,]+) tokens", engine.said())
        pool = engine.pool()
    options = OPTIONS.get(request.param, {})
    yield Warm(request.param, options, model, folder / "store", hits, inexact, turn, block, capacity, pool)


@pytest.fixture
def store(warm: Warm, tmp_path: Path) -> Path:
    shutil.copytree(warm.path, tmp_path / "store", symlinks=True)
    return tmp_path / "store"


def test_after_a_restart(warm: Warm, store: Path, tmp_path: Path) -> None:
    """Run 2: everything comes from disk, bit for bit; a request with a damaged block is computed, as is what the store lost."""
    damage(store, DAMAGED, warm.block)
    forget_last_block(store, LOST, warm.block, tmp_path / "lost")
    with Engine(warm.model, settings(store), tmp_path / "log", **warm.options) as engine:
        for name, prompt in {"long": LONG, "turn": warm.turn, "short": SHORT}.items():
            restored = engine.generate(prompt)[0]
            assert restored["cached"] == warm.hits[name]["cached"], name
            assert (near if name in warm.inexact else same)(restored, warm.hits[name]), name
        assert near(engine.generate(DAMAGED)[0], warm.hits["damaged"])
        # Windows come as they were at the new end; the only state of this prompt has left with its last block.
        shorter = engine.generate(LOST)[0]
        assert shorter["cached"] == (0 if warm.kind == "qwen3-next" else warm.hits["lost"]["cached"] - warm.block)
        assert near(shorter, warm.hits["lost"])
        # What was computed again is stored again.
        for name, prompt in {"damaged": DAMAGED, "lost": LOST}.items():
            healed = engine.again(prompt, warm.hits[name]["cached"])
            assert healed["cached"] == warm.hits[name]["cached"], name
            assert near(healed, warm.hits[name]), name
        # Nothing is held for good.
        engine.reset_prefix_cache()
        assert stats(store)["leases_active"] == 0
        assert found_damaged(store) == 1
        shutil.rmtree(store)
        assert near(engine.generate(SHORT)[0], warm.hits["short"])


@pytest.mark.slow
def test_the_capacity_is_that_of_an_engine_without_a_connector(warm: Warm, tmp_path: Path) -> None:
    with Engine(warm.model, None, tmp_path / "log", **warm.options) as engine:
        (capacity,) = re.findall(r"[CG]PU KV cache size: ([\d,]+) tokens", engine.said())
    assert capacity == warm.capacity


def damage(path: Path, prompt: list[int], size: int) -> None:
    """Flips a bit in the middle of the payload of the prompt's last full block, which windows need as well."""
    block = (len(prompt) - 1) // size - 1
    part = struct.pack(f"<{size}I", *prompt[block * size : (block + 1) * size])
    places = 0
    for file in (path / "slots").iterdir():
        content = file.read_bytes()
        at = content.find(part)
        while at >= 0:
            where = at + 100_000
            with file.open("r+b") as opened:
                opened.seek(where)
                opened.write(bytes([content[where] ^ 0x10]))
            places += 1
            at = content.find(part, at + 1)
    assert places == 1, f"{places} slots hold block {block}"


def forget_last_block(path: Path, prompt: list[int], size: int, file: Path) -> None:
    """Removes the last full block of a prompt, as an eviction would."""
    file.write_text(json.dumps(prompt))
    for found in ask("inspect", "namespaces", path)["namespaces"]:
        if found["identity"]["side_section"] is None and found["salt_mark"] is None:
            keys = [block["block_key"] for block in ask("inspect", "prefix", path, file, "--namespace", found["id"])["blocks"]]
            assert len(keys) == (len(prompt) - 1) // size
            ask("forget", path, keys[-1])


def payload(path: Path) -> int:
    """Bytes of all blocks and states that are committed."""
    return sum(int(found["payload_bytes"]) for found in ask("inspect", "namespaces", path)["namespaces"])


def is_stored(path: Path, prompt: list[int]) -> bool:
    """Whether all full blocks of a prompt without a salt are committed."""
    file = path.parent / "prompt"
    file.write_text(json.dumps(prompt))
    for space in ask("inspect", "namespaces", path)["namespaces"]:
        if space["identity"]["side_section"] is None and space["salt_mark"] is None:
            found = ask("inspect", "prefix", path, file, "--namespace", space["id"])
            if found["matched_block_count"] == len(prompt) // found["tokens_per_block"]:
                return True
    return False


def settled(engine: Engine, path: Path, block: int) -> int:
    """The same, once what the engine saves behind its answers has been committed: in order, so that what comes last is there."""
    last = tokens(time.monotonic_ns(), block + 1)
    engine.generate(last, tokens=1)
    assert within(60, lambda: is_stored(path, last))
    return payload(path)


@pytest.mark.slow
def test_a_full_disk(warm: Warm, small_disk: Path, tmp_path: Path) -> None:
    """The store makes do with what the file system has, less than it was given, and evicts; answers stay right."""
    with Engine(warm.model, settings(small_disk / "store"), tmp_path / "log", **warm.options) as engine:
        for seed in range(70, 118, 8):
            answers = engine.generate(*(tokens(seed + index, 1500) for index in range(8)), tokens=1)
            assert [answer["cached"] for answer in answers] == [0] * 8
        # A file of slots takes 8 MiB.
        assert shutil.disk_usage(small_disk).free < 16 << 20
        engine.reset_prefix_cache()
        assert near(engine.generate(SHORT)[0], warm.hits["short"])
        assert near(engine.again(SHORT, warm.hits["short"]["cached"]), warm.hits["short"])
    counts = engine.counts()
    assert counts["blocks_evicted"] + counts["blocks_dropped_full"] > 0, counts


@pytest.mark.slow
def test_a_store_that_is_only_read(warm: Warm, store: Path, tmp_path: Path) -> None:
    before = stats(store)["blocks_stored"]
    with Engine(warm.model, settings(store, read_only=True), tmp_path / "log", **warm.options) as engine:
        restored = engine.generate(SHORT)[0]
        assert restored["cached"] == warm.hits["short"]["cached"] and same(restored, warm.hits["short"])
        for _ in range(2):
            assert engine.generate(tokens(40, 700))[0]["cached"] == 0
            engine.reset_prefix_cache()
    assert stats(store)["blocks_stored"] == before


@pytest.mark.slow
def test_what_the_store_lost_is_stored_again(warm: Warm, store: Path, tmp_path: Path) -> None:
    """While vLLM has it, what follows is not stored, as its windows and states are gone; once it is computed again, all is."""
    block = warm.block
    with Engine(warm.model, settings(store), tmp_path / "log", **warm.options) as engine:
        shared = tokens(20, 2 * block)
        engine.generate(shared + tokens(21, 20))
        for name in ("all", "its end"):
            prompt = shared + tokens(len(name), 3 * block + 20)
            engine.generate(prompt)
            turn = prompt + tokens(23, 2 * block)
            full = (len(turn) - 1) // block * block
            before = settled(engine, store, block)
            if name == "all":
                for found in ask("inspect", "namespaces", store)["namespaces"]:
                    ask("purge", store, "--namespace", found["id"])
                assert payload(store) == 0
            else:
                engine.generate(prompt, tokens=1, hints={"session": "over", "end": True})
                assert within(60, lambda before=before: payload(store) < before)
            # vLLM goes on from what it has.
            engine.generate(turn)
            hit = engine.generate(turn)[0]
            assert hit["cached"] == full
            engine.reset_prefix_cache()
            again = engine.generate(turn)[0]
            assert again["cached"] < full and near(again, hit), (name, again)
            engine.reset_prefix_cache()
            restored = engine.generate(turn)[0]
            assert restored["cached"] == full and near(restored, hit), (name, restored)


@pytest.mark.parametrize(
    ("kind", "more", "options", "said"),
    [
        ("mamba", {}, {}, "recurrent"),
        ("gemma3", {"load": "layerwise"}, {}, "load is 'layerwise', and this model has layers of several kinds"),
        ("qwen3-next", {}, {"enable_prefix_caching": False}, "recurrent layers .*--enable-prefix-caching"),
        (
            "qwen3-next",
            {},
            {"speculative_config": {"method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 3}},
            "recurrent layers .*leave out --speculative-config",
        ),
    ],
)
@pytest.mark.slow
def test_what_is_not_stored_is_refused_in_clear_words(
    tmp_path: Path, kind: str, more: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    model = write(tmp_path / "model", kind)
    with pytest.raises(AssertionError, match=f"kvstore: .*{said}"):
        Engine(model, settings(tmp_path / "store", **more), tmp_path / "log", **options)



@dataclass
class Mixes:
    """What random mixes came to."""

    alone: int = 0
    together: int = 0
    aborted: int = 0
    usable: int = 0
    reused: int = 0


@pytest.mark.slow
def test_random_mixes(warm: Warm, store: Path, tmp_path: Path) -> None:
    """Prefixes in vLLM's cache, in the store, or partly in each, in a pool that is too small for all at once.

    $KVSTORE_MIXES says how many.
    """
    count = int(os.environ.get("KVSTORE_MIXES", "30"))
    generator = random.Random(os.environ.get("KVSTORE_MIXES_SEED", "1"))
    block = warm.block
    # A tree of prompts: trunks that fork at any place. Each is computed once, and then taken from vLLM's cache, in one engine.
    trunks = [tokens(1000 + index, 1800) for index in range(3)]
    prompts = list(trunks)
    for index in range(9):
        trunk = generator.choice(trunks)
        prompts.append(trunk[: generator.randrange(1, 1800)] + tokens(2000 + index, generator.randrange(30, 900)))
    with Engine(warm.model, settings(store), tmp_path / "first", **warm.options) as engine:
        for prompt in prompts:
            engine.generate(prompt)
        hits = [engine.generate(prompt)[0] for prompt in prompts]
        for prompt, hit in zip(prompts, hits, strict=True):
            assert hit["cached"] == (len(prompt) - 1) // block * block

    mixes = Mixes()
    # Room for about two of the longest prompts, with the states of recurrent layers; prompts are computed in several steps.
    small = {"num_gpu_blocks_override": warm.blocks(5000), "max_num_batched_tokens": max(512, block), "max_num_seqs": 8}
    with Engine(warm.model, settings(store), tmp_path / "second", **warm.options, **small) as engine:
        for _ in range(count):
            way = generator.randrange(4)
            if way == 0:
                engine.reset_prefix_cache()
            elif way == 1:
                # Some prefixes are in vLLM's own cache.
                for prompt in generator.sample(prompts, 2):
                    engine.generate(prompt[: generator.randrange(1, len(prompt))], tokens=1)
            elif way == 2:
                chosen = generator.sample(range(len(prompts)), 4)
                abort = {index: generator.randrange(1, 6) for index in range(4) if generator.random() < 0.4}
                answers = engine.together(
                    [prompts[index] for index in chosen], tokens=generator.randrange(1, 40), abort=abort
                )
                for index, answer in zip(chosen, answers, strict=True):
                    if answer is None:
                        mixes.aborted += 1
                        continue
                    mixes.together += 1
                    assert near(answer, hits[index]), (index, answer, hits[index])
            index = generator.randrange(len(prompts))
            answer = engine.generate(prompts[index])[0]
            mixes.alone += 1
            mixes.usable += hits[index]["cached"]
            mixes.reused += answer["cached"]
            if answer["cached"] == hits[index]["cached"]:
                assert same(answer, hits[index]), (index, answer, hits[index])
            else:
                assert near(answer, hits[index]), (index, answer, hits[index])
    print(f"{warm.kind}: {mixes}")
    assert mixes.reused >= 0.95 * mixes.usable, mixes
    assert stats(store)["leases_active"] == 0
