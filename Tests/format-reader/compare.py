#!/usr/bin/env python3
"""Compares what read_store.py printed with `kvstore inspect tree --json`, and some blocks with `inspect block`.

usage: compare.py BLOCKS TREE KVSTORE STORE

Prints the number of blocks that agree; ends with status 1 at the first difference.
"""
import datetime
import json
import subprocess
import sys


def microseconds(text):
    """Of a moment as the command prints it, since 1970."""
    epoch = datetime.datetime(1970, 1, 1)
    return (datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ") - epoch) // datetime.timedelta(microseconds=1)



blocks = {}
with open(sys.argv[1]) as file:
    for line in file:
        block = json.loads(line)
        blocks.setdefault((block["namespace"], block["run"]), []).append(block)
with open(sys.argv[2]) as file:
    trees = json.load(file)["namespaces"]
if not all(tree["is_whole"] for tree in trees):
    sys.exit("compare: inspect did not show all runs")
runs = {(tree["namespace"], run["run"]): run for tree in trees for run in tree["runs"]}
if runs.keys() != blocks.keys():
    sys.exit(f"compare: runs only in one of them: {sorted(runs.keys() ^ blocks.keys())[:5]}")
for name, run in runs.items():
    chain = sorted(blocks[name], key=lambda block: block["position"])
    here = (len(chain), chain[0]["key"], chain[-1]["key"], sum(block["payload"] for block in chain),
            sum(block["pinned"] for block in chain))
    there = (run["block_count"], run["first_block_key"], run["last_block_key"], run["payload_bytes"],
             run["pinned_block_count"])
    if here != there or [block["position"] for block in chain] != list(range(len(chain))):
        sys.exit(f"compare: run {name}: the reader says {here}, inspect {there}")
count = sum(len(chain) for chain in blocks.values())
if count != sum(tree["block_count"] for tree in trees):
    sys.exit(f"compare: {count} blocks were read, the accounting of the namespaces says otherwise")

# Lives and priorities: a few blocks of each kind, for each costs a process.
kinds = {}
for block in (block for chain in blocks.values() for block in chain):
    kinds.setdefault((block["namespace"], block["idle"], block["end"] > 0, block["priority"], block["pinned"]), block)
for block in kinds.values():
    text = subprocess.run([sys.argv[3], "inspect", "block", sys.argv[4], block["key"], "--namespace",
                           str(block["namespace"]), "--json"], check=True, capture_output=True).stdout
    (shown,) = json.loads(text)["blocks"]
    here = (block["end"] if block["idle"] else 0, block["priority"], block["pinned"])
    there = (round((shown["idle_seconds"] or 0) * 10**9), shown["priority"], shown["pin_ends_at"] is not None)
    # A pin moves the end of an idle life; then only inspect knows.
    if not (block["idle"] and block["pinned"]):
        end = block["deadline"] if block["idle"] else block["end"]
        here += (None if end in (0, 0xFFFFFFFFFFFFFFFF) else end // 1000,)
        there += (shown["expires_at"] and microseconds(shown["expires_at"]),)
    if here != there:
        sys.exit(f"compare: block {block['key']}: the reader says {here}, inspect {there}")
print(count)
