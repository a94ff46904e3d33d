"""Replays each run of reference.json with `kvstore replay`, and compares every field of the answer."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor


def command(kvstore, trace, block_size, run):
    arguments = [kvstore, "replay", trace, "--json", "--block-size", str(block_size)]
    arguments += ["--policy", run["policy"], "--order", run["order"]]
    capacity = run["capacity_blocks"]
    arguments += ["--capacity-blocks", "unlimited" if capacity == "inf" else str(capacity)]
    if run["ttl_s"] is not None:
        arguments += ["--ttl", str(run["ttl_s"])]
    if run["full_blocks_only"]:
        arguments.append("--full-blocks-only")
    return arguments


def check(kvstore, folder, name, trace, run):
    arguments = command(kvstore, os.path.join(folder, trace["file"]), trace["block_size"], run)
    done = subprocess.run(arguments, capture_output=True, text=True)
    label = f'{name} {run["policy"]}/{run["order"]} capacity {run["capacity_blocks"]} ttl {run["ttl_s"]}'
    if done.returncode != 0:
        return f"{label}: exit status {done.returncode}: {done.stderr.strip()}"
    found = json.loads(done.stdout)
    wrong = [
        f"{field} is {found.get(field)}, not {wanted}"
        for field, wanted in run.items()
        if found.get(field) != wanted
    ]
    return f"{label}: " + "; ".join(wrong) if wrong else None


def main():
    kvstore, folder = sys.argv[1:3]
    with open(os.path.join(folder, "reference.json")) as file:
        traces = json.load(file)["traces"]
    jobs = [(name, trace, run) for name, trace in traces.items() for run in trace["runs"]]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        faults = [fault for fault in pool.map(lambda job: check(kvstore, folder, *job), jobs) if fault]
    for fault in faults:
        print("FAIL", fault)
    print(f"replay: {len(jobs) - len(faults)} of {len(jobs)} runs equal the reference")
    sys.exit(1 if faults else 0)


main()
