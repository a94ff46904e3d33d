"""The command behind Benchmarks/peers/run."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

from . import driver, picture, report
from .peers import PEERS

MIB = 1 << 20

DESCRIPTION = """\
Measures kvstore and the stores people use instead on the same blocks, in one run: durable puts, warm and cold gets, look-ups of
32,000 and 131,072 tokens, opening a store with many blocks, processor time, bytes written and read, what a kill -9 and a flipped
bit leave. Every byte that is got is compared. The machine's own limits are measured between the stores.

What is missing is set up first: packages at pinned versions, in the cache folder ($KVSTORE_CACHE, else $XDG_CACHE_HOME/kvstore,
else ~/.cache/kvstore). That takes minutes and about 4 GB the first time. What cannot be had here is named in the report.
"""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="Benchmarks/peers/run", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="64 MiB a store, one round, 9,216 blocks to open (the default)")
    size.add_argument("--full", action="store_true", help="256 MiB, three rounds, 60,000 blocks")
    parser.add_argument("--peers", metavar="A,B", help="these stores only, by the names of --list")
    parser.add_argument("--list", action="store_true", help="print the stores' names, and do nothing")
    parser.add_argument("--parts", metavar="A,B", help=f"of {', '.join(driver.PARTS)}; default: all")
    parser.add_argument("--rounds", type=int, metavar="N")
    parser.add_argument("--total", type=int, metavar="MIB", help="payload in a round")
    parser.add_argument("--scale-blocks", type=int, metavar="N", help="blocks of 20 KiB: a multiple of 16, 8,192 or more")
    parser.add_argument("--path", type=Path, default=Path(), help="where the stores are made (default: here)")
    parser.add_argument("--out", type=Path, help="folder of the report (default: bench-peers-COMMIT here); rows are added")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=600, metavar="SECONDS", help="of one measure")
    parser.add_argument("--no-setup", action="store_true", help="only what is there already")
    parser.add_argument("--report-only", action="store_true", help="write the report of the rows in --out again")
    return parser.parse_args()


def _chosen(text: str | None, known: tuple[str, ...], what: str) -> tuple[str, ...]:
    names = tuple(text.split(",")) if text else known
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"no such {what}: {', '.join(unknown)}; known: {', '.join(known)}")
    return names


def main() -> None:
    arguments = _arguments()
    if arguments.list:
        for peer in PEERS:
            print(f"{peer.name:26}{peer.title}; {peer.durability}")
        return
    # So that folders and processes go when it is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    out: Path = arguments.out or Path(f"bench-peers-{driver.commit()}")
    if not arguments.report_only:
        full = arguments.full
        options = driver.Options(
            peers=_chosen(arguments.peers, tuple(peer.name for peer in PEERS), "store"),
            parts=_chosen(arguments.parts, driver.PARTS, "part"),
            sizes=driver.SIZES,
            total=(arguments.total or (256 if full else 64)) * MIB,
            rounds=arguments.rounds or (3 if full else 1),
            scale_blocks=arguments.scale_blocks or (60_000 if full else 9_216),
            fault_rounds=3 if full else 1,
            folder=arguments.path.resolve(),
            out=out.resolve(),
            seed=arguments.seed,
            timeout=arguments.timeout,
        )
        driver.measure(options, not arguments.no_setup, driver.say)
    rows = report.read(out / "rows.jsonl")
    text = report.markdown(rows)
    (out / "report.md").write_text(text)
    (out / "peers.svg").write_text(picture.svg(rows))
    print(text)
    driver.say(f"in {out}: report.md, peers.svg, rows.jsonl, and the stores' own output")


if __name__ == "__main__":
    os.environ.setdefault("TMPDIR", tempfile.gettempdir())
    main()
