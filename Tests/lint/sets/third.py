"""The third set's breakages, made like those of the second."""

import copy
import json

from .common import pick, rise, two
from .third_talk import parameters

def value(make, frame="{}"):
    def breakage(e, l, place, v):
        old, new = make(v)
        lead, tail = frame.split("{}")
        if int(place * 10) % 3 == 2:
            i = pick(e, ("user",), place)
            text, key = e["talk"][i]["text"], (i, "text")
        else:
            text, key = e["system"], ("system",)
        cuts = [k + 1 for k, ch in enumerate(text) if ch == "\n" or ch == " " and text[k - 1] in ".!।"]
        at = cuts[min(len(cuts) - 1, int(place * len(cuts)))]
        for c, x in ((e, old), (l, new)):
            whole = text[:at] + lead + x + tail + ("\n" if frame.endswith("\n") else " ") + text[at:]
            if key == ("system",):
                c["system"] = whole
            else:
                c["talk"][i] = {**c["talk"][i], "text": whole}
        return [(("volatileValue",), key, at + len(lead), at + len(lead) + len(new))]
    return breakage


def minute(form):
    def make(v):
        d, h, m, s = v.random.randint(10, 27), v.random.randint(1, 11), v.random.randint(10, 50), v.random.randint(10, 59)
        return form.format(d=d, h=h, m=m, s=s), form.format(d=d, h=h, m=m + v.random.randint(1, 8), s=v.random.randint(10, 59))
    return make


VALUES = {
    "build": rise("v2.14.3-rc1+build.{}", 1000, 9000, 50),
    "git describe": two(lambda v: f"v1.9-{v.random.randint(2, 99)}-g{v.hexa(7)}"),
    "ISO week": rise("2026-W{}", 10, 40, 3),
    "epoch with fraction": two(lambda v: f"1795{v.digits(6)}.{v.digits(3)}"),
    "Korean time": minute("2026년 11월 {d}일 오후 {h}시 {m}분"),
    "Hindi date": rise("{} नवंबर 2026", 10, 25, 3),
    "Turkish date": rise("{} Kasım 2026", 10, 25, 3),
    "Arabic digits": minute("٢٠٢٦-١١-{d} {h}:{m}"),
    "US date": rise("11/{}/2026", 10, 25, 3),
    "time with zone": minute("{h}:{m} AM CET"),
    "elapsed": minute("T+00:{m}:{s}"),
    "ago": rise("opened {} minutes ago", 3, 50, 8),
    "temperature": rise("{}°C", 2, 30, 6),
    "battery": rise("Battery: {}%", 10, 90, 7),
    "memory": two(lambda v: f"{v.random.randint(1, 31)}.{v.random.randint(0, 9)} GiB free"),
    "load": two(lambda v: f"load average: {v.random.randint(0, 3)}.{v.digits(2)}, {v.random.randint(0, 3)}.{v.digits(2)}"),
    "unread": rise("{} unread", 2, 90, 9),
    "coordinates": two(lambda v: f"48.{v.digits(5)},11.{v.digits(5)}"),
    "JWT": two(lambda v: f"eyJhbGciOiJIUzI1NiJ9.{v.mixed(40)}.{v.mixed(43)}"),
    "etag": two(lambda v: f"W/\"{v.hexa(10)}-{v.hexa(5)}\""),
    "container": two(lambda v: v.hexa(12)),
    "ARN": two(lambda v: f"arn:aws:ecs:eu-west-1:123456789012:task/main/{v.hexa(32)}"),
    "slack": two(lambda v: f"1795{v.digits(6)}.{v.digits(6)}"),
    "ticket": rise("Session #{}", 10_000, 90_000, 400),
    "uuid without dashes": two(lambda v: v.hexa(32)),
    "urn": two(lambda v: f"urn:uuid:{v.hexa(8)}-{v.hexa(4)}-4{v.hexa(3)}-a{v.hexa(3)}-{v.hexa(12)}"),
    "job file": two(lambda v: f"/var/spool/jobs/{v.hexa(6)}.tmp"),
    "worktree": two(lambda v: f"/Users/kim/wt-{v.random.randint(100, 999)}/app"),
    "runner": two(lambda v: f"runner-{v.mixed(8).lower()}-project-77-concurrent-{v.random.randint(0, 9)}"),
    "nonce": two(lambda v: f"nonce={v.mixed(16)}"),
    "version of a page": rise("?v={}", 10**9, 2 * 10**9, 10**6),
    "budget": two(lambda v: f"{v.random.randint(1, 99)}.{v.digits(2)} € left"),
    "tokens left": rise("<budget:token_budget>{}</budget:token_budget>", 10_000, 99_000, 900),
    "weekday in Spanish": lambda v: v.random.choice([("lunes", "martes"), ("jueves", "viernes")]),
    "weekday in Korean": lambda v: v.random.choice([("월요일", "화요일"), ("목요일", "금요일")]),
    "dice": two(lambda v: f"seed: {v.random.randint(1, 10**6)}"),
}


