"""Runs `kvstore lint` over logs with labelled breakages, and counts what it finds with the right kind and place."""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import breakages


def lint(command, lines, *options):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        output = subprocess.run([*command, "lint", file.name, "--json", *options], capture_output=True, text=True)
    if output.returncode != 0:
        raise SystemExit(f"kvstore lint: status {output.returncode}: {output.stderr}")
    return json.loads(output.stdout)


def fits(finding, expected):
    """Whether a finding has one of the kinds and is at the place."""
    kinds, path, start, end = expected
    if finding["kind"] not in kinds:
        return False
    if not (finding["path"].startswith(path) or path.startswith(finding["path"]) and finding["path"]):
        return False
    # An empty stretch, where something is gone, overlaps with what it touches.
    return start is None or finding["start"] <= end and finding["end"] >= start


def check(command, names, seed, place):
    lines, expected = breakages.broken(names, seed, place)
    found = [f for f in lint(command, lines)["findings"] if f["kind"] != "lowHitRate"]
    last = [f for f in found if f["line"] == len(lines)]
    missed = [e for e in expected if not any(fits(f, e) for f in last)]
    # What is neither what was broken nor a part of it.
    extra = [f for f in found if f["line"] != len(lines) or not any(fits(f, e) for e in expected)]
    return missed, extra, expected, found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("command", nargs="+")
    parser.add_argument("--places", type=int, default=20)
    parser.add_argument("--transcripts", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--harmless", type=int, default=1000)
    parser.add_argument("--show", action="store_true")
    arguments = parser.parse_args()

    cases = [((name,), seed, place / arguments.places) for name in breakages.BREAKAGES for seed in range(arguments.transcripts) for place in range(arguments.places)]
    pairs = [(pair, index % 5, (index * 7 % 20) / 20) for index, pair in enumerate(itertools.combinations(breakages.BREAKAGES, 2))]
    step = max(1, len(pairs) // arguments.pairs)
    pairs = pairs[::step] if arguments.pairs else []
    pool = ThreadPoolExecutor(os.cpu_count())
    total, hits, extras = Counter(), Counter(), Counter()
    for title, work in (("alone", cases), ("pair", pairs)):
        results = pool.map(lambda case: (case, check(arguments.command, *case)), work)
        for (names, seed, place), (missed, extra, expected, found) in results:
            label = names[0] if title == "alone" else "in pairs"
            total[label] += len(expected)
            hits[label] += len(expected) - len(missed)
            extras[label] += len(extra)
            if arguments.show and (missed or extra):
                shown = [(f["kind"], f["path"], f["start"], f["end"], f.get("now"), f.get("was"), f["line"]) for f in found]
                print(f"{names} transcript {seed} place {place}: wanted {missed or expected}, found {shown}")
    alarms = Counter()
    harmless = [(breakages.HARMLESS[index % len(breakages.HARMLESS)], index) for index in range(arguments.harmless)]
    for (kind, seed), document in pool.map(lambda case: (case, lint(arguments.command, breakages.harmless(*case))), harmless):
        alarms[kind] += len(document["findings"])
        if arguments.show and document["findings"]:
            print(kind, seed, [(f["kind"], f["path"], f["now"] if "now" in f else "", f.get("was"), f["line"], f["tokens_lost"]) for f in document["findings"]][:3])

    print(f"{'breakage':28} {'made':>5} {'found':>6} {'other':>6}")
    for label in total:
        print(f"{label:28} {total[label]:5} {hits[label]:6} {extras[label]:6}")
    alone = sum(hits[l] for l in total if l != "in pairs") / max(1, sum(total[l] for l in total if l != "in pairs"))
    print(f"found with the right kind and place: {alone:.2%} alone, {hits['in pairs'] / max(1, total['in pairs']):.2%} in pairs")
    print(f"findings in {arguments.harmless} harmless logs: {sum(alarms.values())}")
    good = alone >= 0.98 and hits["in pairs"] >= 0.98 * total["in pairs"] and not sum(alarms.values())
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
