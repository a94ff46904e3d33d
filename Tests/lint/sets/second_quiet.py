"""The second set's logs in which nothing is wrong."""

import copy

from .second_talk import conversation, steps

def fork(run, whole, words):
    cut = run[len(run) // 2]
    other = {**cut, "talk": cut["talk"] + [{"kind": "assistant", "text": words.text(2), "calls": []}, {"kind": "user", "text": words.text(2)}]}
    return run + [other, {**other, "talk": other["talk"] + [{"kind": "assistant", "text": words.text(1), "calls": []}, {"kind": "user", "text": words.text(2)}]}]


def retry(run, whole, words):
    return run[:3] + [run[2], run[2]] + run[3:]


def last_message_edited(run, whole, words):
    """The newest question is asked anew in other words: nothing lies behind it."""
    users = [i for i, r in enumerate(run) if r["talk"][-1]["kind"] == "user"]
    at = users[len(users) // 2]
    again = copy.deepcopy(run[at])
    again["talk"][-1]["text"] = words.text(3)
    return run[: at + 1] + [again]


def regenerated(run, whole, words):
    """The newest answer is thrown away, and the question asked again."""
    return run[:4] + [run[3]] + run[4:6] + [run[5]]


def two_users(run, whole, words):
    other = conversation(words.random.randrange(10**6), words.language, turns=8)
    other["system"], other["tools"] = whole["system"], whole["tools"]
    return [r for pair in zip(run, steps(other)) for r in pair]


def two_agents(run, whole, words):
    other = conversation(words.random.randrange(10**6), words.language, turns=8)
    return [r for pair in zip(run, steps(other)) for r in pair]


def helper(run, whole, words):
    """A main agent that sends a helper off with a system prompt and tools of its own, and goes on."""
    other = conversation(words.random.randrange(10**6), words.language, turns=4)
    other["tools"] = other["tools"][:2]
    return run[:4] + steps(other) + run[4:]


def placeholders(run, whole, words):
    marked = copy.deepcopy(whole)
    for t in marked["talk"]:
        if t["kind"] == "result":
            t["text"] = "[ref#" + str(words.random.randint(1, 99)) + ": " + words.word() + "]"
    return steps(marked)


def placeholder_at_the_tail(run, whole, words):
    last = copy.deepcopy(run[-1])
    at = max(i for i, t in enumerate(last["talk"]) if t["kind"] == "result")
    before = [r for r in run if len(r["talk"]) <= at + 1]
    last["talk"] = last["talk"][: at + 1]
    last["talk"][at]["text"] = "[entfernt]"
    last["talk"] += [{"kind": "assistant", "text": words.sentence(), "calls": []}, {"kind": "user", "text": words.sentence()}]
    return before + [last]


def same_file_read_twice(run, whole, words):
    """A tool that answers the same twice: no attachment of the user's."""
    again = copy.deepcopy(whole)
    results = [t for t in again["talk"] if t["kind"] == "result"]
    results[-1]["text"] = results[1]["text"]
    return steps(again)


def parameters(run, whole, words):
    return [{**r, "more": {"temperature": n / 10, "top_p": 1 - n / 100, "max_tokens": 100 + n, "seed": n, "stream": n % 2 == 0, "user": f"u-{n}", "metadata": {"trace": words.hexa(16)}, "tool_choice": "auto" if n % 3 else "none"}} for n, r in enumerate(run)]


def many_tasks(run, whole, words):
    """One system prompt, many first questions."""
    return [{**run[0], "talk": [{"kind": "user", "text": words.text(3)}]} for _ in range(8)]


def similar_tasks(run, whole, words):
    """One system prompt, and questions that differ by a name: a batch over a list."""
    frame = words.text(3)
    return [{**run[0], "talk": [{"kind": "user", "text": f"{frame} {words.word()} {words.word()}: {words.sentence()}"}]} for _ in range(8)]


HARMLESS = {f.__name__.replace("_", " "): f for f in (
    fork, retry, last_message_edited, regenerated, two_users, two_agents, helper, placeholders, placeholder_at_the_tail, same_file_read_twice,
    parameters, many_tasks, similar_tasks)}
HARMLESS["append"] = lambda run, whole, words: run