def reverse(x):
    return {k: reverse(y) for k, y in reversed(list(x.items()))} if isinstance(x, dict) else [reverse(y) for y in x] if isinstance(x, list) else x


def settings_keys(e, l, place, v):
    """JSON inside of the system prompt."""
    text = l["system"]
    start, end = text.index("{"), text.rindex("}") + 1
    l["system"] = text[:start] + json.dumps(reverse(json.loads(text[start:end])), ensure_ascii=False) + text[end:]
    return [(("keyOrder",), ("system",), start, end)]


def settings_compact(e, l, place, v):
    text = l["system"]
    start, end = text.index("{"), text.rindex("}") + 1
    l["system"] = text[:start] + json.dumps(json.loads(text[start:end]), ensure_ascii=False, indent=2 if place < 0.5 else None, separators=None if place < 0.5 else (",", ":")) + text[end:]
    return [(("whiteSpace",), ("system",), start, end)]


def settings_numbers(e, l, place, v):
    l["system"] = l["system"].replace("0.75", "7.5e-1" if place < 0.5 else "0.750")
    start = l["system"].index("0.750" if place >= 0.5 else "7.5e-1")
    return [(("numberFormat",), ("system",), start - 4, start + 8)]


def in_system(change, kind):
    def breakage(e, l, place, v):
        text = l["system"]
        l["system"] = change(text, place)
        assert l["system"] != text
        return [((kind,) if isinstance(kind, str) else kind, ("system",), None, None)]
    return breakage


def nth(text, what, place):
    at = [i for i in range(len(text)) if text.startswith(what, i)]
    return at[min(len(at) - 1, int(place * len(at)))]


def one_replaced(what, by):
    def change(text, place):
        at = nth(text, what, place)
        return text[:at] + by + text[at + len(what):]
    return change


def in_message(change, kind, roles=("user", "assistant")):
    def breakage(e, l, place, v):
        i = pick(e, roles, place)
        text = change(e, l, i, place, v)
        if text is not None:
            l["talk"][i]["text"] = text
        assert l["talk"][i] != e["talk"][i]
        return [((kind,) if isinstance(kind, str) else kind, (i, "text"), None, None)]
    return breakage


def ligatures(e, l, i, place, v):
    base = e["talk"][i]["text"]
    cut = base.index(" ") + 1
    e["talk"][i]["text"] = base[:cut] + "the ﬁle oﬃce №5 " + base[cut:]
    return base[:cut] + "the file office No5 " + base[cut:]


def quotes(e, l, i, place, v):
    base = e["talk"][i]["text"]
    cut = base.index(" ") + 1
    e["talk"][i]["text"] = base[:cut] + "it's \"the plan\" - " + base[cut:]
    return base[:cut] + "it’s “the plan” – " + base[cut:]


