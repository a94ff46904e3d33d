#!/usr/bin/env python3
"""Prints what chunks of a remote tier hold, one a line as JSON; written from docs/remote-format.md alone.

usage: read_chunk.py [--key-file FILE] CHUNK...

Verifies on the way: both checksums of a chunk and the code if there is a key, the key chain, that entries and payloads
fill the object, that frames fill their payloads, and the prefix digest of a chunk at the beginning of a path. Ends with
status 1 at the first thing that is not as the document says.
"""
import argparse
import hashlib
import hmac
import json
import struct
import sys

import xxhash

HAS_CODE = 1


def check(condition, what):
    if not condition:
        sys.exit(f"read_chunk: {what}")


def derived(key, label):
    return hmac.new(key, label.encode(), hashlib.sha256).digest()


def chained(parent_key, words, extra):
    length = struct.pack("<I", len(words) // 4)
    return xxhash.xxh3_128_digest(parent_key + length + words + struct.pack("<I", len(extra)) + extra)


def frames_byte_count(stored, what):
    """What the frames of a group decode to."""
    raw = at = 0
    while at < len(stored):
        _, _, zero, raw_bytes, stored_bytes = struct.unpack_from("<BBHII", stored, at)
        check(zero == 0 and at + 20 + stored_bytes <= len(stored), f"frame of {what}")
        raw += raw_bytes
        at += 20 + stored_bytes
    return raw


def read_entry(data, at, end, regions, words, payload_at, what):
    key, encoding, extra_bytes, offset, stored_bytes = struct.unpack_from("<16sIIQQ", data, at)
    check(encoding in (0, 1) and offset == payload_at, f"entry of {what}")
    at += 40
    start, raws, group = offset, [], None
    for region in range(regions):
        raw, stored, checksum = struct.unpack_from("<IIQ", data, at + 16 * region)
        piece = data[start : start + stored]
        check(xxhash.xxh3_64_intdigest(piece) == checksum, f"region {region} of {what}")
        if encoding == 0:
            check(raw == stored, f"bytes of region {region} of {what}")
        elif stored > 0 or group is None:
            check(group is None or group[0] == group[1], f"frames before region {region} of {what}")
            group = [raw, frames_byte_count(piece, what)]
        else:
            group[0] += raw
        raws.append(raw)
        start += stored
    check(group is None or group[0] == group[1], f"frames of {what}")
    check(start == offset + stored_bytes, f"payload of {what}")
    at += 16 * regions
    check(at + 4 * words + extra_bytes <= end, f"end of the entry of {what}")
    text, extra = data[at : at + 4 * words], data[at + 4 * words : at + 4 * words + extra_bytes]
    return at + 4 * words + extra_bytes, start, key, text, extra, encoding, raws


def read_chunk(path, key):
    with open(path, "rb") as file:
        data = file.read()
    check(data[:8] == b"KVSCHK\x01\x0a", f"magic of {path}")
    version, flags, size, header, before, blocks, regions, words, zero = struct.unpack_from("<IIQ6I", data, 8)
    end, idle, identity, root, parent, digest = struct.unpack_from("<QQ32s16s16s32s", data, 48)
    check(version == 1 and flags & ~HAS_CODE == 0 and zero == 0, f"version or flags of {path}")
    check(size == len(data), f"length of {path}")
    check(blocks in [2**n for n in range(7)] and before % blocks == 0, f"place of {path}")
    (checksum,) = struct.unpack_from("<Q", data, header - 8)
    check(xxhash.xxh3_64_intdigest(data[: header - 8]) == checksum, f"header checksum of {path}")
    at, payload_at, last_key = 160, header, parent
    check(before > 0 or parent == root, f"key before {path}")
    prefix = hashlib.sha256()
    bytes_of_blocks, encoded = 0, 0
    for block in range(blocks):
        what = f"block {block} of {path}"
        at, payload_at, own_key, text, extra, encoding, raws = read_entry(
            data, at, header - 8, regions, words, payload_at, what
        )
        check(chained(last_key, text, extra) == own_key, f"key of {what}")
        last_key = own_key
        prefix.update(text + struct.pack("<I", len(extra)) + extra)
        bytes_of_blocks += sum(raws)
        encoded += encoding
    check(at == header - 8, f"entries of {path}")
    check(before > 0 or prefix.digest() == digest, f"prefix digest of {path}")
    check(payload_at == len(data) - (32 if flags & HAS_CODE else 0), f"payloads of {path}")
    check((key is not None) == bool(flags & HAS_CODE), f"{path}: a key without a code, or the other way round")
    name = last_key
    if key is not None:
        code = hmac.new(derived(key, "kvstore remote 1: chunks"), data[:-32], hashlib.sha256).digest()
        check(code == data[-32:], f"code of {path}")
        name = hmac.new(derived(key, "kvstore remote 1: names"), identity + last_key, hashlib.sha256).digest()[:16]
    return {
        "name": name.hex(), "first_block": before, "blocks": blocks, "payload": bytes_of_blocks, "encoded": encoded,
        "end_of_life": end, "idle_life": idle, "has_code": bool(flags & HAS_CODE),
    }


def main():
    parser = argparse.ArgumentParser(description="Prints what chunks of a remote tier hold.")
    parser.add_argument("--key-file")
    parser.add_argument("chunk", nargs="+")
    arguments = parser.parse_args()
    key = None
    if arguments.key_file:
        with open(arguments.key_file, "rb") as file:
            key = file.read().rstrip(b"\r\n")
        check(32 <= len(key) <= 4096, "length of the key")
    for path in arguments.chunk:
        print(json.dumps(read_chunk(path, key)))


if __name__ == "__main__":
    main()
