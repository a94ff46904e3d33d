"""Engines of several processes that compute one model together: each rank has its own blocks, and nobody else's.

Tensor parallelism only: vLLM 0.32 for CPU ends in an assertion of its own with two pipeline stages, without a store too.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from engine import Engine, stats, within
from tiny_model import write_model

BLOCK = 128
generator = random.Random(1)
PROMPT = [generator.randrange(3, 4096) for _ in range(4 * BLOCK + 16)]
STORED = 4 * BLOCK

RANKS = {"tensor_parallel_size": 2}

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def one_core_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM wants a core for each rank, and as many as it likes where it may not choose."""
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def ask(model: Path, store: Path | None, folder: Path, *, times: int = 1, **options: Any) -> list[dict[str, Any]]:
    """The answers of one engine to the prompt; the second one from what the first one stored."""
    settings = store and {"path": str(store), "disk_bytes": "512MiB", "host_bytes": "32MiB"}
    before = stats(store)["blocks_stored"] if store is not None and store.exists() else 0
    ranks = options.get("tensor_parallel_size", 1)
    with Engine(model, settings, folder / "log", num_gpu_blocks_override=64, **options) as engine:
        answers = [engine.generate(PROMPT)[0]]
        # What is being saved ends with a step.
        engine.generate(PROMPT[:8])
        if times > 1:
            assert store is not None
            assert within(60, lambda: stats(store)["blocks_stored"] == before + ranks * STORED // BLOCK)
            answers.append(engine.again(PROMPT, STORED))
    return answers


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (one["tokens"], one["logprobs"]) == (other["tokens"], other["logprobs"])


def test_ranks_of_another_number(tmp_path: Path) -> None:
    """Two ranks find all of theirs after a restart; one rank finds nothing of it, stores its own, and spoils nothing."""
    write_model(tmp_path / "model", seed=1)
    model, store = tmp_path / "model", tmp_path / "store"
    first, again = ask(model, store, tmp_path, times=2, **RANKS)
    assert (first["cached"], again["cached"]) == (0, STORED)
    alone = ask(model, store, tmp_path, times=2)
    assert (alone[0]["cached"], alone[1]["cached"]) == (0, STORED)
    assert same(alone[0], ask(model, None, tmp_path)[0])
    (restored,) = ask(model, store, tmp_path, **RANKS)
    assert restored["cached"] == STORED and same(restored, again)