def args_keys(e, l, place, v):
    i = with_call(e, place)
    l["talk"][i]["calls"][0]["args"] = reverse(l["talk"][i]["calls"][0]["args"])
    return [(("keyOrder",), (i, "args", 0), None, None)]


def args_changed(e, l, place, v):
    i = with_call(e, place)
    l["talk"][i]["calls"][0]["args"]["mode"] = "fast, and not deep"
    return [(("edited",), (i, "args", 0), None, None)]


def with_call(c, place):
    found = [i for i, t in enumerate(c["talk"][:-1]) if t.get("calls")]
    return found[min(len(found) - 1, int(place * len(found)))]


def call_id(e, l, place, v):
    i = with_call(e, place)
    old = l["talk"][i]["calls"][0]["id"]
    new = "tc-" + v.mixed(10)
    for t in l["talk"]:
        if t.get("id") == old:
            t["id"] = new
        for k in t.get("calls") or ():
            if k["id"] == old:
                k["id"] = new
    return [(("volatileValue",), (i, "id", 0), None, None)]


def tools_sorted(e, l, place, v):
    l["tools"].sort(key=lambda t: t["name"], reverse=place < 0.5)
    assert l["tools"] != e["tools"]
    return [(("toolsReordered",), ("tools",), None, None)]


def tools_gone(e, l, place, v):
    l["tools"] = []
    return [(("toolsRemoved",), ("tools",), None, None)]


def tools_first(e, l, place, v):
    e["tools"] = []
    return [(("toolsAdded",), ("tools",), None, None)]


def tool_server(e, l, place, v):
    """Three tools of a server that was connected in the meantime."""
    at = 0 if place < 0.5 else len(l["tools"])
    l["tools"][at:at] = [{"name": f"mcp__jira__{n}", "text": v.text(2), "schema": parameters(v)} for n in ("find", "comment", "close")]
    return [(("toolsAdded",), ("tools",), None, None)]


def tool_renamed(e, l, place, v):
    n = int(place * len(l["tools"]))
    l["tools"][n]["name"] = "please_" + l["tools"][n]["name"]
    return [(("toolChanged", "toolsAdded", "toolsRemoved"), ("tools",), None, None)]


def tool_words(e, l, place, v):
    n = int(place * len(l["tools"]))
    l["tools"][n]["text"] += " " + v.sentence()
    return [(("toolChanged",), ("tool", n), None, None)]


def enum_grows(e, l, place, v):
    n = int(place * len(l["tools"]))
    l["tools"][n]["schema"]["properties"]["mode"]["enum"].append("wide")
    return [(("toolChanged",), ("tool", n), None, None)]


def schema_order(e, l, place, v):
    n = int(place * len(l["tools"]))
    s = l["tools"][n]["schema"]
    s["properties"] = dict(sorted(s["properties"].items(), reverse=place < 0.5))
    if list(s["properties"]) == list(e["tools"][n]["schema"]["properties"]):
        s["properties"] = dict(reversed(list(s["properties"].items())))
    return [(("keyOrder",), ("tool", n), None, None)]


def guides_moved(e, l, place, v):
    parts = l["system"].split("\n\n")
    at = [i for i, p in enumerate(parts) if p.startswith("### ")]
    a = at[int(place * 3)]
    parts[a], parts[a + 1] = parts[a + 1], parts[a]
    l["system"] = "\n\n".join(parts)
    return [(("reordered",), ("system",), None, None)]


def memory_shuffled(e, l, place, v):
    lines = l["system"].split("\n")
    at = [i for i, x in enumerate(lines) if x.startswith("* ")]
    old = [lines[i] for i in at]
    new = old[1:] + old[:1] if place < 0.5 else old[::-1]
    for i, x in zip(at, new):
        lines[i] = x
    l["system"] = "\n".join(lines)
    return [(("reordered",), ("system",), None, None)]


