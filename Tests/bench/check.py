"""Checks the lines and pictures of `kvstore bench` in a folder."""

import json
import math
import pathlib
import sys
import xml.dom.minidom

KEYS = {
    "workload", "params", "value", "unit", "limit", "limit_name", "ratio", "p50_seconds", "p90_seconds", "p99_seconds",
    "p999_seconds", "runs", "spread", "schema",
}
# What must be among the measures of a workload, in part.
EXPECTED = {
    "limits": ["memcpy", "raw read", "raw write"],
    "offload": ["fresh slot files", "reused slots", "syncs", "CPU time"],
    "restore": ["host: throughput", "disk: throughput", "disk: open to first verified block"],
    "layerwise": ["first layer"],
    "scatter": ["host: pieces of 4 KiB", "disk: pieces of 64 KiB"],
    "capi": ["kvstore_match of a block", "kvstore_restore of 4 KiB, beyond its memcpy"],
    "multiprocess": ["1 process: offload", "4 processes: restore from disk", "2 processes: warm match"],
    "compare": ["write: kvstore", "cold read: file per block, fsync", "look-up of all blocks: file per block", "warm read"],
    "remote": [
        "put of", "get of", "send of", "fetch of", "of the plain loop, by run", "CPU time", "look-up of 131072 tokens", "round trips",
        "from the flush until a second machine has", "beside a dead remote, left alone: no answer",
    ],
    "match": ["1000 stored: 1024 tokens, warm", "9000 stored: 131072 tokens, warm", "evicting", "open to the first block"],
}


# Of a letter in parts of the font's size, in a sans-serif font on average.
LETTER = 0.58


def check_fits(picture, workload: str) -> None:
    """Every text lies within the picture."""
    width = float(picture.documentElement.getAttribute("viewBox").split()[2])
    for text in picture.getElementsByTagName("text"):
        at, length = float(text.getAttribute("x")), len(text.firstChild.data) * LETTER * float(text.getAttribute("font-size"))
        start = at - length * {"start": 0, "middle": 0.5, "end": 1}[text.getAttribute("text-anchor")]
        assert start >= 0 and start + length <= width, f"{workload}: {text.firstChild.data!r} from {start:.0f} to {start + length:.0f} of {width:.0f}"


def check(folder: pathlib.Path, workload: str) -> int:
    figures = [json.loads(line) for line in (folder / f"{workload}.json").read_text().splitlines()]
    measures = [figure["params"]["measure"] for figure in figures]
    for part in EXPECTED[workload]:
        assert any(part in measure for measure in measures), f"{workload}: no {part!r} in {measures}"
    for figure in figures:
        assert set(figure) == KEYS, figure
        assert figure["workload"] == workload
        # How long something took is nobody's promise: a short call is over within a tick of the clock, and a file system in
        # memory reads and writes no disk.
        assert math.isfinite(figure["value"]) and figure["value"] >= 0, figure
        if figure["unit"] == "GB/s":
            assert figure["value"] > 0, figure
        if figure["limit"]:
            assert math.isclose(figure["ratio"], figure["value"] / figure["limit"], rel_tol=1e-9), figure
        percentiles = [figure[key] for key in ("p50_seconds", "p90_seconds", "p99_seconds", "p999_seconds")]
        if percentiles[0] is not None:
            assert percentiles == sorted(percentiles), figure
    for figure in figures:
        if "hashes" in figure["params"]["measure"]:
            assert figure["value"] == 0, figure
    if workload == "remote":
        # Chunks of 256 tokens: 512 of them, which are asked for at once.
        rounds = [figure for figure in figures if figure["params"]["measure"].endswith(": round trips")]
        assert [figure["value"] for figure in rounds] == [1, 1], rounds
        late = [f for f in figures if f["params"].get("round_trip_microseconds") == 1000 and "round trips" not in f["params"]["measure"]]
        assert late and all(figure["value"] >= 1e6 for figure in late), late
    picture = (folder / f"{workload}.svg").read_text()
    check_fits(xml.dom.minidom.parseString(picture), workload)
    for figure in figures:
        if figure["unit"] == "GB/s" and figure["limit"]:
            assert f"{workload}: {figure['params']['measure']}" in picture, figure
    return len(figures)


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    # Those that could be run.
    names = [name for name in EXPECTED if name != "remote" or "remote" in sys.argv[2:]]
    counts = {workload: check(folder, workload) for workload in names}
    print(f"bench: {sum(counts.values())} figures of {len(counts)} workloads")


main()
