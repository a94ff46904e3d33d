"""Prompts, scatter lists, and blocks on their way in and out."""

from __future__ import annotations

import ctypes
import mmap
import threading
from array import array
from pathlib import Path

import pytest
from conftest import REGION_BYTES, TOKENS_PER_BLOCK, empty, identity, open_store, payload, payloads

import kvstore
from kvstore.memory import address_of

FOUR_BLOCKS = kvstore.Prompt(range(4 * TOKENS_PER_BLOCK))


def test_tokens_of_32_bits_are_not_copied() -> None:
    tokens = array("I", range(40))
    assert kvstore.Prompt(tokens).struct.tokens == tokens.buffer_info()[0]


@pytest.mark.parametrize(
    "tokens", [range(40), list(range(40)), array("i", range(40)), array("q", range(40)), memoryview(array("Q", range(40)))]
)
def test_tokens_of_any_kind_are_the_same_prompt(namespace: kvstore.Namespace, tokens: object) -> None:
    assert namespace.block_keys(kvstore.Prompt(tokens)) == namespace.block_keys(kvstore.Prompt(array("I", range(40))))
    assert len(namespace.block_keys(kvstore.Prompt(tokens))) == 2


@pytest.mark.parametrize("tokens", [[-1], [2**32], ["a"], array("q", [-5])])
def test_what_is_no_token(tokens: object) -> None:
    with pytest.raises((OverflowError, TypeError)):
        kvstore.Prompt(tokens)


def test_a_prompt_is_tokens_or_digests() -> None:
    with pytest.raises(ValueError):
        kvstore.Prompt()
    with pytest.raises(ValueError):
        kvstore.Prompt([1], digests=[b"x" * 32])


def test_prefixes(namespace: kvstore.Namespace) -> None:
    prompt = kvstore.Prompt(range(40))
    assert prompt.whole_blocks(16).token_count == 32
    assert namespace.block_keys(prompt.prefix(tokens=16)) == namespace.block_keys(prompt)[:1]
    with pytest.raises(ValueError):
        prompt.prefix(tokens=41)


def test_an_empty_prompt_matches_nothing(namespace: kvstore.Namespace) -> None:
    assert namespace.match(kvstore.Prompt([])).status == kvstore.Status.MISS


def test_offload_match_restore(store: kvstore.Store, namespace: kvstore.Namespace) -> None:
    taken = namespace.offload(FOUR_BLOCKS, payloads(range(4)), block_status=True)
    assert (taken.status, taken.blocks_done, taken.blocks_host) == (kvstore.Status.OK, 4, 4)
    assert taken.block_status == (0, 0, 0, 0)
    again = namespace.offload(FOUR_BLOCKS, payloads(range(4)))
    assert (again.blocks_done, again.blocks_host, again.blocks_disk, again.byte_count) == (4, 0, 4, 0)

    match = namespace.match(FOUR_BLOCKS, leave_one_token=True)
    assert (match.status, match.tokens, match.blocks) == (kvstore.Status.OK, 3 * TOKENS_PER_BLOCK, 3)
    assert match.lease
    assert store.extend(match.lease, 120) is True
    store.release(match.lease)
    store.release(0)
    assert namespace.match(FOUR_BLOCKS, peek=True).lease == 0

    memory = empty(2)
    restored = namespace.restore(FOUR_BLOCKS, memory, first_block=1, block_count=2)
    assert restored.byte_count == 2 * sum(REGION_BYTES)
    assert [bytes(piece) for piece in memory] == payloads(range(1, 3))


def test_a_restore_of_more_than_is_stored_says_how_far_it_came(namespace: kvstore.Namespace) -> None:
    namespace.offload(FOUR_BLOCKS, payloads(range(4)))
    longer = kvstore.Prompt(range(6 * TOKENS_PER_BLOCK))
    memory = empty(6)
    restored = namespace.restore(longer, memory, block_status=True)
    assert (restored.status, restored.blocks_done) == (kvstore.Status.MISS, 4)
    assert restored.block_status == (0, 0, 0, 0, kvstore.Status.MISS, kvstore.Status.MISS)
    assert [bytes(piece) for piece in memory[:8]] == payloads(range(4))


def test_an_offload_behind_a_gap_is_refused(namespace: kvstore.Namespace) -> None:
    answer = namespace.offload(FOUR_BLOCKS, payloads(range(2, 4)), first_block=2)
    assert (answer.status, answer.blocks_done) == (kvstore.Status.PARENT_MISSING, 0)


