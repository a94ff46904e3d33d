"""How fast `kvstore lint` reads a log, beside `zstd -d | jq -c .` over the same file: one after the other, in turns.

    speed.py COMMAND [--requests 100000] [--rounds 3]
"""

import argparse
import copy
import json
import os
import resource
import statistics
import subprocess
import tempfile
import time

import breakages


def write(path, count):
    """Agents' conversations of about 20 KB a request; in one of ten something is broken in the middle."""
    total = written = 0
    with open(path, "wb") as target:
        packer = subprocess.Popen(["zstd", "-q", "-3", "-T1"], stdin=subprocess.PIPE, stdout=target)
        seed = 0
        while written < count:
            conversation = breakages.transcript(seed, turns=30)
            run = breakages.steps(conversation)[6:]
            if seed % 10 == 0:
                at = len(run) // 2
                broken = copy.deepcopy(run[at:])
                for request in broken:
                    request["messages"][0]["content"] = "It is 21:48. " + request["messages"][0]["content"]
                run[at:] = broken
            for step, request in enumerate(run[: count - written]):
                line = json.dumps({"time": 1_795_600_000 + written * 3 + step, "request": request}).encode() + b"\n"
                total += len(line)
                packer.stdin.write(line)
            written += min(len(run), count - written)
            seed += 1
        packer.stdin.close()
        assert packer.wait() == 0
    return total


def clocked(command):
    start = time.monotonic()
    process = subprocess.Popen(command, shell=isinstance(command, str), executable="/bin/bash" if isinstance(command, str) else None, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, command
    return time.monotonic() - start, usage


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("command")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.NamedTemporaryFile(suffix=".jsonl.zst") as file:
        total = write(file.name, arguments.requests)
        print(f"{arguments.requests} requests of {total / arguments.requests / 1000:.1f} KB, {os.path.getsize(file.name) >> 20} MiB compressed", flush=True)
        times = {"jq": [], "lint": []}
        most = 0
        for _ in range(arguments.rounds):
            times["jq"].append(clocked(f"set -o pipefail; zstd -dc {file.name} | jq -c .")[0])
            spent, usage = clocked([arguments.command, "lint", file.name, "--json"])
            times["lint"].append(spent)
            most = max(most, usage.ru_maxrss)
        for name, values in times.items():
            print(f"{name:5} median {statistics.median(values):.1f} s ({min(values):.1f}–{max(values):.1f})")
        ratio = statistics.median(times["lint"]) / statistics.median(times["jq"])
        print(f"lint takes {ratio:.2f} × the time of zstd -d | jq -c . and {most >> 10} MiB at most; load {os.getloadavg()[0]:.1f}")
        raise SystemExit(0 if ratio <= 3 else 1)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
