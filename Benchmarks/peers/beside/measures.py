"""The measures. Each runs in a process of its own, which is killed or ends afterwards, and answers numbers."""

from __future__ import annotations

import ctypes
import mmap
import time
from pathlib import Path
from typing import Any

import numpy as np

from . import machine, workload
from .peer import Peer, Place

BATCH = 16
"""Blocks a put brings, as an engine's step of 256 tokens does."""
WARM_READS = 3
LOOKUPS = 15
LOOKUP_TOKENS = (32_000, 131_072)
CHAIN = 2_048
"""Blocks in each chain behind the first one, where many are stored."""


def _place(request: dict[str, Any]) -> Place:
    return Place(Path(request["folder"]), request["block_bytes"], request["blocks"])


def _prompt_tokens(peer: Peer, blocks: int, seed: int) -> workload.Tokens:
    return workload.tokens(blocks * peer.tokens_per_block, seed)


def _put_all(peer: Peer, keys: Any, blocks: workload.Blocks) -> None:
    for first in range(0, len(blocks), BATCH):
        peer.put(keys, first, blocks[first : first + BATCH])
    peer.finish()


def put(kind: type[Peer], request: dict[str, Any]) -> dict[str, Any]:
    """Puts everything into an empty store: until the store says done, and until all of it is on disk."""
    place = _place(request)
    count = place.block_count
    both = workload.memory(count if kind.persistent else 2 * count, place.block_bytes)
    blocks = both[:count]
    workload.fill(blocks, request["seed"])
    peer = kind(place)
    peer.open(both)
    keys = peer.keys(peer.prompt(_prompt_tokens(peer, count, request["seed"])))
    machine.sync_file_system(place.folder)
    before, start = machine.usage(peer.servers()), time.perf_counter()
    _put_all(peer, keys, blocks)
    done = time.perf_counter() - start
    machine.sync_file_system(place.folder)
    on_disk = time.perf_counter() - start
    answer: dict[str, Any] = {"seconds": done, "on_disk_seconds": on_disk, **machine.usage(peer.servers()).since(before)}
    if not kind.persistent:
        if kind.on_disk:
            machine.drop_page_cache(place.folder)
            (answer["cold"],) = _reads(peer, keys, blocks, both[count:], 1)
        answer["warm"] = _reads(peer, keys, blocks, both[count:], WARM_READS)
    closing = machine.usage()
    peer.close()
    # RocksDB moves blocks from its log to their last place now, for example.
    used = machine.usage().since(closing)
    answer["cpu_seconds"] += used["cpu_seconds"]
    answer["written_bytes"] += used["written_bytes"]
    answer["allocated_bytes"] = machine.allocated_bytes(place.folder)
    return answer


def _reads(
    peer: Peer, keys: Any, expected: workload.Blocks, target: workload.Blocks, count: int
) -> list[dict[str, Any]]:
    answers = []
    for _ in range(count):
        target.fill(workload.POISON)
        before, start = machine.usage(peer.servers()), time.perf_counter()
        hits = peer.get(keys, 0, target)
        seconds = time.perf_counter() - start
        used = machine.usage(peer.servers()).since(before)
        answers.append({"seconds": seconds, **used, **workload.compare(expected, target, hits)})
    return answers


def get(kind: type[Peer], request: dict[str, Any]) -> dict[str, Any]:
    """Gets everything after a restart, with the page cache dropped; then again, from wherever the store has it by then."""
    place = _place(request)
    expected = workload.payload(place.block_count, place.block_bytes, request["seed"])
    target = workload.memory(place.block_count, place.block_bytes)
    peer = kind(place)
    tokens = _prompt_tokens(peer, place.block_count, request["seed"])
    machine.drop_page_cache(place.folder)
    start = time.perf_counter()
    peer.open(target)
    opened = time.perf_counter() - start
    keys = peer.keys(peer.prompt(tokens))
    if peer.servers():
        # What a server read when it started is no longer in the page cache's debt.
        machine.drop_page_cache(place.folder)
    reads = _reads(peer, keys, expected, target, 1 + WARM_READS)
    peer.close()
    return {"open_seconds": opened, "cold": reads[0], "warm": reads[1:]}


def write_until_killed(kind: type[Peer], request: dict[str, Any]) -> dict[str, Any]:
    """Puts batch after batch, and counts in memory shared with the killer the blocks of which the store said done."""
    place = _place(request)
    blocks = workload.payload(place.block_count, place.block_bytes, request["seed"])
    peer = kind(place)
    peer.open(blocks)
    keys = peer.keys(peer.prompt(_prompt_tokens(peer, place.block_count, request["seed"])))
    acknowledged = ctypes.c_uint64.from_buffer(request["counter"])
    for first in range(0, len(blocks), BATCH):
        peer.put(keys, first, blocks[first : first + BATCH])
        peer.finish()
        acknowledged.value = min(first + BATCH, len(blocks))
    time.sleep(60)
    return {}


