"""Opening, closing, what is kept, and who may see it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TOKENS_PER_BLOCK, empty, identity, open_store, payloads

import kvstore


def test_blocks_survive_a_close(path: Path) -> None:
    prompt = kvstore.Prompt(range(5 * TOKENS_PER_BLOCK))
    with open_store(path) as store:
        store.namespace(identity()).offload(prompt, payloads(range(5)))
        flushed = store.flush()
        assert (flushed.status, flushed.blocks_durable) == (kvstore.Status.OK, 5)
    with open_store(path) as store:
        memory = empty(5)
        restored = store.namespace(identity()).restore(prompt, memory)
        assert (restored.status, restored.blocks_done, restored.blocks_disk) == (kvstore.Status.OK, 5, 5)
        assert [bytes(piece) for piece in memory] == payloads(range(5))


def test_another_process_sees_what_was_flushed_and_ends_a_lease(path: Path) -> None:
    prompt = kvstore.Prompt(range(3 * TOKENS_PER_BLOCK))
    with open_store(path) as store:
        namespace = store.namespace(identity())
        namespace.offload(prompt, payloads(range(3)))
        store.flush()
        lease = namespace.match(prompt).lease
        assert lease and store.stats()["leases_active"] == 1
        code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import kvstore
from conftest import *
with open_store({str(path)!r}) as store:
    match = store.namespace(identity()).match(kvstore.Prompt(range(48)), peek=True)
    store.release({lease})
    print(match.blocks, match.lease)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
        assert done.stdout.split() == ["3", "0"], done.stderr
        assert store.stats()["leases_active"] == 0
        assert store.extend(lease, 60) is False


def test_a_closed_store_or_namespace_is_an_error(path: Path) -> None:
    store = open_store(path)
    namespace = store.namespace(identity())
    namespace.close()
    namespace.close()
    with pytest.raises(kvstore.BadHandleError):
        namespace.match(kvstore.Prompt([1, 2]))
    store.close()
    store.close()
    with pytest.raises(kvstore.BadHandleError):
        store.flush()


def test_a_namespace_of_a_closed_store_is_an_error(path: Path) -> None:
    store = open_store(path)
    namespace = store.namespace(identity())
    store.close()
    with pytest.raises(kvstore.BadHandleError):
        namespace.match(kvstore.Prompt(range(32)))
    # Closing it then is not worth an error: it ended with the store.


def test_errors_carry_the_message_of_the_library(path: Path) -> None:
    path.mkdir()
    (path / "something").write_text("else")
    with pytest.raises(kvstore.NotAStoreError) as caught:
        open_store(path)
    assert caught.value.status == kvstore.Status.NOT_A_STORE
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("options", [{"capacity": 1}, {"capacity": "lots"}, {"offload_timeout_seconds": -1}])
def test_bad_options(path: Path, options: dict[str, object]) -> None:
    with pytest.raises((ValueError, kvstore.InvalidArgumentError)):
        open_store(path, **options)


def test_a_read_only_store_refuses_an_offload(path: Path) -> None:
    with open_store(path) as store:
        store.namespace(identity()).offload(kvstore.Prompt(range(16)), payloads(range(1)))
    with open_store(path, read_only=True) as store:
        namespace = store.namespace(identity())
        assert namespace.match(kvstore.Prompt(range(16))).blocks == 1
        with pytest.raises(kvstore.ReadOnlyError):
            namespace.offload(kvstore.Prompt(range(32)), payloads(range(1, 2)), first_block=1)
        with pytest.raises(kvstore.ReadOnlyError):
            store.namespace(identity(model_name="other"))


def test_a_child_after_fork_is_told_so(store: kvstore.Store, namespace: kvstore.Namespace) -> None:
    child = os.fork()
    if child == 0:
        answer = 1
        try:
            namespace.match(kvstore.Prompt(range(32)))
        except kvstore.ForkedError:
            answer = 42
        finally:
            os._exit(answer)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 42


def test_namespaces_share_nothing(store: kvstore.Store) -> None:
    prompt = kvstore.Prompt(range(16))
    store.namespace(identity()).offload(prompt, payloads(range(1)))
    for change in (
        {"salt": b"tenant"},
        {"kv_dtype": "fp8_e4m3"},
        {"weights_digest": b"\1" * 32},
        {"tensor_parallel_size": 2},
        {"engine_bytes": b"x\0y"},
        {"engine_bytes": b"x\0z"},
        {"layout": "HND"},
    ):
        other = store.namespace(identity(**change))
        assert other.match(prompt).status == kvstore.Status.MISS, change
        other.offload(prompt, payloads(range(1), seed=1))
    memory = empty(1)
    store.namespace(identity()).restore(prompt, memory)
    assert [bytes(piece) for piece in memory] == payloads(range(1))


def test_text_with_a_nul_is_refused(store: kvstore.Store) -> None:
    # C would cut it off there, and two identities would be one.
    with pytest.raises(ValueError):
        store.namespace(identity(model_name="a\0b"))


def test_stats_name_every_counter(store: kvstore.Store, namespace: kvstore.Namespace) -> None:
    namespace.offload(kvstore.Prompt(range(32)), payloads(range(2)))
    store.flush()
    stats = store.stats()
    assert stats["blocks_stored"] == stats["blocks_offloaded"] == 2
    assert stats["io_path"] in ("direct", "buffered")
    assert stats["poisoned"] == 0


def test_the_ranks_of_a_model_match_together(store: kvstore.Store) -> None:
    ranks = [store.namespace(identity(tensor_parallel_rank=rank, tensor_parallel_size=2)) for rank in range(2)]
    prompt = kvstore.Prompt(range(5 * TOKENS_PER_BLOCK))
    ranks[0].offload(prompt, payloads(range(5)))
    ranks[1].offload(prompt.prefix(tokens=3 * TOKENS_PER_BLOCK), payloads(range(3)))
    peeked = kvstore.Namespace.match_all(ranks, prompt, peek=True)
    assert [(match.blocks, match.lease) for match in peeked] == [(3, 0), (3, 0)]
    leased = kvstore.Namespace.match_all(ranks, prompt, lease_seconds=60)
    assert [match.blocks for match in leased] == [3, 3]
    assert store.stats()["leases_active"] == 2
    for match in leased:
        store.release(match.lease)
    assert store.stats()["leases_active"] == 0


def test_side_sections_bound_what_is_usable(store: kvstore.Store, namespace: kvstore.Namespace) -> None:
    prompt = kvstore.Prompt(range(5 * TOKENS_PER_BLOCK))
    namespace.offload(prompt, payloads(range(5)))
    states = namespace.section("recurrent", 1000)
    assert [match.blocks for match in namespace.match_sections([states], prompt, peek=True)] == [0, 0]
    state = bytearray(range(200)) * 2
    place = kvstore.Prompt(digests=[states.section_digest(prompt, 3)])
    states.offload(place, [state])
    leased = namespace.match_sections([states], prompt)
    assert [match.blocks for match in leased] == [3, 1]
    for match in leased:
        store.release(match.lease)
    back = bytearray(1000)
    assert states.restore(place, [back]).blocks_done == 1
    assert back[:400] == state
    fork = kvstore.Prompt([*range(4 * TOKENS_PER_BLOCK), *range(500, 500 + TOKENS_PER_BLOCK)])
    namespace.offload(fork, payloads(range(5)))
    assert namespace.purge(fork, only_tail=True) == 1
    assert namespace.purge(prompt.prefix(tokens=5 * TOKENS_PER_BLOCK)) == 1
    # Four blocks and the section.
    assert namespace.purge() == 5
    assert namespace.purge() == 0
    with pytest.raises(kvstore.InvalidArgumentError):
        namespace.section_digest(prompt)


def test_events_tell_what_became_of_blocks(store: kvstore.Store, namespace: kvstore.Namespace) -> None:
    cursor = store.events().cursor
    namespace.offload(kvstore.Prompt(range(48)), payloads(range(3)))
    store.flush()
    stored = store.events(cursor)
    assert [(event.kind, event.block_count, event.namespace_id) for event in stored.events] == [
        ("stored", 3, namespace.id)
    ]
    namespace.forget(kvstore.Prompt(range(48)))
    (gone,) = store.events(stored.cursor).events
    assert (gone.kind, gone.reason, gone.first_position, gone.block_count) == ("removed", "forgotten", 2, 1)
    assert store.events(stored.cursor + 10**9).lapped


def test_a_look_up_makes_no_namespace(store: kvstore.Store) -> None:
    assert store.existing_namespace(identity(salt=b"unknown")) is None
    assert store.existing_namespace(identity(salt=b"unknown")) is None
    store.namespace(identity(salt=b"known")).offload(kvstore.Prompt(range(16)), payloads(range(1)))
    found = store.existing_namespace(identity(salt=b"known"))
    assert found is not None and found.match(kvstore.Prompt(range(16))).blocks == 1
