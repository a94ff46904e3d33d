"""Two SGLang engines with stores of their own and one Redis or Valkey: what one computes, the other one restores from there."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from engine import Engine
from tiny_model import write_model

sys.path.append(str(Path(__file__).parents[1]))

import test_hicache  # noqa: E402
from remote_server import objects, server, wait_for_objects  # noqa: E402, F401
from test_hicache import HiCacheStorageExtraInfo, Make, backend, content, indices, keys, pool  # noqa: E402, F401

# 16 pages of 64 tokens of the small model are a chunk.
CHUNK = 1024


def tokens(seed: int, count: int) -> list[int]:
    generator = random.Random(seed)
    return [generator.randrange(3, 4096) for _ in range(count)]


def storage(path: Path, model: Path, url: str, **more: Any) -> dict[str, Any]:
    return {
        "backend_name": "kvstore",
        "module_path": "kvstore.sglang",
        "class_name": "KVStoreHiCache",
        "interface_v1": 1,
        "hicache_storage_pass_prefix_keys": True,
        "path": str(path),
        "disk_bytes": "512MiB",
        "host_bytes": "64MiB",
        "model_path": str(model),
        "remote": url,
        "remote_writes": "all",
        # A busy computer is no reason to miss.
        "remote_wait_seconds": 60,
        "remote_look_up_timeout_seconds": 30,
        "remote_transfer_timeout_seconds": 60,
        **more,
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (one["tokens"], one["logprobs"]) == (other["tokens"], other["logprobs"])


def test_what_is_loaded_again_is_sent(
    backend: Make, server: Any, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    """Without a word about what is written there: pages go when they are used a second time, and come in the backend's look-up."""
    monkeypatch.setattr(test_hicache, "PAGES", 70)
    # 64 of these pages are a chunk.
    pages, first = list(range(66)), HiCacheStorageExtraInfo(prefix_keys=[])
    chain = keys(list(range(66 * test_hicache.PAGE)))
    limits = {"remote_wait_seconds": 60, "remote_look_up_timeout_seconds": 30, "remote_transfer_timeout_seconds": 60}
    host = pool("page_first", seed=1)
    storage = backend(host, remote=server.url(), **limits)
    assert storage.batch_set_v1(chain, indices(*pages), first) == [True] * 66
    storage.flush()
    assert objects(server) == 0
    assert storage.batch_exists(chain, first) == 66
    assert storage.batch_get_v1(chain, indices(*pages), first) == [True] * 66
    wait_for_objects(server, 2)
    # Another machine's store.
    other = pool("page_first", seed=2)
    there = backend(other, remote=server.url(), path=str(Path(storage._settings["path"]).with_name("b")), **limits)
    assert there.batch_exists(chain, first) == 64
    assert there.batch_get_v1(chain[:64], indices(*pages[:64]), first) == [True] * 64
    for page in (0, 31, 63):
        assert torch.equal(content(other, page), content(host, page))


@pytest.mark.slow
def test_what_one_engine_computes_another_one_restores(tmp_path: Path, server: Any) -> None:  # noqa: F811
    model = tmp_path / "model"
    write_model(model, seed=1)
    prompts = [tokens(seed, CHUNK + 40) for seed in range(3)]
    with Engine(model, storage(tmp_path / "a", model, server.url()), tmp_path / "log-a") as engine:
        cold = [engine.generate(prompt) for prompt in prompts]
        hit = engine.generate(prompts[0])
        assert hit["cached"] == CHUNK
        wait_for_objects(server, 1 + len(prompts))
    limits = {"remote_wait_seconds": 1, "remote_look_up_timeout_seconds": 1}
    with Engine(model, storage(tmp_path / "b", model, server.url(), **limits), tmp_path / "log-b") as engine:
        server.stop()
        stopped = engine.generate(prompts[1])
        assert stopped["cached"] == 0 and same(stopped, cold[1])
        server.go_on()
        server.kill()
        dead = engine.generate(prompts[2])
        assert dead["cached"] == 0 and same(dead, cold[2])


@pytest.mark.slow
def test_it_is_restored_once_and_stays(tmp_path: Path, server: Any) -> None:  # noqa: F811
    model = tmp_path / "model"
    write_model(model, seed=1)
    prompt = tokens(0, CHUNK + 40)
    with Engine(model, storage(tmp_path / "a", model, server.url()), tmp_path / "log-a") as engine:
        engine.generate(prompt)
        hit = engine.generate(prompt)
        wait_for_objects(server, 2)
    with Engine(model, storage(tmp_path / "b", model, server.url()), tmp_path / "log-b") as engine:
        found = engine.generate(prompt)
        assert found["cached"] == CHUNK and same(found, hit)
        server.kill()
        engine.flush()
        again = engine.generate(prompt)
        assert again["cached"] == CHUNK and same(again, hit)
