"""The linters of PyPI beside `kvstore lint`, over the same labelled breakages and harmless logs: a table.

    PYTHON beside.py COMMAND    with cachelint 0.1.0a2, promptcachelint 0.1.0 and pcdlint 0.3.0 in PYTHON's packages

Each is given the requests in the form that it reads. What counts: that the last request is reported at all, at the right field, and
with a word for what happened. Their words stand for several of our kinds; that is granted. pcdlint reads source code and no requests.
"""

import argparse
import json
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import breakages
import measure
import sets
from cachelint import compare_requests, canonicalize_request
from promptcachelint.analyze import analyze
from promptcachelint.model import Record

TOOLS = {"toolsAdded", "toolsRemoved", "toolsReordered", "toolChanged"}
SETTINGS = {"modelSwitched", "adapterSwitched", "templateSwitched"}


def same_field(path, expected):
    """Whether two paths name one field, or one the part of the other; their numbers and names of fields differ little."""
    plain = lambda text: re.sub(r"\[\"?|\"?\]", ".", text or "").replace("..", ".").strip(".")  # noqa: E731
    a, b = plain(path), plain(expected)
    return bool(a) and (a.startswith(b) or b.startswith(a))


def by_kvstore(command, bodies, expected):
    found = [f for f in measure.lint([command], [json.dumps(b, ensure_ascii=False) for b in bodies])["findings"] if f["kind"] != "lowHitRate"]
    found = [f for f in found if f["line"] == len(bodies)] if expected else found
    return bool(found), any(same_field(f["path"], e[1]) for f in found for e in expected), any(measure.fits(f, e) for f in found for e in expected)


def by_cachelint(_, bodies, expected):
    try:
        requests = [canonicalize_request(b, provider="openai") for b in bodies[-2:]]
        result = compare_requests(requests)
    except Exception:  # noqa: BLE001
        return False, False, False
    first, context = result.first_divergence, {d.category for d in result.context_differences}
    kinds = {k for e in expected for k in e[0]}
    named = bool(kinds & SETTINGS and context) or bool(first and kinds & {"inserted", "toolsAdded"} and first.kind == "inserted") or bool(
        first and kinds & {"deleted", "toolsRemoved"} and first.kind == "removed")
    place = bool(first) and any(same_field(first.path, e[1]) for e in expected) or bool(kinds & SETTINGS and context)
    return bool(first or context), place, named and place


def by_promptcachelint(_, bodies, expected):
    records = [Record(provider="openai", body=b, id=str(n), at=float(n), model=b.get("model"), session_id="s", session_explicit=True) for n, b in enumerate(bodies)]
    try:
        report = analyze(records)
    except Exception:  # noqa: BLE001
        return False, False, False
    requests = [r for s in report.sessions for r in s.requests]
    # What its history says; not what is wrong with each request whether or not anything changed.
    wanted = {"CL001", "CL002", "CL003", "CL004", "CL012"}
    found = [f for r in (requests[-1:] if expected else requests) for f in r.findings if f.code in wanted]
    kinds = {k for e in expected for k in e[0]}
    names = {"CL002": TOOLS, "CL003": SETTINGS, "CL012": {"volatileValue"}}
    place = any(same_field(f.path, e[1]) for f in found for e in expected) or any(f.code == "CL002" and kinds & TOOLS or f.code == "CL003" and kinds & SETTINGS for f in found)
    return bool(found), place, place and any(names.get(f.code, set()) & kinds for f in found)


LINTERS = {"kvstore lint": by_kvstore, "cachelint 0.1.0a2": by_cachelint, "promptcachelint 0.1.0": by_promptcachelint}


def sets(places):
    """(set, kind, bodies, expected): the first set, and the others where they speak OpenAI's chat, which all of them read."""
    for name in breakages.BREAKAGES:
        for n in range(places):
            lines, expected = breakages.broken((name,), n % 5, (n + 0.5) / places)
            yield "first", name, [json.loads(line) for line in lines], expected
    for unseen in sets.SETS:
        for number, name in enumerate(unseen.breakages):
            for n in range(places if unseen.applies(name, "chat") else 0):
                lines, expected = unseen.broken(name, "chat", unseen.languages[(number + n) % len(unseen.languages)], (n + 0.5) / places)
                yield unseen.name, name, [json.loads(line) for line in lines], expected


def quiet(count):
    for n in range(count):
        lines = breakages.harmless(breakages.HARMLESS[n % len(breakages.HARMLESS)], n)
        yield [json.loads(line) for line in lines]
    for unseen in sets.SETS:
        for n in range(count):
            kinds, languages = unseen.harmless_kinds, unseen.languages
            yield [json.loads(line) for line in unseen.harmless(kinds[n % len(kinds)], "chat", languages[n % len(languages)], n)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("command")
    parser.add_argument("--places", type=int, default=4)
    parser.add_argument("--harmless", type=int, default=140)
    arguments = parser.parse_args()
    cases = list(sets(arguments.places))
    logs = list(quiet(arguments.harmless))
    kinds = {k for _, _, _, expected in cases for e in expected for k in e[0][:1]}
    with ThreadPoolExecutor(2) as pool:
        print(f"{'linter':24} {'breakages':>9} {'noticed':>8} {'place':>6} {'kind':>6} {'kinds':>9} {'alarms':>12}")
        for title, judge in LINTERS.items():
            count, found_kinds = Counter(), Counter()
            results = pool.map(lambda case: judge(arguments.command, case[2], case[3]), cases)  # noqa: B023
            for (_, _, _, expected), (noticed, place, kind) in zip(cases, results):
                count["noticed"] += noticed
                count["place"] += place
                count["kind"] += kind
                if kind:
                    found_kinds[expected[0][0][0]] += 1
            alarms = sum(noticed for noticed, _, _ in pool.map(lambda bodies: judge(arguments.command, bodies, []), logs))  # noqa: B023
            print(f"{title:24} {len(cases):9} {count['noticed']:8} {count['place']:6} {count['kind']:6} {len(found_kinds):5}/{len(kinds)} {alarms:6}/{len(logs)}", flush=True)
        print(f"{'pcdlint 0.3.0':24} {len(cases):9} {'reads source code, and no requests':>40}")


main()