def memory_grows(e, l, place, v):
    lines = l["system"].split("\n")
    at = [i for i, x in enumerate(lines) if x.startswith("* ")]
    where = at[int(place * 5)]
    lines.insert(where, "* " + v.sentence(6, 9))
    l["system"] = "\n".join(lines)
    start = len("\n".join(lines[:where]))
    return [(("edited", "inserted"), ("system",), start, start + len(lines[where]) + 1)]


def guide_rewritten(e, l, place, v):
    parts = l["system"].split("\n\n")
    at = [i for i, p in enumerate(parts) if p.startswith("### ")][int(place * 4)]
    head = parts[at].split("\n")[0]
    parts[at] = head + "\n" + v.text(3)
    l["system"] = "\n\n".join(parts)
    start = len("\n\n".join(parts[:at]))
    return [(("edited",), ("system",), start, start + len(parts[at]) + 4)]


def guide_dropped(e, l, place, v):
    parts = l["system"].split("\n\n")
    at = [i for i, p in enumerate(parts) if p.startswith("### ")][int(place * 4)]
    del parts[at]
    l["system"] = "\n\n".join(parts)
    return [(("edited", "deleted"), ("system",), None, None)]


def oldest_gone(e, l, place, v):
    """A window of so many messages: the first rounds are no longer sent, the task stays."""
    end = 3 + 2 * int(place * 2)
    end = min(end, len(e["talk"]) - 4)
    while l["talk"][end]["kind"] == "result":
        end += 1
    del l["talk"][1:end]
    return [(("deleted", "toolResultRemoved"), (1,), None, None)]


def window_moves(e, l, place, v):
    """The same, the first message included."""
    end = 2
    while l["talk"][end]["kind"] == "result" or end < 3:
        end += 1
    del l["talk"][:end]
    return [(("deleted", "toolResultRemoved"), (0,), None, None)]


def users_swapped(e, l, place, v):
    users = [i for i, t in enumerate(e["talk"][:-1]) if t["kind"] == "user"]
    if len(users) < 2:
        raise IndexError
    n = min(len(users) - 2, int(place * (len(users) - 1)))
    a, b = users[n], users[n + 1]
    l["talk"][a], l["talk"][b] = l["talk"][b], l["talk"][a]
    return [(("reordered", "edited"), (a,), None, None)]


def think_tags(e, l, place, v):
    """Reasoning in the text of the answer, taken out when the next request is made."""
    i = pick(e, ("assistant",), place)
    for c in (e, l):
        c["talk"][i].pop("reasoning", None)
    thought = v.text(3)
    e["talk"][i]["text"] = f"<think>\n{thought}\n</think>\n\n" + e["talk"][i]["text"]
    return [(("reasoningDropped",), (i, "text"), None, None)]


def reasoning_field(e, l, place, v):
    found = [i for i, t in enumerate(e["talk"][:-1]) if t.get("reasoning")]
    i = found[min(len(found) - 1, int(place * len(found)))]
    del l["talk"][i]["reasoning"]
    return [(("reasoningDropped",), (i,), None, None)]


def stripped(e, l, i, place, v):
    e["talk"][i]["text"] += "\n"
    l["talk"][i]["text"] = e["talk"][i]["text"].rstrip()


def head_cut(e, l, place, v):
    """Of a long output only the end is kept."""
    i = pick(e, ("result",), place)
    text = e["talk"][i]["text"]
    l["talk"][i]["text"] = "[... 88 lines ...]\n" + text[int(len(text) * 0.6):]
    return [(("truncated", "edited", "deleted"), (i, "text"), 0, 60)]


def tail_cut(e, l, place, v):
    i = pick(e, ("result", "user"), place)
    text = e["talk"][i]["text"]
    keep = int(len(text) * (0.4 + 0.3 * place))
    mark = v.random.choice(["\n<response clipped>", " (…)", "\n--- tronqué ---", ""])
    l["talk"][i]["text"] = text[:keep] + mark
    return [(("truncated",), (i, "text"), keep - 16, keep + 25)]


