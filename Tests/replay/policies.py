"""Hits of `density` between those of `lru` and those of `opt`, on traces of different kinds.

FAILs where density has more than 1 % of LRU's hits less than LRU. KVSTORE_POLICIES=all: all traces and sizes, and a table.
"""

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import traces

ALL_CAPACITIES = (1000, 3000, 10000, 30000, 50000, 100000)
# Sizes at which LRU has more of what is possible do not count in the mean.
NEARLY_ALL = 0.97


def hits(kvstore, trace, policy, capacity):
    arguments = [kvstore, "replay", trace, "--json", "--policy", policy]
    arguments += ["--capacity-blocks", str(capacity)]
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"FAIL {' '.join(arguments)}: {done.stderr.strip()}")
    return json.loads(done.stdout)["hit_blocks"]


def compare(kvstore, trace, capacities):
    """For each size: hits of lru, density and opt, and the part of the gap that is closed."""
    possible = hits(kvstore, trace, "lru", "unlimited")
    rows = []
    for capacity in capacities:
        lru, density, opt = (hits(kvstore, trace, p, capacity) for p in ("lru", "density", "opt"))
        closed = (density - lru) / (opt - lru) if opt > lru else None
        rows.append((capacity, lru, density, opt, closed, lru < NEARLY_ALL * possible))
    return rows


def report(trace, rows):
    for capacity, lru, density, opt, closed, counts in rows:
        text = "" if closed is None else f"{100 * closed:6.1f} %"
        note = "" if counts else "  (LRU has nearly all)"
        print(f"{os.path.basename(trace):36} {capacity:7} {lru:9} {density:9} {opt:9} {text}{note}")
    counted = [row[4] for row in rows if row[5] and row[4] is not None]
    if counted:
        print(f"{os.path.basename(trace):36}    mean {100 * sum(counted) / len(counted):37.1f} %")


def main(kvstore, folder):
    everything = os.environ.get("KVSTORE_POLICIES") == "all"
    with tempfile.TemporaryDirectory() as made:
        if everything:
            jobs = [(traces.write(kind, seed, made), ALL_CAPACITIES) for seed in (1, 2) for kind in traces.KINDS]
            published = ("mooncake_conversation", "claude_code_mix_a")
            jobs = [(os.path.join(folder, f"{name}.jsonl.zst"), ALL_CAPACITIES) for name in published] + jobs
        else:
            kinds = ((traces.chat_with_pauses, 3000), (traces.retrieval, 3000), (traces.recent, 1000))
            jobs = [(traces.write(kind, 1, made), (capacity,)) for kind, capacity in kinds]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = list(pool.map(lambda job: compare(kvstore, *job), jobs))
    faults = 0
    for (trace, _), rows in zip(jobs, results):
        if everything:
            report(trace, rows)
        for capacity, lru, density, _, _, _ in rows:
            if density < 0.99 * lru:
                faults += 1
                print(f"FAIL {os.path.basename(trace)} at {capacity}: density {density} hits, lru {lru}")
    if faults:
        raise SystemExit(1)
    print(f"policies: density on {len(jobs)} traces: never 1 % below lru")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
