"""Sessions, pins, lives and metrics."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
from conftest import TOKENS_PER_BLOCK, empty, identity, open_store, payloads

import kvstore


def prompt(blocks: int) -> kvstore.Prompt:
    return kvstore.Prompt(range(blocks * TOKENS_PER_BLOCK))


def test_a_session_records_its_steps(store: kvstore.Store, namespace: kvstore.Namespace) -> None:
    with namespace.session("agent 7") as session:
        assert session.id > 0
        assert session.step() is None
        assert session.match(prompt(2)).status == kvstore.Status.MISS
        namespace.offload(prompt(2), payloads(range(2)))
        assert session.step(2 * TOKENS_PER_BLOCK) == 1
        found = session.match(prompt(3), lease_seconds=10)
        assert (found.blocks, found.lease > 0) == (2, True)
        store.release(found.lease)
        assert session.step() == 2
        assert session.touch() == 2
        assert session.match(prompt(2), peek=True).lease == 0
    session.close()
    with pytest.raises(kvstore.BadHandleError):
        session.step()
    with pytest.raises(ValueError):
        namespace.session("a\0b")
    with pytest.raises(kvstore.InvalidArgumentError):
        namespace.session("x" * 65)


def test_a_sessions_ttl_outlasts_that_of_its_blocks(path: Path) -> None:
    with open_store(path) as store:
        namespace = store.namespace(identity(), ttl_seconds=1)
        session = namespace.session()
        assert session.set_ttl(3600) == 0
        session.match(prompt(4))
        namespace.offload(prompt(4), payloads(range(4)))
        other = kvstore.Prompt(range(1000, 1000 + TOKENS_PER_BLOCK))
        namespace.offload(other, payloads(range(1)))
        assert session.step() == 1
        store.flush()
        # A life of a second ends; that the session's does not is no question of time.
        while namespace.match(other, peek=True).blocks > 0:
            time.sleep(0.05)
        assert namespace.match(prompt(4), peek=True).blocks == 4
        assert session.set_ttl(60) == 4


def test_lives_and_priorities_of_a_write(path: Path) -> None:
    with open_store(path) as store:
        namespace = store.namespace(identity(), quota="64MiB", ttl_seconds=3600)
        short = kvstore.Prompt(range(5000, 5000 + TOKENS_PER_BLOCK))
        namespace.offload(prompt(1), payloads(range(1)), ttl_seconds=math.inf, priority=90)
        namespace.offload(short, payloads(range(1)), ttl_seconds=0.05, ttl_absolute=True)
        while namespace.match(short, peek=True).blocks > 0:
            time.sleep(0.02)
        assert namespace.restore(prompt(1), empty(1)).blocks_done == 1
        with pytest.raises(kvstore.InvalidArgumentError):
            namespace.offload(prompt(1), payloads(range(1)), priority=101)


def test_pins(store: kvstore.Store, namespace: kvstore.Namespace) -> None:
    assert namespace.pin(prompt(2), 60) is None
    namespace.offload(prompt(2), payloads(range(2)))
    pin = namespace.pin(prompt(3), 60)
    assert pin is not None and pin.blocks == 2
    assert store.stats()["pins_active"] == 1
    assert store.unpin(pin.id) is True
    assert store.unpin(pin.id) is False
    with pytest.raises(kvstore.InvalidArgumentError):
        namespace.pin(prompt(2), 91 * 86_400)


def test_metrics(store: kvstore.Store, namespace: kvstore.Namespace) -> None:
    namespace.offload(prompt(3), payloads(range(3)))
    store.flush()
    lines = store.metrics_text().splitlines()
    assert 'kvstore_blocks{namespace="1",model="test"} 3' in lines
    assert "kvstore_offloaded_blocks_total 3" in lines
    # More text than the first buffer holds.
    for number in range(300):
        store.namespace(identity(model_name=f"model {number} " + "x" * 200))
    assert sum(line.startswith("kvstore_blocks{") for line in store.metrics_text().splitlines()) == 301