def cleared(mark):
    def breakage(e, l, place, v):
        i = pick(e, ("result",), place)
        l["talk"][i]["text"] = mark
        return [(("toolResultRemoved",), (i, "text"), None, None)]
    return breakage


def spilled(e, l, place, v):
    """A result is written to a file, and its place names it."""
    i = pick(e, ("result",), place)
    l["talk"][i]["text"] = f"Output too large; saved to /tmp/out/{v.hexa(8)}.txt (14 KB)."
    return [(("toolResultRemoved",), (i, "text"), None, None)]


def result_summed_up(e, l, place, v):
    i = pick(e, ("result",), place)
    l["talk"][i]["text"] = v.text(1)
    return [(("toolResultRemoved", "edited", "compacted"), (i, "text"), None, None)]


def compacted(e, l, place, v):
    """All but the newest are replaced by a summary."""
    end = len(e["talk"]) - 3
    while l["talk"][end]["kind"] == "result" or end < 3:
        end += 1
    first = 0 if place < 0.5 else 1
    l["talk"][first:end] = [{"kind": "user", "text": "<summary>\n" + v.text(3) + "\n</summary>"}]
    return [(("compacted",), (first,), None, None)]


def word(e, l, i, place, v):
    words = e["talk"][i]["text"].split(" ")
    at = min(len(words) - 1, int(place * len(words)))
    words[at] = "SOMETHING-ELSE"
    return " ".join(words)


def code_line(e, l, place, v):
    """One line of the attached code is another one."""
    lines = e["talk"][0]["text"].split("\n")
    at = [i for i, x in enumerate(lines) if x.startswith("    return")][int(place * 3)]
    lines[at] = "    return sorted(set(everything), key=len)"
    l["talk"][0]["text"] = "\n".join(lines)
    start = len("\n".join(lines[:at]))
    return [(("edited",), (0, "text"), start, start + len(lines[at]) + 2)]


def appended_to_old(e, l, i, place, v):
    return e["talk"][i]["text"] + " " + v.text(2)


def inserted(e, l, place, v):
    i = pick(e, ("user", "assistant"), place, low=1)
    l["talk"].insert(i, {"kind": "user", "text": v.text(3)})
    return [(("inserted",), (i,), None, None)]


def answer_deleted(e, l, place, v):
    found = [i for i, t in enumerate(e["talk"][:-1]) if t["kind"] == "assistant" and not t["calls"]]
    if not found:
        raise IndexError
    i = found[min(len(found) - 1, int(place * len(found)))]
    del l["talk"][i]
    return [(("deleted",), (i,), None, None)]


def code_again(e, l, place, v):
    """The file of the first message once more, with the newest one."""
    file = e["talk"][0]["text"].split("\n\n", 1)[1]
    l["talk"].append({"kind": "assistant", "text": v.sentence(), "reasoning": "", "calls": []})
    l["talk"].append({"kind": "user", "text": v.sentence() + "\n\n" + file})
    return [(("attachedAgain",), (len(l["talk"]) - 1, "text"), None, None)]


def code_wanders(e, l, place, v):
    text, file = e["talk"][0]["text"].split("\n\n", 1)
    l["talk"][0]["text"] = text
    l["talk"].append({"kind": "assistant", "text": v.sentence(), "reasoning": "", "calls": []})
    l["talk"].append({"kind": "user", "text": v.sentence() + "\n\n" + file})
    return [(("attachedAgain",), (0, "text"), None, None)]


def own_reminder(e, l, place, v):
    """A note as a message of its own, always the last but one."""
    note = {"kind": "user", "text": "[context]\n" + v.text(2)}
    l_last = l["talk"].pop()
    e["talk"].insert(len(e["talk"]) - 1, copy.deepcopy(note))
    at = len(e["talk"]) - 2
    l["talk"] += [note, l_last]
    if l_last["kind"] == "result":
        l["talk"][-2], l["talk"][-3] = l["talk"][-3], l["talk"][-2]
    return [(("reminderMoved",), (at,), None, None)]