def test_a_group_brings_its_last_window(store: kvstore.Store) -> None:
    groups = (kvstore.Group(1, 1, 2 * TOKENS_PER_BLOCK),)
    namespace = store.namespace(identity(groups=groups))
    namespace.offload(FOUR_BLOCKS, payloads(range(4)))
    memory = empty(4)
    restored = namespace.restore(FOUR_BLOCKS, memory)
    assert (restored.blocks_done, restored.byte_count) == (4, 4 * REGION_BYTES[0] + 2 * REGION_BYTES[1])
    for block in range(4):
        assert memory[2 * block] == payload(block, 0)
        assert memory[2 * block + 1] == (payload(block, 1) if block >= 2 else bytes(REGION_BYTES[1]))
    first = empty(2)
    assert namespace.restore(FOUR_BLOCKS, first, block_count=2, prefix_block_count=3).byte_count == sum(
        (2 * REGION_BYTES[0], REGION_BYTES[1])
    )
    namespace.restore(FOUR_BLOCKS, memory, whole=True)
    assert memory == payloads(range(4))
    assert store.namespace(identity()).id != namespace.id


def test_layer_by_layer(namespace: kvstore.Namespace) -> None:
    for region in range(len(REGION_BYTES)):
        assert namespace.match(FOUR_BLOCKS, peek=True).blocks == 0
        pieces = [payload(block, region) for block in range(4)]
        namespace.offload(FOUR_BLOCKS, pieces, first_region=region, region_count=1)
    assert namespace.match(FOUR_BLOCKS, peek=True).blocks == 4
    for region, size in enumerate(REGION_BYTES):
        memory = [bytearray(size) for _ in range(4)]
        namespace.restore(FOUR_BLOCKS, memory, first_region=region, region_count=1)
        assert [bytes(piece) for piece in memory] == [payload(block, region) for block in range(4)]


def test_paged_memory_by_address(namespace: kvstore.Namespace) -> None:
    namespace.offload(FOUR_BLOCKS, payloads(range(4)))
    # Pages as an engine has them: one region after the other in a pool, blocks in any order.
    pool = mmap.mmap(-1, 8 * max(REGION_BYTES))
    base, _, lent = address_of(pool, writable=True)
    pages = [5, 2, 7, 0, 1, 3, 6, 4]
    addresses = [base + page * max(REGION_BYTES) for page in pages]
    sizes = list(REGION_BYTES) * 4
    spans = kvstore.Spans.at(addresses, sizes)
    namespace.restore(FOUR_BLOCKS, spans)
    assert spans.lengths() == sizes
    for piece, page in enumerate(pages):
        start = page * max(REGION_BYTES)
        block, region = divmod(piece, 2)
        assert pool[start : start + sizes[piece]] == payload(block, region)

    words = array("Q", (word for address, size in zip(addresses, sizes, strict=True) for word in (address, size, size)))
    ctypes.memset(base, 0, 8 * max(REGION_BYTES))
    namespace.restore(FOUR_BLOCKS, kvstore.Spans.from_words(words))
    assert pool[5 * max(REGION_BYTES) :][: sizes[0]] == payload(0, 0)
    del lent


def test_scatter_lists_that_do_not_fit(namespace: kvstore.Namespace) -> None:
    namespace.offload(FOUR_BLOCKS, payloads(range(4)))
    with pytest.raises(kvstore.InvalidArgumentError):
        namespace.restore(FOUR_BLOCKS, empty(3))
    with pytest.raises(kvstore.BufferTooSmallError):
        namespace.restore(FOUR_BLOCKS, [bytearray(100)] * 8)
    with pytest.raises(ValueError):
        namespace.restore(FOUR_BLOCKS, [bytes(size) for size in REGION_BYTES * 4])
    with pytest.raises(ValueError):
        kvstore.Spans.at([1, 2], [3])
    with pytest.raises(ValueError):
        kvstore.Spans.from_words(bytearray(25))
    with pytest.raises(ValueError):
        kvstore.Spans.of([memoryview(bytearray(8))[::2]])


def test_digests(store: kvstore.Store) -> None:
    namespace = store.namespace(identity(digest_bytes=32))
    digests = [bytes([index]) * 32 for index in range(3)]
    namespace.offload(kvstore.Prompt(digests=digests), payloads(range(3)))
    assert namespace.match(kvstore.Prompt(digests=[*digests, b"\7" * 32])).blocks == 3
    assert namespace.match(kvstore.Prompt(digests=[digests[1]])).blocks == 0
    memory = empty(1)
    namespace.restore(kvstore.Prompt(digests=digests), memory, first_block=2)
    assert [bytes(piece) for piece in memory] == payloads(range(2, 3))


def test_extra_bytes_that_reach_beyond_the_full_blocks(namespace: kvstore.Namespace) -> None:
    tokens = list(range(2 * TOKENS_PER_BLOCK + 3))
    picture = [b"", b"image", b"image"]
    whole = kvstore.Prompt(tokens, extra=picture)
    namespace.offload(kvstore.Prompt(tokens[: 2 * TOKENS_PER_BLOCK], extra=picture[:2]), payloads(range(2)))
    for prompt in (whole, whole.whole_blocks(TOKENS_PER_BLOCK), whole.prefix(tokens=2 * TOKENS_PER_BLOCK)):
        assert namespace.match(prompt, peek=True).blocks == 2
        with namespace.session("picture") as session:
            assert session.match(prompt, peek=True).blocks == 2
    assert namespace.match(whole.prefix(tokens=TOKENS_PER_BLOCK + 1), peek=True).blocks == 1
    with pytest.raises(kvstore.InvalidArgumentError):
        namespace.match(kvstore.Prompt(tokens[:TOKENS_PER_BLOCK], extra=picture))


