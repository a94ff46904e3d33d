#!/usr/bin/env python3
"""The client's puts and gets beside a plain loop's, in turns on one server: medians and spread of the ratios. See run --bench."""
import re
import statistics
import subprocess
import sys
from pathlib import Path

import servers as remote_servers
from servers import Servers

ROUNDS = 15
MEBIBYTE = 1 << 20


def numbers(line):
    return {name: float(value) for name, value in re.findall(r"(\w+)=([\d.e+-]+)", line)}


def main():
    probe = sys.argv[1]
    for name, program in remote_servers.programs().items():
        with Servers() as servers:
            server = servers.server(program)
            raw = servers.folder / "raw_loop"
            source = Path(__file__).with_name("raw_loop.c")
            subprocess.run(["cc", "-O2", "-pthread", "-o", raw, source], check=True)
            for length in (288 * 1024, 2 * MEBIBYTE):
                count = 256 * MEBIBYTE // length
                rows = []
                for _ in range(ROUNDS):
                    server.do("FLUSHALL", "SYNC")
                    limit = subprocess.run(
                        [raw, str(server.port), str(length), str(count)], capture_output=True, text=True, check=True
                    )
                    server.do("FLUSHALL", "SYNC")
                    call = f"bench 60000 {length} {count}\n"
                    own = subprocess.run([probe, server.url()], input=call, capture_output=True, text=True, check=True)
                    assert "failures=0" in own.stdout, own.stdout
                    rows.append((numbers(own.stdout), numbers(limit.stdout)))
                for what in ("put", "get"):
                    ratios = sorted(own[what] / limit[what] for own, limit in rows)
                    print(
                        f"{name} {what} {length // 1024} KiB: {statistics.median(ratios):.2f} of the plain loop "
                        f"({ratios[0]:.2f} to {ratios[-1]:.2f}); "
                        f"GB/s {statistics.median(own[what] for own, _ in rows):.2f} and "
                        f"{statistics.median(limit[what] for _, limit in rows):.2f}; client's CPU s/GB "
                        f"{statistics.median(own[what + '_cpu'] for own, _ in rows):.3f} and "
                        f"{statistics.median(limit[what + '_cpu'] for _, limit in rows):.3f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
