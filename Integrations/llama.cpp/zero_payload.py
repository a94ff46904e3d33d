#!/usr/bin/env python3
"""The negative controls of the demo: zeroes stored KV, and makes every checksum fit again, or does not.

Equal logits prove something only if wrong KV would have given other logits. This program makes wrong KV that the store
must believe: in each block it zeroes the rows of the V and K tensors, recomputes the region checksum and the
header checksum in the slot, the header checksum in the catalog row and the row's own checksum. It follows
docs/file-format.md alone and shares no code with the store, so it also shows that the page is complete.

A block's payload is llama.cpp's blob. The headers in it stay, since llama.cpp refuses a blob without them: from the end
of the blob backwards lie tensors, each `i32 type, u64 row bytes` and then a row for each token (flash attention on),
and only the rows are zeroed.

With --damage-from N, the checksums stay as they were, and only blocks at positions from N on are touched: now
the store must not believe it.

The store must be closed. Needs the modules lmdb and xxhash.
"""

import argparse
import os
import struct
import sys

import lmdb
import xxhash

PAGE = 4096
TAG_NAMESPACES, TAG_RUNS, TAG_PAYLOADS = 2, 3, 9
TIER_DISK, PLACE_INLINE = 2, 1


def fail(message):
    sys.exit(f"zero_payload: {message}")


def xxh64(data):
    return xxhash.xxh3_64_intdigest(data)


def row_checksum(tag, key, value):
    return xxh64(bytes([tag]) + bytes(key) + bytes(value[8:]))


