"""The ten everyday actions that break a prefix, or do not, as logs: what people do, and what every tool of ours calls it.

Each is a list of requests, one after the other, with a time; `kind` is what `kvstore lint` reports of the last, None where nothing is lost, and
`cause` the name that `kvstore inspect why-miss`, sessions and the server's companion have for it.
"""

import copy
import json

import breakages


def conversation(seed=11, turns=8):
    return breakages.transcript(seed, turns=turns)


def continued(request, *texts):
    """A request that goes on: an answer, and the next message of the user."""
    return {**request, "messages": request["messages"] + [{"role": "assistant", "content": "Done."}] + [{"role": "user", "content": text} for text in texts]}


def changed(change, request=None):
    """A request, and the next one of the same conversation, in which `change` was done to what had been sent."""
    first = request or conversation()
    later = copy.deepcopy(first)
    change(later)
    return [first, continued(later, "Go on.")]


def edit_message():
    def change(request):
        words = request["messages"][1]["content"].split(" ")
        words[3:6] = ["quite", "another", "thing"]
        request["messages"][1]["content"] = " ".join(words)
    return changed(change)


def switch_threads():
    first = conversation()
    return [first, {**first, "messages": [first["messages"][0], {"role": "user", "content": "A related task: write down what you know of the tests."}]}]


def switch_models():
    return changed(lambda request: request.update(model="local-70b"))


def time_in_system_prompt():
    """Twice, since one change of a few tokens may as well be an edit: only text says that it is a time."""
    run = [conversation()]
    run[0]["messages"][0]["content"] = "It is 2026-11-29 21:47. " + run[0]["messages"][0]["content"]
    for minute in (48, 49):
        later = copy.deepcopy(run[-1])
        later["messages"][0]["content"] = later["messages"][0]["content"].replace(f"21:{minute - 1}", f"21:{minute}")
        run.append(continued(later, "Go on."))
    return run


def delete_tool_output():
    def change(request):
        next(m for m in request["messages"] if m["role"] == "tool")["content"] = "[removed]"
    return changed(change)


def edit_rules():
    first = conversation()
    other = copy.deepcopy(first)
    lines = other["messages"][0]["content"].split("\n")
    rule = next(i for i, line in enumerate(lines) if line.startswith("- "))
    lines[rule] = "- Never touch the files of the release."
    other["messages"] = [{"role": "system", "content": "\n".join(lines)}, {"role": "user", "content": "Another session: look at the queue."}]
    return [first, other]


def reorder_skills():
    first = conversation()
    other = copy.deepcopy(first)
    parts = other["messages"][0]["content"].split("\n\n")
    at = next(i for i, part in enumerate(parts) if part.startswith("## Skill"))
    parts[at], parts[at + 1] = parts[at + 1], parts[at]
    other["messages"] = [{"role": "system", "content": "\n\n".join(parts)}, {"role": "user", "content": "Another session: look at the queue."}]
    return [first, other]


def attach_again():
    file = "```\n" + breakages.Texts(5).lines(24) + "\n```"
    first = conversation()
    first["messages"].append({"role": "user", "content": "Here is the file.\n" + file})
    return [first, continued(first, "Look at the file once more.\n" + file)]


def reopen_after_days():
    first = conversation()
    return [first, continued(first, "Where were we?")]


def json_keys():
    """In a result; of arguments a server's template may make one form of all."""
    texts = breakages.Texts(8)
    first = conversation()
    result = next(m for m in first["messages"] if m["role"] == "tool")
    table = {"files": [texts.sentence() for _ in range(5)], "matches": [texts.sentence() for _ in range(5)]}
    result["content"] = json.dumps(table)
    def change(request):
        request["messages"][3]["content"] = json.dumps(dict(reversed(table.items())))
    return changed(change, first)


# name: (requests, kind, cause, path, seconds between the two)
ACTIONS = {
    "edit message": (edit_message, "edited", "edited", "messages[1].content", 30),
    "switch threads for a related task": (switch_threads, None, "forked", None, 30),
    "switch models in mid-conversation": (switch_models, "modelSwitched", "otherNamespace", "model", 30),
    "time in the system prompt": (time_in_system_prompt, "volatileValue", "volatileValue", "messages[0].content", 30),
    "agent deletes tool output in mid-loop": (delete_tool_output, "toolResultRemoved", "edited", "messages[3].content", 30),
    "rule file edited between sessions": (edit_rules, "edited", "edited", "messages[0].content", 30),
    "skills loaded in another order": (reorder_skills, "reordered", "reordered", "messages[0].content", 30),
    "same file attached again": (attach_again, "attachedAgain", "elsewhere", "messages[20].content", 30),
    "old thread reopened after days": (reopen_after_days, "resumedAfterPause", "expired", "", 3 * 86400),
    "JSON keys serialised inconsistently": (json_keys, "keyOrder", "reordered", "messages[3].content", 30),
}


def log(name):
    make, _, _, _, pause = ACTIONS[name]
    return [json.dumps({"time": 1_795_600_000 + step * pause, "request": request}) for step, request in enumerate(make())]