def test_extra_bytes_are_part_of_the_prompt(namespace: kvstore.Namespace) -> None:
    tokens = range(2 * TOKENS_PER_BLOCK)
    namespace.offload(kvstore.Prompt(tokens, extra=[b"", b"image 1"]), payloads(range(2)))
    assert namespace.match(kvstore.Prompt(tokens, extra=[b"", b"image 1"]), peek=True).blocks == 2
    assert namespace.match(kvstore.Prompt(tokens, extra=[b"", b"image 2"]), peek=True).blocks == 1
    assert namespace.match(kvstore.Prompt(tokens), peek=True).blocks == 1


def test_variable_regions(store: kvstore.Store) -> None:
    namespace = store.namespace(identity(regions_variable=True, region_bytes=(100_000,)))
    namespace.offload(kvstore.Prompt(range(16)), [b"state" * 1000])
    spans = kvstore.Spans.of([memory := bytearray(100_000)], writable=True)
    namespace.restore(kvstore.Prompt(range(16)), spans)
    assert spans.lengths() == [5000]
    assert memory[:5000] == b"state" * 1000


def test_touch_and_forget(namespace: kvstore.Namespace) -> None:
    namespace.offload(FOUR_BLOCKS, payloads(range(4)))
    assert namespace.touch(kvstore.Prompt(range(200))) == 4
    assert namespace.forget(FOUR_BLOCKS.prefix(tokens=2 * TOKENS_PER_BLOCK)) == 3
    assert namespace.match(FOUR_BLOCKS, peek=True).blocks == 1
    assert namespace.forget(kvstore.Prompt([])) == 1
    assert namespace.touch(FOUR_BLOCKS) == 0


def test_a_damaged_store_is_a_miss_and_never_wrong_bytes(path: Path) -> None:
    with open_store(path) as store:
        store.namespace(identity()).offload(FOUR_BLOCKS, payloads(range(4)))
    damaged = 0
    for file in path.rglob("*"):
        content = file.read_bytes() if file.is_file() else b""
        at = content.find(payload(2, 0)[:1000])
        if at >= 0:
            with file.open("r+b") as opened:
                opened.seek(at + 500)
                opened.write(bytes([content[at + 500] ^ 1]))
            damaged += 1
    assert damaged
    with open_store(path) as store:
        memory = empty(4)
        namespace = store.namespace(identity())
        restored = namespace.restore(FOUR_BLOCKS, memory)
        assert (restored.status, restored.blocks_done) == (kvstore.Status.MISS, 2)
        assert [bytes(piece) for piece in memory[:4]] == payloads(range(2))
        assert store.stats()["misses_corrupt"] == 1


def test_threads_share_a_namespace(namespace: kvstore.Namespace) -> None:
    problems: list[str] = []

    def one(thread: int) -> None:
        prompt = kvstore.Prompt([thread, *range(2 * TOKENS_PER_BLOCK - 1)])
        for _ in range(10):
            namespace.offload(prompt, payloads(range(2), seed=thread))
            memory = empty(2)
            restored = namespace.restore(prompt, memory)
            if restored.blocks_done != 2 or [bytes(piece) for piece in memory] != payloads(range(2), seed=thread):
                problems.append(f"thread {thread}: {restored}")

    threads = [threading.Thread(target=one, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems


def test_a_match_estimates_its_restore_once_a_restore_was_measured(path: Path) -> None:
    with open_store(path) as store:
        store.namespace(identity()).offload(FOUR_BLOCKS, payloads(range(4)))
    with open_store(path) as store:
        namespace = store.namespace(identity())
        assert namespace.match(FOUR_BLOCKS, peek=True).estimated_restore_seconds == 0
        # Once from disk, then from the host tier: a tier that was not measured has no estimate.
        for _ in range(2):
            namespace.restore(FOUR_BLOCKS, empty(1), block_count=1, timeout_seconds=60)
        assert namespace.match(FOUR_BLOCKS, peek=True).estimated_restore_seconds > 0
        assert store.stats()["restored_bytes_disk"] == sum(REGION_BYTES)


def test_an_offload_that_may_not_wait_answers_busy(path: Path) -> None:
    # More blocks at once than the host tier holds, which leave it only as fast as the disk takes them.
    blocks = 4000
    with open_store(path, host="4MiB", capacity="512MiB") as store:
        pieces = payloads(range(1)) * blocks
        answer = store.namespace(identity()).offload(
            kvstore.Prompt(range(blocks * TOKENS_PER_BLOCK)), pieces, timeout_seconds=1e-9
        )
        assert answer.status == kvstore.Status.BUSY
        assert 0 < answer.blocks_done < blocks


def test_the_host_tier_can_be_pinned(store: kvstore.Store) -> None:
    address, size = store.host_memory()
    assert address % mmap.PAGESIZE == 0
    assert size == store.stats()["host_bytes_capacity"]