def zero_tensors(blob, token_count):
    """Zeroes the rows of the tensors at the end of the blob; returns how many tensors and bytes that was."""
    end, tensors, zeroed = len(blob), 0, 0
    row_bytes = None
    while True:
        candidates = range(2, end // token_count, 2) if row_bytes is None else [row_bytes]
        for candidate in candidates:
            start = end - token_count * candidate
            if start < 12:
                continue
            kind, row = struct.unpack_from("<iQ", blob, start - 12)
            if 0 <= kind < 64 and row == candidate:
                break
        else:
            return tensors, zeroed
        row_bytes = candidate
        blob[start:end] = bytes(end - start)
        tensors, zeroed, end = tensors + 1, zeroed + end - start, start - 12


def zero_record(record, header_bytes, token_count, seal):
    """Zeroes the payload of one record (slot header and stored bytes) in place, and seals it again if asked to;
    returns (header checksum, tensors, bytes zeroed)."""
    if record[0:8] != b"KVSLOT\x01\x0a":
        fail("no slot header where the catalog says that there is one")
    used = struct.unpack_from("<I", record, 24)[0]
    if xxh64(bytes(record[24:used])) != struct.unpack_from("<Q", record, 16)[0]:
        fail("a slot's header checksum did not fit to begin with")
    region_count = struct.unpack_from("<I", record, 116)[0]
    tensors = zeroed = 0
    at = header_bytes
    for region in range(region_count):
        entry = 160 + 16 * region
        stored, checksum = struct.unpack_from("<IQ", record, entry + 4)
        if xxh64(bytes(record[at : at + stored])) != checksum:
            fail("a region's checksum did not fit to begin with")
        blob = bytearray(record[at : at + stored])
        counts = zero_tensors(blob, token_count)
        tensors, zeroed = tensors + counts[0], zeroed + counts[1]
        record[at : at + stored] = blob
        if seal:
            struct.pack_into("<Q", record, entry + 8, xxh64(bytes(blob)))
        at += stored
    checksum = xxh64(bytes(record[24:used]))
    struct.pack_into("<Q", record, 16, checksum)
    return checksum, tensors, zeroed


def main():
    parser = argparse.ArgumentParser(
        description="Zeroes the stored KV of a llama.cpp store with all checksums fitting: a negative control."
    )
    parser.add_argument("store", help="the store's folder; nobody may have it open")
    parser.add_argument(
        "--damage-from",
        type=int,
        metavar="N",
        help="zero only blocks at positions >= N of their run, and leave the checksums: plain damage",
    )
    options = parser.parse_args()
    store, damage_from = options.store, options.damage_from
    seal = damage_from is None
    catalog = os.path.join(store, "catalog.mdb")
    if not os.path.isfile(catalog):
        fail(f"{store} is not a store")

    # The map size is the store's budget for its catalog: open with the same one, so as not to change it.
    with lmdb.open(catalog, subdir=False, readonly=True, lock=False) as environment:
        map_size = environment.info()["map_size"]
    environment = lmdb.open(catalog, subdir=False, max_dbs=32, map_size=map_size)
    tables = {
        name: environment.open_db(name.encode(), create=False) for name in ("namespaces", "runs", "payloads")
    }
    blocks = tensors = zeroed = 0
    with environment.begin(write=True) as transaction:
        namespaces = {}
        for key, value in transaction.cursor(tables["namespaces"]):
            namespace, kind = struct.unpack(">IB", key)
            if kind == 0:
                if row_checksum(TAG_NAMESPACES, key, value) != struct.unpack_from("<Q", value)[0]:
                    fail("a namespace row's checksum did not fit to begin with")
                slot_bytes, header_bytes, words_per_block = struct.unpack_from("<III", value, 8)
                namespaces[namespace] = (slot_bytes, header_bytes, words_per_block)

        for key, value in list(transaction.cursor(tables["runs"])):
            if row_checksum(TAG_RUNS, key, value) != struct.unpack_from("<Q", value)[0]:
                fail("a block row's checksum did not fit to begin with")
            namespace, _, position = struct.unpack(">IQI", key)
            if not seal and position < damage_from:
                continue
            slot_bytes, header_bytes, words_per_block = namespaces[namespace]
            row = bytearray(value)
            for place in range(row[30]):
                at = 48 + 32 * place
                tier, codec, _, flags, file, slot, stored = struct.unpack_from("<BBBBIII", row, at)
                if codec != 0:
                    fail("a block is compressed: store it raw for this test")
                if flags & PLACE_INLINE:
                    record = bytearray(transaction.get(key, db=tables["payloads"]))
                    # In the catalog the header is followed by the payload at once.
                    body = record[8:]
                    used = struct.unpack_from("<I", body, 24)[0]
                    checksum, more, bytes_zeroed = zero_record(body, used, words_per_block, seal)
                    record[8:] = body
                    struct.pack_into("<Q", record, 0, row_checksum(TAG_PAYLOADS, key, record))
                    transaction.put(key, bytes(record), db=tables["payloads"])
                else:
                    path = os.path.join(store, "slots", f"{tier:02X}{file:08X}.kvs")
                    if not os.path.exists(path):
                        path = os.path.join(store, "slots", f"{tier:02x}{file:08x}.kvs")
                    with open(path, "r+b") as slots:
                        slots.seek(slot * slot_bytes)
                        record = bytearray(slots.read(header_bytes + stored))
                        checksum, more, bytes_zeroed = zero_record(record, header_bytes, words_per_block, seal)
                        slots.seek(slot * slot_bytes)
                        slots.write(record)
                        slots.flush()
                        os.fsync(slots.fileno())
                if more == 0:
                    fail("no tensor was found in a block: is it flash-attention KV of llama.cpp?")
                struct.pack_into("<Q", row, at + 24, checksum)
                tensors, zeroed = tensors + more, zeroed + bytes_zeroed
                blocks += 1
            struct.pack_into("<Q", row, 0, row_checksum(TAG_RUNS, key, row))
            transaction.put(key, bytes(row), db=tables["runs"])
    environment.close()
    if blocks == 0:
        fail("the store has no blocks")
    outcome = "every checksum fits" if seal else "the checksums are as before"
    print(f"zeroed {zeroed} bytes in {tensors} tensors of {blocks} blocks; {outcome}")


if __name__ == "__main__":
    main()