def todo_moves(e, l, place, v):
    note = "\n\n---\nOpen tasks:\n" + "\n".join("- [ ] " + v.sentence(3, 6) for _ in range(4))
    i = pick(e, ("user",), place)
    e["talk"][i]["text"] += note
    l["talk"].append({"kind": "assistant", "text": v.sentence(), "reasoning": "", "calls": []})
    l["talk"].append({"kind": "user", "text": v.sentence() + note})
    return [(("reminderMoved",), (i, "text"), None, None)]


def model(e, l, place, v):
    l["model"] = "orchard-1b-instruct"
    return [(("modelSwitched",), ("model",), None, None)]


BREAKAGES = {
    **{f"value: {name}": value(make) for name, make in VALUES.items()},
    "value in a heading": value(minute("{h}:{m}"), "## Now ({})\n"),
    "value in an attribute": value(two(lambda v: v.hexa(10)), "<env run=\"{}\">"),
    "keys of JSON in the system prompt": settings_keys,
    "blanks of JSON in the system prompt": settings_compact,
    "numbers of JSON in the system prompt": settings_numbers,
    "CRLF": in_system(lambda t, p: t.replace("\n", "\r\n"), "whiteSpace"),
    "no-break space": in_system(one_replaced(" ", "\u00a0"), "whiteSpace"),
    "tab": in_system(one_replaced("\n", "\n\t"), "whiteSpace"),
    "byte order mark": in_system(lambda t, p: "\ufeff" + t, ("whiteSpace", "unicodeForm")),
    "ligatures": in_message(ligatures, ("unicodeForm", "edited")),
    "curly quotes": in_message(quotes, ("unicodeForm", "edited")),
    "answer stripped": in_message(stripped, "whiteSpace", ("assistant",)),
    "keys of arguments": args_keys,
    "arguments changed": args_changed,
    "id of a call": call_id,
    "tools sorted": tools_sorted,
    "tools gone": tools_gone,
    "tools from now on": tools_first,
    "tool server": tool_server,
    "tool renamed": tool_renamed,
    "tool words": tool_words,
    "enum grows": enum_grows,
    "schema order": schema_order,
    "guides moved": guides_moved,
    "memory shuffled": memory_shuffled,
    "memory grows": memory_grows,
    "guide rewritten": guide_rewritten,
    "guide dropped": guide_dropped,
    "oldest gone": oldest_gone,
    "window moves": window_moves,
    "users swapped": users_swapped,
    "think tags": think_tags,
    "reasoning field": reasoning_field,
    "head cut": head_cut,
    "tail cut": tail_cut,
    "cleared, French": cleared("[contenu supprimé]"),
    "cleared, Korean": cleared("(결과 생략)"),
    "cleared, tag": cleared("<elided/>"),
    "cleared, dots": cleared("..."),
    "spilled": spilled,
    "result summed up": result_summed_up,
    "compacted": compacted,
    "word": in_message(word, "edited"),
    "code line": code_line,
    "appended to an old message": in_message(appended_to_old, ("edited", "inserted"), ("user",)),
    "inserted": inserted,
    "answer deleted": answer_deleted,
    "code again": code_again,
    "code wanders": code_wanders,
    "own reminder": own_reminder,
    "todo moves": todo_moves,
    "model": model,
}
STRUCTURED = {"id of a call", "tools sorted", "tools gone", "tools from now on", "tool server", "tool renamed", "tool words", "enum grows", "schema order", "reasoning field"}
RAW_CALLS = set()
IDS, REASONING, MODEL, SETTINGS = {"id of a call"}, {"reasoning field"}, {"model"}, set()