def check(kind: type[Peer], request: dict[str, Any]) -> dict[str, Any]:
    """Gets each block after a restart, one by one if `singly`; counts what is right, wrong and missing."""
    place = _place(request)
    expected = workload.payload(place.block_count, place.block_bytes, request["seed"])
    target = workload.memory(place.block_count, place.block_bytes)
    machine.drop_page_cache(place.folder)
    peer = kind(place)
    peer.open(target)
    keys = peer.keys(peer.prompt(_prompt_tokens(peer, place.block_count, request["seed"])))
    acknowledged = int(request.get("acknowledged", place.block_count))
    hits = np.zeros(place.block_count, bool)
    for block in range(place.block_count):
        hits[block] = bool(peer.get(keys, block, target[block : block + 1])[0])
    peer.close()
    answer: dict[str, Any] = workload.compare(expected, target, hits)
    equal = (expected[:acknowledged] == target[:acknowledged]).all(axis=1) & hits[:acknowledged]
    answer["acknowledged"] = acknowledged
    answer["acknowledged_right"] = int(equal.sum())
    damaged = request.get("damaged")
    if damaged is not None:
        answer["damaged_block"] = "returned" if hits[damaged] else "missed"
    return answer


def flip(request: dict[str, Any]) -> dict[str, Any]:
    """Flips a bit in the middle of a block wherever its bytes lie in the store's files."""
    place = _place(request)
    block = request["damaged"]
    # The generator has no way to skip ahead.
    data = workload.payload(block + 1, place.block_bytes, request["seed"])[block].tobytes()
    middle = len(data) // 2
    sought, places = data[middle : middle + 32], 0
    for path in machine.files(place.folder):
        if path.stat().st_size < len(sought):
            continue
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            at = mapped.find(sought)
            while at >= 0:
                mapped[at] ^= 1
                places += 1
                at = mapped.find(sought, at + 1)
    return {"places": places}


def fill(kind: type[Peer], request: dict[str, Any]) -> dict[str, Any]:
    """Many small blocks: the first chain is that of the longest look-up, the others are of other prompts."""
    place = _place(request)
    blocks = workload.payload(CHAIN, place.block_bytes, request["seed"])
    peer = kind(place)
    peer.open(blocks)
    start, stored, chain = time.perf_counter(), 0, 0
    longest = max(LOOKUP_TOKENS) // peer.tokens_per_block
    while stored < place.block_count:
        length = min(longest if chain == 0 else CHAIN, place.block_count - stored)
        keys = peer.keys(peer.prompt(_prompt_tokens(peer, length, request["seed"] + chain)))
        for first in range(0, length, BATCH):
            count = min(BATCH, length - first)
            slot = first % CHAIN
            peer.put(keys, first, blocks[slot : slot + count])
            if first % CHAIN == 0:
                peer.finish()
        peer.finish()
        stored, chain = stored + length, chain + 1
    seconds = time.perf_counter() - start
    machine.sync_file_system(place.folder)
    answer: dict[str, Any] = {"seconds": seconds, "blocks": stored}
    if not kind.persistent:
        answer.update(_lookups(peer, request))
    peer.close()
    return {**answer, "allocated_bytes": machine.allocated_bytes(place.folder)}


def _lookups(peer: Peer, request: dict[str, Any]) -> dict[str, Any]:
    longest = _prompt_tokens(peer, max(LOOKUP_TOKENS) // peer.tokens_per_block, request["seed"])
    answer: dict[str, Any] = {"lookups": {}}
    for count in LOOKUP_TOKENS:
        prompt, times, found = peer.prompt(longest[:count]), [], 0
        for _ in range(LOOKUPS):
            start = time.perf_counter()
            found = peer.lookup(prompt)
            times.append(time.perf_counter() - start)
        answer["lookups"][str(count)] = {"first": times[0], "warm": float(np.median(times[1:])), "found": found}
    return answer


def first_hit(kind: type[Peer], request: dict[str, Any]) -> dict[str, Any]:
    """From opening a store with many blocks, page cache dropped, to the first block in the engine's memory; then look-ups."""
    place = _place(request)
    expected = workload.payload(CHAIN, place.block_bytes, request["seed"])
    target = workload.memory(1, place.block_bytes)
    peer = kind(place)
    longest = _prompt_tokens(peer, max(LOOKUP_TOKENS) // peer.tokens_per_block, request["seed"])
    prompt = peer.prompt(longest[: peer.tokens_per_block])
    machine.drop_page_cache(place.folder)
    before, start = machine.usage(), time.perf_counter()
    peer.open(target)
    hits = peer.get(peer.keys(prompt), 0, target)
    seconds = time.perf_counter() - start
    # A server's bytes count from its start, which is part of this.
    read = machine.usage(peer.servers()).read_bytes - before.read_bytes
    answer = {"seconds": seconds, "read_bytes": read, **workload.compare(expected[:1], target, hits)}
    if answer["right"]:
        answer.update(_lookups(peer, request))
    peer.close()
    return answer


MEASURES = {
    "put": put,
    "get": get,
    "write_until_killed": write_until_killed,
    "check": check,
    "fill": fill,
    "first_hit": first_hit,
}
