"""The third set's logs in which nothing is wrong."""

import copy

from .third_talk import conversation, steps

def compared(run, whole, v):
    """Each request goes to two models, side by side."""
    return [{**r, "model": m} for r in run for m in ("orchard-13b", "orchard-70b")]


def titles(run, whole, v):
    """A small helper asks for a title after each answer: other rules, no tools."""
    made = []
    for n, r in enumerate(run):
        made.append(r)
        if n % 3 == 0:
            made.append({**r, "model": "orchard-1b", "system": "Write a title of three words. " + v.language, "tools": [], "talk": [{"kind": "user", "text": r["talk"][-1]["text"][:300]}]})
    return made


def fork_of_old(run, whole, v):
    made = list(run)
    for at in (2, 5, 3):
        cut = run[at]
        made.append({**cut, "talk": cut["talk"] + [{"kind": "assistant", "text": v.text(2), "reasoning": "", "calls": []}, {"kind": "user", "text": v.text(2)}]})
    return made


def retries(run, whole, v):
    return [r for n, r in enumerate(run) for _ in range(1 + (n % 4 == 1))]


def abandoned(run, whole, v):
    """The newest question is asked again in other words, twice."""
    at = next(i for i, r in enumerate(run) if i > 3 and r["talk"][-1]["kind"] == "user")
    again = []
    for _ in range(2):
        r = copy.deepcopy(run[at])
        r["talk"][-1]["text"] = v.text(2)
        again.append(r)
    return run[: at + 1] + again


def swarm(run, whole, v):
    """Four agents with one front, each with its own task, in turns."""
    others = []
    for n in range(3):
        o = conversation(v.random.randrange(10**6), v.language, rounds=7)
        o["system"], o["tools"] = whole["system"], whole["tools"]
        others.append(steps(o))
    return [r for four in zip(run, *others) for r in four]


def other_rules(run, whole, v):
    o = conversation(v.random.randrange(10**6), v.language, rounds=7)
    return run[:5] + steps(o)[:5] + run[5:]


def placeholders(run, whole, v):
    marked = copy.deepcopy(whole)
    for t in marked["talk"]:
        if t["kind"] == "result":
            t["text"] = f"<stored id=\"{v.random.randint(1, 99)}\"/>"
    return steps(marked)


def batch(run, whole, v):
    front = v.text(4)
    return [{**run[0], "talk": [{"kind": "user", "text": f"{front}\n\n{v.words(1, 1)[0]}: {v.text(1)}"}]} for _ in range(8)]


def tool_answers_alike(run, whole, v):
    again = copy.deepcopy(whole)
    for t in again["talk"]:
        if t["kind"] == "result" and v.random.random() < 0.5:
            t["text"] = "ok"
    return steps(again)


def growing_sampling(run, whole, v):
    return [{**r, "more": {"seed": n, "top_k": n + 1, "stream": n % 2 == 0, "session_id": v.hexa(16), "presence_penalty": n / 10}} for n, r in enumerate(run)]


HARMLESS = {f.__name__.replace("_", " "): f for f in (compared, titles, fork_of_old, retries, abandoned, swarm, other_rules, placeholders, batch, tool_answers_alike, growing_sampling)}
HARMLESS["append"] = lambda run, whole, v: run
