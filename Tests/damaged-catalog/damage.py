#!/usr/bin/env python3
"""Damages the catalog of a store in many ways, and looks at what becomes of it, each time in a child process.

usage: damage.py RESTORE_ALL KVSTORE FOLDER ROUNDS SEED

Each round: a copy of the store, one damage of its catalog.mdb, everything restored, `verify --quick`, `repair`, everything restored
again. No byte may be wrong. Restoring may end in a signal, which is counted: LMDB trusts its pages. `repair` must not, and must
give back every block whose payload lies in a slot file. Prints the outcomes.
"""
import collections
import json
import os
import random
import shutil
import subprocess
import sys

PAGE = 4096
SLOT_BLOCKS = 12 * 20


def damage(data, kind, rng):
    pages = len(data) // PAGE
    page = rng.randrange(pages) * PAGE
    if kind == "bit":
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == "header bytes":  # where a page says what it is
        data[page + rng.randrange(16)] ^= rng.randrange(1, 256)
    elif kind == "zeroed page":
        data[page : page + PAGE] = bytes(PAGE)
    elif kind == "random page":
        data[page : page + PAGE] = rng.randbytes(PAGE)
    elif kind == "swapped pages":
        other = rng.randrange(pages) * PAGE
        data[page : page + PAGE], data[other : other + PAGE] = data[other : other + PAGE], data[page : page + PAGE]
    elif kind == "torn page":
        data[page + 512 : page + PAGE] = bytes(PAGE - 512)
    elif kind == "cut off":
        del data[rng.randrange(len(data)) :]
    return data


def run(*command):
    """Exit status (negative: a signal) and what was printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout.strip(), done.stderr.strip()


def main(restore_all, kvstore, folder, rounds, seed):
    rng = random.Random(seed)
    base = os.path.join(folder, "base")
    os.mkdir(base)
    status, _, message = run(restore_all, "fill", base)
    assert status == 0, f"cannot fill a store: {message}"
    status, found, _ = run(restore_all, "read", base)
    assert (status, found) == (0, f"{SLOT_BLOCKS} {SLOT_BLOCKS}"), f"an undamaged store gave {status}: {found}"
    kinds = ["bit", "header bytes", "zeroed page", "random page", "swapped pages", "torn page", "cut off"]
    reads, verifies = collections.Counter(), collections.Counter()
    kept = 0
    for index in range(rounds):
        kind = kinds[index % len(kinds)]
        what = f"round {index} ({kind}, seed {seed})"
        store = os.path.join(folder, "store")
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(base, store)
        path = os.path.join(store, "catalog.mdb")
        with open(path, "rb") as file:
            data = bytearray(file.read())
        damaged = damage(data, kind, rng)
        with open(path, "wb") as file:
            file.write(damaged)
        status, found, message = run(restore_all, "read", store)
        if status == 1:
            sys.exit(f"{what}: wrong bytes")
        if status < 0:
            reads[f"signal {-status}"] += 1
        elif found.startswith("KVSTORE"):
            reads["refused: " + found] += 1
        else:
            reads["whole" if found == f"{SLOT_BLOCKS} {SLOT_BLOCKS}" else "misses"] += 1
        # On the damage as it was: reading may have removed what it found broken.
        shutil.rmtree(store)
        shutil.copytree(base, store)
        with open(path, "wb") as file:
            file.write(damaged)
        status, _, _ = run(kvstore, "verify", "--quick", store)
        verifies[{0: "nothing", 1: "refused", 2: "findings"}.get(status, f"signal {-status}")] += 1
        status, found, message = run(kvstore, "repair", "--force", "--json", store)
        if status != 0:
            sys.exit(f"{what}: repair ended with {status}: {message}")
        repaired = json.loads(found)
        if repaired["block_count"] - repaired["inline_block_count"] != 5 + 12 * 15:
            sys.exit(f"{what}: repair gave back {repaired}")
        kept += repaired["inline_block_count"]
        status, found, message = run(restore_all, "read", store)
        if status != 0 or not found.startswith(f"{SLOT_BLOCKS} "):
            sys.exit(f"{what}: after the repair: {status}: {found} {message}")
        status, found, _ = run(kvstore, "verify", store)
        if status != 0:
            sys.exit(f"{what}: after the repair verify says\n{found}")
    tell = lambda counts: ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    print(f"damaged catalog: {rounds} rounds, no wrong byte; reading: {tell(reads)}")
    print(f"verify: {tell(verifies)}; repair gave back all blocks of slot files, and {kept} of {rounds * (5 + 12 * 15)} in the catalog")


if len(sys.argv) != 6:
    sys.exit(__doc__)
main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
