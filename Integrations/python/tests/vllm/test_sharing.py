"""Engines beside each other on one store, and prefixes that are larger than what the store has of memory."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
from engine import Engine
from tiny_model import write_model

pytestmark = pytest.mark.slow

BLOCK = 128
# A block of the small model: K and V of four layers with four heads of 64.
BLOCK_BYTES = BLOCK * 4 * 4 * 64 * 2 * 2


def tokens(seed: int, count: int) -> list[int]:
    generator = random.Random(seed)
    return [generator.randrange(3, 4096) for _ in range(count)]


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (one["tokens"], one["logprobs"]) == (other["tokens"], other["logprobs"])


def test_two_engines_on_one_store(tmp_path: Path) -> None:
    """Each finds what the other one has stored while both run; one is killed, and the other one goes on."""
    write_model(tmp_path / "model", seed=1)
    settings = {"path": str(tmp_path / "store"), "disk_bytes": "512MiB", "host_bytes": "32MiB"}
    options = {"num_gpu_blocks_override": 64}
    prompt, other = tokens(1, 1000), tokens(2, 900)
    with (
        Engine(tmp_path / "model", settings, tmp_path / "one", **options) as first,
        Engine(tmp_path / "model", settings, tmp_path / "two", **options) as second,
    ):
        first.generate(prompt)
        hit = first.generate(prompt)[0]
        # Others see it 50 ms after it was saved.
        time.sleep(0.5)
        found = second.generate(prompt)[0]
        assert found["cached"] == 896 and same(found, hit)
        second.generate(other)
        second.generate(tokens(9, 8))
        time.sleep(0.5)
        assert first.generate(other)[0]["cached"] == 896
        second.kill()
        first.reset_prefix_cache()
        again = first.generate(prompt)[0]
        assert again["cached"] == 896 and same(again, hit)


def test_a_prefix_of_ten_times_the_store_s_memory(tmp_path: Path) -> None:
    write_model(tmp_path / "model", seed=1)
    prompt = tokens(3, 62 * BLOCK + 10)
    host = 62 * BLOCK_BYTES // 10
    settings = {"path": str(tmp_path / "store"), "disk_bytes": "512MiB", "host_bytes": host}
    with Engine(tmp_path / "model", settings, tmp_path / "one", max_model_len=8192) as engine:
        engine.generate(prompt)
        hit = engine.generate(prompt)[0]
        assert hit["cached"] == 62 * BLOCK
        # What is being saved ends with a step.
        engine.generate(tokens(9, 8))
    with Engine(tmp_path / "model", settings, tmp_path / "two", max_model_len=8192) as engine:
        restored = engine.generate(prompt)[0]
        assert restored["cached"] == 62 * BLOCK and same(restored, hit)
