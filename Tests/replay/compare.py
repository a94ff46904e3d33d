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
    # The reference has another name for one field, and a word for what is unlimited.
    run = {{"ttl_s": "ttl_seconds"}.get(field, field): None if value == "inf" else value for field, value in run.items()}
    wrong = [
        f"{field} is {found.get(field)}, not {wanted}"
        for field, wanted in run.items()
        if found.get(field) != wanted
    ]
    return f"{label}: " + "; ".join(wrong) if wrong else None


def answer(kvstore, *arguments):
    done = subprocess.run([kvstore, *arguments, "--json"], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"FAIL kvstore {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def check_plan(kvstore, trace):
    """The curves of one pass equal replays at single sizes and TTLs. Blocks of 1 GiB: a size is a number of blocks."""
    plan = json.loads(answer(kvstore, "plan", "--trace", trace, "--block-bytes", "1GiB"))
    faults = []
    for row in [row for row in plan["rows"] if row["blocks"] in (768, 6144, 16384, 65536)]:
        for ttl, rate in zip(plan["ttl_seconds"] + [None], row["token_hit_rates"]):
            if ttl not in (300, 1800, None):
                continue
            arguments = ["replay", trace, "--policy", "lru", "--capacity-blocks", str(row["blocks"])]
            arguments += [] if ttl is None else ["--ttl", str(ttl)]
            found = json.loads(answer(kvstore, *arguments))["token_hit_rate"]
            if found != rate:
                faults.append(f"plan at {row['blocks']} blocks, ttl {ttl}: {rate}, replayed {found}")
    if len(plan["rows"]) < 20:
        faults.append(f"plan has {len(plan['rows'])} rows only")
    return faults


def check_engine(kvstore, trace):
    """The simulated engine twice: the same bytes; and with a store no more is computed than without."""
    arguments = ["replay", trace, "--gpu", "h100", "--gpus", "2", "--disk", "256GiB"]
    first, second = answer(kvstore, *arguments), answer(kvstore, *arguments)
    if first != second:
        return ["the simulated engine: two runs differ"]
    report = json.loads(first)
    if report["requests"] != 12031 or report["prefill_tokens_saved"] <= 0:
        return [f"the simulated engine: {report['requests']} requests, {report['prefill_tokens_saved']} tokens saved"]
    return []


def main():
    kvstore, folder = sys.argv[1:3]
    with open(os.path.join(folder, "reference.json")) as file:
        traces = json.load(file)["traces"]
    jobs = [(name, trace, run) for name, trace in traces.items() for run in trace["runs"]]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        faults = [fault for fault in pool.map(lambda job: check(kvstore, folder, *job), jobs) if fault]
    wrong_runs = len(faults)
    conversation = os.path.join(folder, traces["mooncake_conversation"]["file"])
    faults += check_plan(kvstore, conversation) + check_engine(kvstore, conversation)
    for fault in faults:
        print("FAIL", fault)
    print(f"replay: {len(jobs) - wrong_runs} of {len(jobs)} runs equal the reference")
    sys.exit(1 if faults else 0)


main()
