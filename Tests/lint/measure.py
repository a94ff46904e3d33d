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
import recorded
import sets


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


def check(command, make):
    lines, expected = make()
    found = [f for f in lint(command, lines)["findings"] if f["kind"] != "lowHitRate"]
    last = [f for f in found if f["line"] == len(lines)]
    missed = [e for e in expected if not any(fits(f, e) for f in last)]
    # What is neither what was broken nor a part of it.
    extra = [f for f in found if f["line"] != len(lines) or not any(fits(f, e) for e in expected)]
    return missed, extra, expected, found


def possible(names, seed, place):
    """Some pairs exclude each other: the second breaks what the first took away."""
    try:
        return bool(breakages.broken(names, seed, place)[1])
    except (KeyError, IndexError, ValueError, AssertionError):
        return False


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("command", nargs="+")
    parser.add_argument("--places", type=int, default=20)
    parser.add_argument("--transcripts", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=200, help="of all pairs at all places")
    parser.add_argument("--harmless", type=int, default=1000)
    parser.add_argument("--unseen", type=int, default=5, help="places of each breakage and dialect of the second and the third set")
    parser.add_argument("--every", type=int, default=1, help="one in so many of these")
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--sessions", help="break the conversations of this log (Tests/lint/record) instead of made ones; only alone")
    arguments = parser.parse_args()
    if arguments.sessions:
        breakages.SESSIONS = recorded.conversations(arguments.sessions)
        arguments.transcripts, arguments.pairs, arguments.harmless, arguments.unseen = len(breakages.SESSIONS), 0, 0, 0
        print(f"{len(breakages.SESSIONS)} recorded conversations")

    places = arguments.places
    alone = [(name, (name,), seed, place / places) for name in breakages.BREAKAGES for seed in range(arguments.transcripts) for place in range(places)]
    every = [("in pairs", pair, seed, place / places) for pair in itertools.combinations(breakages.BREAKAGES, 2) for seed in range(arguments.transcripts) for place in range(places)]
    # Spread over kinds, transcripts and places alike.
    count = min(arguments.pairs, len(every))
    pairs = [every[(index * len(every) // count + index * 37) % len(every)] for index in range(count)] if count < len(every) else every
    cases = [(label, (names, seed, place), lambda n=names, s=seed, p=place: breakages.broken(n, s, p)) for label, names, seed, place in alone + pairs if possible(names, seed, place)]
    for unseen in sets.SETS:
        number = 0
        for name, dialect in itertools.product(unseen.breakages, sets.DIALECTS):
            for place in range(arguments.unseen if unseen.applies(name, dialect) else 0):
                number += 1
                if number % arguments.every:
                    continue
                case = (name, dialect, unseen.languages[number % len(unseen.languages)], ((place + 0.5) / arguments.unseen + number % 5 * 0.07) % 1)
                cases.append((f"{unseen.name} set: {dialect}", case, lambda u=unseen, c=case: u.broken(*c)))
    pool = ThreadPoolExecutor(os.cpu_count())
    total, hits, extras = Counter(), Counter(), Counter()
    results = pool.map(lambda case: (case, check(arguments.command, case[2])), cases)
    for (label, case, _), (missed, extra, expected, found) in results:
        total[label] += len(expected)
        hits[label] += len(expected) - len(missed)
        extras[label] += len(extra)
        if arguments.show and (missed or extra):
            shown = [(f["kind"], f["path"], f["start"], f["end"], f.get("now"), f.get("was"), f["line"]) for f in found]
            print(f"{case}: {f'missed {missed}' if missed else 'more than is wrong'}, found {shown}")
    alarms, dialects = Counter(), list(sets.DIALECTS)
    harmless = [(kind, lambda k=kind, n=n: breakages.harmless(k, n)) for n in range(arguments.harmless) for kind in [breakages.HARMLESS[n % len(breakages.HARMLESS)]]]
    for unseen in sets.SETS if arguments.unseen else ():
        for n in range(arguments.harmless):
            kind, dialect = unseen.harmless_kinds[n % len(unseen.harmless_kinds)], dialects[n // 3 % len(dialects)]
            case = (kind, dialect, unseen.languages[n // 5 % len(unseen.languages)], n)
            harmless.append((f"{unseen.name} set: {kind}", lambda u=unseen, c=case: u.harmless(*c)))
    for (kind, _), document in pool.map(lambda case: (case, lint(arguments.command, case[1]())), harmless):
        alarms[kind] += len(document["findings"])
        if arguments.show and document["findings"]:
            print(kind, [(f["kind"], f["path"], f.get("now"), f.get("was"), f["line"], f["tokens_lost"]) for f in document["findings"]][:3])

    print(f"{'breakage':28} {'made':>5} {'found':>6} {'other':>6}")
    for label in total:
        print(f"{label:28} {total[label]:5} {hits[label]:6} {extras[label]:6}")
    good = not sum(alarms.values())
    for title, labels in (("alone", breakages.BREAKAGES), ("in pairs", ["in pairs"]), *((f"in the {u.name} set", [l for l in total if l.startswith(u.name)]) for u in sets.SETS)):
        made, found = sum(total[l] for l in labels), sum(hits[l] for l in labels)
        if made:
            print(f"found with the right kind and place {title}: {found / made:.2%} of {made}")
            good = good and found >= 0.98 * made
    print(f"findings in {len(harmless)} harmless logs: {sum(alarms.values())}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
