#!/usr/bin/env python3
"""Prints the blocks of a store, one a line as JSON; written from docs/file-format.md alone.

usage: read_store.py STORE

Verifies on the way: the checksums of rows, slot headers and regions, the key chain, that header, row and the
table `keys` agree, and that the tables of lives and pins agree with the rows and with one another. Ends with status 1 at the first thing that is not as the document says.
"""
import json
import os
import struct
import sys

import lmdb
import xxhash

ROOT = (0, 0xFFFFFFFF)
NEVER = 0xFFFFFFFFFFFFFFFF
IDLE = 2  # flag of a block row


def check(condition, what):
    if not condition:
        sys.exit(f"read_store: {what}")


def checked(tag, key, value, what):
    """The value behind its row checksum."""
    (checksum,) = struct.unpack_from("<Q", value)
    check(xxhash.xxh3_64_intdigest(bytes([tag]) + key + value[8:]) == checksum, f"row checksum of {what}")
    return value[8:]


def block_key(parent_key, words, extra):
    length = struct.pack("<I", len(words) // 4)
    return xxhash.xxh3_128_digest(parent_key + length + words + struct.pack("<I", len(extra)) + extra)


def read_row(value, word_count):
    """A block row; offsets count from the row's start, so `value` is the whole of it."""
    key, payload, extra_count, place_count, flags = struct.unpack_from("<16sIHBB", value, 8)
    end, _, priority = struct.unpack_from("<QII", value, 32)
    places = [struct.unpack_from("<BBBBIIIQQ", value, 48 + 32 * i) for i in range(place_count)]
    offset = 48 + 32 * place_count
    parent = None
    if flags & 1:
        parent = struct.unpack_from("<QI", value, offset)
        offset += 12
    words = value[offset : offset + 4 * word_count]
    extra = value[offset + 4 * word_count : offset + 4 * word_count + extra_count]
    return {"key": key, "payload": payload, "places": places, "parent": parent, "words": words, "extra": extra,
            "idle": bool(flags & IDLE), "end": end, "priority": priority}


def check_slot(header, stored, row, place, space, uuid, parent_key, ns, what):
    """The slot header, and the regions behind it; returns the number of regions."""
    check(header[:8] == b"KVSLOT\x01\x0a", f"magic of {what}")
    version, header_bytes, checksum, used = struct.unpack_from("<IIQI", header, 8)
    check(version == 1 and header_bytes == space["header_bytes"], f"version or size of the header of {what}")
    check(xxhash.xxh3_64_intdigest(header[24:used]) == checksum == place[8], f"header checksum of {what}")
    owner, store, generation, root, key, parent = struct.unpack_from("<I16sQ16s16s16s", header, 28)
    words, extras, regions, payload, stored_bytes = struct.unpack_from("<5I", header, 108)
    check((owner, store, generation, root) == (ns, uuid, place[7], space["root"]), f"owner of {what}")
    check(struct.unpack_from("<B", header, 147)[0] <= 100, f"priority of the header of {what}")
    check((key, parent, payload) == (row["key"], parent_key, row["payload"]), f"keys of {what}")
    check(stored_bytes == place[6] == len(stored), f"stored bytes of {what}")
    at = 160 + 16 * regions
    check(used == at + 4 * words + extras, f"used bytes of the header of {what}")
    check(header[at : at + 4 * words] == row["words"], f"words of {what}")
    check(header[at + 4 * words : used] == row["extra"], f"extra bytes of {what}")
    start = 0
    for region in range(regions):
        _, count, checksum = struct.unpack_from("<IIQ", header, 160 + 16 * region)
        check(xxhash.xxh3_64_intdigest(stored[start : start + count]) == checksum, f"region {region} of {what}")
        start += count
    check(start == len(stored), f"regions of {what}")
    return regions


def read_lives(cursor, rows):
    """Deadlines and pins, checked against the rows; returns the deadline of each idle block, and the pinned blocks."""
    records = {}
    for key, value in cursor("deadlines"):
        ns, run, position = struct.unpack(">IQI", key)
        (deadline,) = struct.unpack("<Q", checked(12, key, value, f"deadline of run {run}, position {position}"))
        check((ns, run, position) in rows, f"a deadline of run {run}, position {position}, which has no block")
        chain = records.setdefault((ns, run), [])
        check(not chain or deadline < chain[-1][1], f"order of the deadlines of run {run}")
        chain.append((position, deadline))

    # What ends when: each end is listed, and nothing else is.
    ends = {(1, deadline, ns, run, position) for (ns, run), chain in records.items()
            for position, deadline in chain if deadline != NEVER}
    ends |= {(0, row["end"], *at) for at, row in rows.items() if row["end"] and not row["idle"]}
    listed = set()
    for key, value in cursor("expiries"):
        check(checked(13, key, value, f"expiry {key.hex()}") == b"", f"value of expiry {key.hex()}")
        listed.add(struct.unpack(">BQIQI", key))
    check(listed == ends, f"expiries: only in one of the tables: {sorted(listed ^ ends)[:3]}")

    deadlines = {}
    for (ns, run, position), row in rows.items():
        if row["idle"]:
            found = [deadline for at, deadline in records.get((ns, run), []) if at >= position]
            check(found, f"an idle life without a deadline at run {run}, position {position}")
            deadlines[ns, run, position] = found[0]
    # No block of a path outlives the one above it, unless that one has an absolute end or none.
    for (ns, run, position), deadline in deadlines.items():
        parent = (run, position - 1) if position else rows[ns, run, position]["parent"]
        above = deadlines.get((ns, *parent))
        check(above is None or above >= deadline, f"deadline above run {run}, position {position}")

    pinned = set()
    for key, value in cursor("pins"):
        (pin,) = struct.unpack(">Q", key)
        value = checked(14, key, value, f"pin {pin}")
        ns, _, _, count = struct.unpack_from("<IIQI", value)
        path = [struct.unpack_from("<QI", value, 20 + 12 * i) for i in range(count)]
        check(len(value) == 20 + 12 * count and count > 0, f"length of pin {pin}")
        for (run, position), above in zip(path, path[1:] + [ROOT]):
            check((ns, run, position) in rows, f"pin {pin} is on run {run}, position {position}, which has no block")
            check(rows[ns, run, 0]["parent"] == above, f"path of pin {pin} at run {run}")
            pinned |= {(ns, run, at) for at in range(position + 1)}
    return deadlines, pinned


def main(folder):
    environment = lmdb.open(os.path.join(folder, "catalog.mdb"), subdir=False, readonly=True, lock=False, max_dbs=16)
    tables = {name: environment.open_db(name.encode(), create=False)
              for name in ("meta", "namespaces", "runs", "keys", "payloads", "deadlines", "expiries", "pins")}
    with environment.begin() as transaction:
        def get(table, key):
            return transaction.get(key, db=tables[table])

        (version,) = struct.unpack_from("<I", checked(1, b"format", get("meta", b"format"), "meta format"))
        check(version == 2, f"format version {version}")
        uuid = checked(1, b"store", get("meta", b"store"), "meta store")[:16]
        spaces = {}
        for key, value in transaction.cursor(tables["namespaces"]):
            ns, kind = struct.unpack(">IB", key)
            value = checked(2, key, value, f"namespace {ns}, kind {kind}")
            if kind == 0:
                slot_bytes, header_bytes, word_count, _, _, _, root, count = struct.unpack_from("<4IQQ16sI", value)
                check(xxhash.xxh3_128_digest(value[52 : 52 + count]) == root, f"root key of namespace {ns}")
                spaces[ns] = {"slot_bytes": slot_bytes, "header_bytes": header_bytes, "words": word_count, "root": root}
        rows = {}
        for key, value in transaction.cursor(tables["runs"]):
            ns, run, position = struct.unpack(">IQI", key)
            checked(3, key, value, f"run {run}, position {position}")
            rows[ns, run, position] = read_row(value, spaces[ns]["words"])
        deadlines, pinned = read_lives(lambda table: transaction.cursor(tables[table]), rows)
        for (ns, run, position), row in rows.items():
            what = f"namespace {ns}, run {run}, position {position}"
            space, place = spaces[ns], row["places"][0]
            parent = (run, position - 1) if position > 0 else row["parent"]
            parent_key = space["root"] if parent == ROOT else rows[ns, *parent]["key"]
            check(block_key(parent_key, row["words"], row["extra"]) == row["key"], f"key chain at {what}")
            entry = get("keys", struct.pack(">I", ns) + row["key"])
            check(entry is not None and struct.unpack("<QI", entry) == (run, position), f"table keys at {what}")
            if place[3] & 1:
                key = struct.pack(">IQI", ns, run, position)
                value = checked(9, key, get("payloads", key), f"payload of {what}")
                (used,) = struct.unpack_from("<I", value, 24)
                header, stored = value[:used], value[used:]
            else:
                with open(os.path.join(folder, "slots", f"{place[0]:02x}{place[4]:08x}.kvs"), "rb") as file:
                    file.seek(place[5] * space["slot_bytes"])
                    header, stored = file.read(space["header_bytes"]), file.read(place[6])
            regions = check_slot(header, stored, row, place, space, uuid, parent_key, ns, what)
            words = struct.unpack(f"<{len(row['words']) // 4}I", row["words"])
            print(json.dumps({"namespace": ns, "run": run, "position": position, "key": row["key"].hex(),
                              "words": words, "regions": regions, "payload": row["payload"],
                              "priority": row["priority"], "end": row["end"], "idle": row["idle"],
                              "deadline": deadlines.get((ns, run, position)), "pinned": (ns, run, position) in pinned}))


if len(sys.argv) != 2:
    sys.exit(__doc__)
main(sys.argv[1])
