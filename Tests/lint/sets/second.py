"""The second set's breakages, made without a look at how they are found: (kinds, element, start, end), on (earlier, later)."""

import json

from .common import pick, rise, two
from .second_talk import schema

def insert_value(make, frame="{}"):
    def breakage(e, l, place, words):
        old, new = make(words)
        where = int(place * 4) % 4
        text = e["system"]
        if where == 3:
            i = pick(e, ("user",), place)
            text = e["talk"][i]["text"]
        cuts = [k for k, ch in enumerate(text) if ch in " \n。"] or [0]
        at = 0 if where == 0 else cuts[min(len(cuts) - 1, int(place * len(cuts)))] + 1
        before, after = frame.split("{}")

        def put(value):
            return text[:at] + before + value + after + " " + text[at:]
        span = (at + len(before), at + len(before) + len(new))
        if where == 3:
            e["talk"][i] = {**e["talk"][i], "text": put(old)}
            l["talk"][i] = {**l["talk"][i], "text": put(new)}
            return [(("volatileValue",), (i, "text"), *span)]
        e["system"], l["system"] = put(old), put(new)
        return [(("volatileValue",), ("system",), *span)]
    return breakage


def clock(form):
    def make(words):
        r = words.random
        v = dict(d=r.randint(10, 27), h=r.randint(10, 21), m=r.randint(10, 48), s=r.randint(10, 58), us=r.randint(100000, 999999))
        later = {**v, "m": v["m"] + r.randint(1, 9), "s": r.randint(10, 58), "us": r.randint(100000, 999999)}
        return form.format(**v), form.format(**later)
    return make


def day(form):
    def make(words):
        d = words.random.randint(10, 27)
        return form.format(d=d), form.format(d=d + 1)
    return make


VALUES = {
    "ISO with microseconds": clock("2026-11-{d}T{h}:{m}:{s}.{us}+02:00"),
    "basic ISO": clock("202611{d}T{h}{m}{s}Z"),
    "RFC 2822": clock("Sun, {d} Nov 2026 {h}:{m}:{s} +0000"),
    "syslog time": clock("Nov {d} {h}:{m}:{s}"),
    "12 hours": clock("Nov {d}, 2026 at 9:{m} PM"),
    "German time": clock("{d}. November 2026, {h}:{m} Uhr"),
    "German date": day("{d}. November 2026"),
    "dotted date": day("{d}.11.2026"),
    "Japanese time": clock("2026年11月{d}日 {h}時{m}分"),
    "Chinese date": day("2026年11月{d}日"),
    "French date": day("le {d} novembre 2026"),
    "Russian date": day("{d} ноября 2026 г."),
    "Spanish date": day("{d} de noviembre de 2026"),
    "week day": lambda w: w.random.choice([("Monday", "Tuesday"), ("Dienstag", "Mittwoch"), ("lundi", "mardi")]),
    "epoch": rise("{}", 1_790_000_000, 1_799_000_000, 900),
    "epoch milliseconds": rise("{}", 1_790_000_000_000, 1_799_000_000_000, 900_000),
    "uptime": clock("up 5 days, {h}:{m}"),
    "ULID": two(lambda w: "01JD" + w.letters(22)),
    "nanoid": two(lambda w: w.letters(21, "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMN_-0123456789")),
    "snowflake": rise("{}", 10**18, 2 * 10**18, 10**15),
    "short sha": two(lambda w: w.hexa(7)),
    "sha256": two(lambda w: "sha256:" + w.hexa(64)),
    "braced GUID": two(lambda w: "{" + f"{w.hexa(8)}-{w.hexa(4)}-4{w.hexa(3)}-{w.hexa(4)}-{w.hexa(12)}".upper() + "}"),
    "traceparent": two(lambda w: f"00-{w.hexa(32)}-{w.hexa(16)}-01"),
    "base64 nonce": two(lambda w: w.letters(22, "ABCDEFGHIJabcdefghij0123456789+/") + "=="),
    "pod name": two(lambda w: f"agent-7d9f8b6c5-{w.letters(5, 'bcdfghjklmnpqrstvwxz2456789').lower()}"),
    "EC2 host": two(lambda w: f"ip-10-0-{w.random.randint(1, 250)}-{w.random.randint(1, 250)}.ec2.internal"),
    "IPv4": two(lambda w: f"10.{w.random.randint(1, 250)}.{w.random.randint(1, 250)}.7"),
    "IPv6": two(lambda w: f"2001:db8::{w.hexa(4)}:{w.hexa(4)}"),
    "port": two(lambda w: f"http://localhost:{w.random.randint(32768, 60999)}"),
    "MAC": two(lambda w: ":".join(w.hexa(2 + 2)[:2] for _ in range(6))),
    "macOS folder": two(lambda w: f"/private/var/folders/zz/{w.hexa(12)}/T/run"),
    "Windows folder": two(lambda w: f"C:\\Users\\runner\\AppData\\Local\\Temp\\tmp{w.letters(8).lower()}"),
    "home folder": two(lambda w: f"~/work/{w.word() if w.language == 'en' else 'job'}-{w.random.randint(100, 999)}/src"),
    "pid": rise("pid={}", 1000, 30000, 3000),
    "counted step": rise("step {} of 40", 2, 30, 3),
    "big number": lambda w: (lambda n: (f"{n:,}", f"{n - w.random.randint(300, 3000):,}"))(w.random.randint(20_000, 190_000)),
    "money": lambda w: (lambda n: (f"${n:.4f}", f"${n + 0.0131:.4f}"))(w.random.uniform(0.1, 3)),
    "percent": lambda w: (lambda n: (f"{n} %", f"{n + w.random.randint(1, 9)} %"))(w.random.randint(20, 80)),
    "session id": two(lambda w: f"sess_{w.letters(24, 'abcdefghijkmnopqrstuvwxyz0123456789').lower()}"),
    "query string": two(lambda w: f"https://files.example/report.pdf?X-Signature={w.hexa(40)}&Expires={w.random.randint(1_790_000_000, 1_799_000_000)}"),
    "key=value pairs": two(lambda w: f"run={w.hexa(8)} attempt={w.random.randint(2, 9)} host=node-{w.random.randint(10, 99)}"),
}


def reorder_keys(value):
    if isinstance(value, dict):
        return {k: reorder_keys(v) for k, v in reversed(list(value.items()))}
    if isinstance(value, list):
        return [reorder_keys(v) for v in value]
    return value


def schema_keys(e, l, place, words):
    n = int(place * len(l["tools"]))
    which = words.random.randrange(3)
    s = l["tools"][n]["schema"]
    if which == 0:
        s["properties"] = dict(reversed(list(s["properties"].items())))
    elif which == 1:
        items = s["properties"]["filters"]["items"]
        items["properties"]["range"] = dict(reversed(list(items["properties"]["range"].items())))
    else:
        l["tools"][n]["schema"] = reorder_keys(s)
    return [(("keyOrder",), ("tool", n), None, None)]


def schema_leaf(change):
    def breakage(e, l, place, words):
        n = int(place * len(l["tools"]))
        change(l["tools"][n]["schema"], words)
        return [(("toolChanged",), ("tool", n), None, None)]
    return breakage


def nested_text(s, words):
    s["$defs"]["Options"]["properties"]["note"]["description"] = words.sentence()


def new_enum(s, words):
    s["properties"]["filters"]["items"]["properties"]["field"]["enum"].append("berth")


def new_field(s, words):
    s["properties"]["filters"]["items"]["properties"]["unit"] = {"type": "string"}


def new_default(s, words):
    s["properties"]["filters"]["items"]["properties"]["range"]["properties"]["min"]["default"] = 7


def with_call(c, place):
    i = pick(c, ("assistant",), place)
    while not c["talk"][i].get("calls"):
        i -= 1
        if i < 0:
            i = next(k for k, t in enumerate(c["talk"]) if t.get("calls"))
    return i


def call_keys(e, l, place, words):
    i = with_call(e, place)
    call = l["talk"][i]["calls"][0]
    call["args"] = reorder_keys(call["args"])
    return [(("keyOrder",), (i, "args", 0), None, None)]


def call_blanks(e, l, place, words):
    i = with_call(e, place)
    call = l["talk"][i]["calls"][0]
    call["raw"] = json.dumps(call["args"], ensure_ascii=False, indent=1)
    return [(("whiteSpace",), (i, "args", 0), None, None)]


def call_ascii(e, l, place, words):
    i = with_call(e, place)
    for c in (e, l):
        c["talk"][i]["calls"][0]["args"] = {"query": "Zürich Überseehafen", "limit": 3}
    l["talk"][i]["calls"][0]["raw"] = json.dumps(l["talk"][i]["calls"][0]["args"], ensure_ascii=True)
    return [(("unicodeForm",), (i, "args", 0), None, None)]


def call_number(e, l, place, words):
    i = with_call(e, place)
    call = l["talk"][i]["calls"][0]
    call["raw"] = json.dumps(call["args"], ensure_ascii=False).replace("1000", words.random.choice(["1000.0", "1e3"]))
    return [(("numberFormat",), (i, "args", 0), None, None)]


def call_id(e, l, place, words):
    i = with_call(e, place)
    old, new = l["talk"][i]["calls"][0]["id"], "toolu_" + words.letters(12)
    l["talk"][i]["calls"][0]["id"] = new
    for t in l["talk"]:
        if t.get("id") == old:
            t["id"] = new
    return [(("volatileValue",), (i, "id", 0), None, None)]


def json_result(c, place):
    found = [i for i, t in enumerate(c["talk"][:-1]) if t["kind"] == "result" and t["text"].startswith("{")]
    return found[min(len(found) - 1, int(place * len(found)))]


def result_form(change, kind):
    def breakage(e, l, place, words):
        i = json_result(e, place)
        l["talk"][i]["text"] = change(json.loads(l["talk"][i]["text"]))
        return [((kind,), (i, "text"), None, None)]
    return breakage


def normal_form(e, l, place, words):
    import unicodedata
    i = pick(e, ("user", "assistant"), place)
    extra = " Größenänderung für Łódź, São Paulo, 서울 und Đà Nẵng. "
    text = e["talk"][i]["text"]
    cut = len(text) // 2
    e["talk"][i]["text"] = text[:cut] + extra + text[cut:]
    l["talk"][i]["text"] = text[:cut] + unicodedata.normalize("NFD", extra) + text[cut:]
    return [(("unicodeForm",), (i, "text"), cut, cut + 70)]


def blank_lines(e, l, place, words):
    l["system"] = l["system"].replace("\n\n", "\n\n\n", 1) if place < 0.5 else l["system"].replace("\n", "\r\n")
    return [(("whiteSpace",), ("system",), None, None)]


def trailing_blank(e, l, place, words):
    i = pick(e, ("user", "assistant"), place)
    l["talk"][i]["text"] += words.random.choice(["\n", " ", "  \n"])
    n = len(e["talk"][i]["text"])
    return [(("whiteSpace",), (i, "text"), n - 1, n + 4)]


def add_tool(e, l, place, words):
    n = int(place * (len(l["tools"]) + 1))
    l["tools"].insert(n, {"name": "weigh_container", "text": words.text(2), "schema": schema(words)})
    return [(("toolsAdded",), ("tool", n), None, None)]


def drop_tool(e, l, place, words):
    n = int(place * len(l["tools"]))
    del l["tools"][n]
    return [(("toolsRemoved",), ("tools",), None, None)]


def shuffle_tools(e, l, place, words):
    tools = l["tools"]
    while [t["name"] for t in l["tools"]] == [t["name"] for t in e["tools"]]:
        l["tools"] = words.random.sample(tools, len(tools))
    return [(("toolsReordered",), ("tools",), None, None)]


def tool_text(e, l, place, words):
    n = int(place * len(l["tools"]))
    text = l["tools"][n]["text"]
    cut = text.index(words.random.choice([c for c in text if c in " 。"]))
    l["tools"][n]["text"] = text[: cut + 1] + " Deprecated. " + text[cut + 1:]
    return [(("toolChanged",), ("tool text", n), cut, cut + 16)]


def skills_swapped(e, l, place, words):
    text = l["system"]
    parts = text.split("<skill ")
    last, tail = parts[-1].split("</skill>", 1)
    parts[-1] = last + "</skill>"
    bodies = [p.rstrip("\n") for p in parts[1:]]
    a = min(2, int(place * 3))
    b = a + 1
    bodies[a], bodies[b] = bodies[b], bodies[a]
    l["system"] = parts[0] + "\n".join("<skill " + p for p in bodies) + tail
    return [(("reordered",), ("system",), len(parts[0]) - 10, len(text) - len(tail) + 10)]


def rules_swapped(e, l, place, words):
    lines = l["system"].split("\n")
    rules = [k for k, line in enumerate(lines) if line[:2] in {f"{n}." for n in range(1, 7)}]
    a = rules[min(4, int(place * 5))]
    lines[a], lines[a + 1] = lines[a][:2] + lines[a + 1][2:], lines[a + 1][:2] + lines[a][2:]
    l["system"] = "\n".join(lines)
    start = len("\n".join(lines[:a]))
    return [(("reordered",), ("system",), start, start + len(lines[a]) + len(lines[a + 1]) + 2)]


def rule_edited(e, l, place, words):
    lines = l["system"].split("\n")
    rules = [k for k, line in enumerate(lines) if line[:2] in {f"{n}." for n in range(1, 7)}]
    a = rules[min(5, int(place * 6))]
    lines[a] = lines[a][:3] + words.sentence(8, 12)
    l["system"] = "\n".join(lines)
    start = len("\n".join(lines[:a]))
    return [(("edited",), ("system",), start, start + len(lines[a]) + 1)]


def rule_added(e, l, place, words):
    lines = l["system"].split("\n")
    at = 3 + int(place * 5)
    lines.insert(at, "- " + words.sentence(8, 12))
    l["system"] = "\n".join(lines)
    start = len("\n".join(lines[:at]))
    return [(("edited", "inserted"), ("system",), start, start + len(lines[at]) + 1)]


def rule_dropped(e, l, place, words):
    lines = l["system"].split("\n")
    rules = [k for k, line in enumerate(lines) if line[:2] in {f"{n}." for n in range(1, 7)}]
    a = rules[min(5, int(place * 6))]
    start = len("\n".join(lines[:a]))
    del lines[a]
    l["system"] = "\n".join(lines)
    return [(("edited", "deleted"), ("system",), start - 2, start + 6)]


def word_changed(e, l, place, words):
    i = pick(e, ("user", "assistant"), place)
    text = e["talk"][i]["text"]
    at = int(place * (len(text) - 12))
    l["talk"][i]["text"] = text[:at] + " QUITE OTHER " + text[at + 4:]
    return [(("edited",), (i, "text"), at - 1, at + 15)]


def rewritten(e, l, place, words):
    """A message of the user, in other words from end to end."""
    i = pick(e, ("user",), place)
    l["talk"][i]["text"] = words.text(5)
    return [(("edited",), (i, "text"), None, None)]


def typo_fixed(e, l, place, words):
    i = pick(e, ("user",), place)
    text = e["talk"][i]["text"]
    at = max(2, int(place * (len(text) - 3)))
    while text[at] in " .。\n" or text[at - 1] in " .。\n":
        at -= 1
    e["talk"][i]["text"] = text[:at] + text[at] + text[at:]
    return [(("edited",), (i, "text"), at - 8, at + 8)]


def turn_inserted(e, l, place, words):
    i = pick(e, ("user",), place)
    l["talk"].insert(i, {"kind": "user", "text": words.text(2)})
    return [(("inserted",), (i,), None, None)]


def turn_deleted(e, l, place, words):
    i = pick(e, ("user",), place)
    del l["talk"][i]
    return [(("deleted",), (i,), None, None)]


def exchange_deleted(e, l, place, words):
    """The oldest exchange is left out, as sliding windows of clients do: a call and its results."""
    i = with_call(e, min(place, 0.8))
    end = i + 1
    while e["talk"][end]["kind"] == "result":
        end += 1
    del l["talk"][i:end]
    return [(("deleted", "toolResultRemoved"), (i,), None, None)]


def tail_cut(mark):
    def breakage(e, l, place, words):
        i = pick(e, ("result", "user"), place)
        text = e["talk"][i]["text"]
        keep = int(len(text) * (0.35 + 0.3 * place))
        l["talk"][i]["text"] = text[:keep] + mark
        return [(("truncated",), (i, "text"), keep - 12, keep + len(mark))]
    return breakage


def middle_cut(e, l, place, words):
    """Head and tail of a long result stay; what lies between gives way to a mark."""
    i = pick(e, ("result",), place)
    text = e["talk"][i]["text"]
    a, b = int(len(text) * 0.3), int(len(text) * 0.75)
    l["talk"][i]["text"] = text[:a] + "\n… 214 lines omitted …\n" + text[b:]
    return [(("truncated", "edited", "deleted"), (i, "text"), a - 10, a + 36)]


def summary(e, l, place, words):
    first = pick(e, ("user", "assistant"), place * 0.6)
    while e["talk"][first]["kind"] == "result":
        first += 1
    end = min(first + 6, len(e["talk"]) - 2)
    while e["talk"][end]["kind"] == "result":
        end += 1
    if end >= len(e["talk"]):
        end = len(e["talk"]) - 1
    l["talk"][first:end] = [{"kind": "user", "text": words.text(3)}]
    return [(("compacted",), (first,), None, None)]


def result_gone(mark):
    def breakage(e, l, place, words):
        i = pick(e, ("result",), place)
        l["talk"][i]["text"] = mark
        return [(("toolResultRemoved",), (i, "text"), None, None)]
    return breakage


def all_results_gone(e, l, place, words):
    """All but the last few results are cleared, as harnesses do when a conversation grows."""
    results = [i for i, t in enumerate(e["talk"][:-1]) if t["kind"] == "result"]
    gone = results[: max(2, len(results) // 2)]
    for i in gone:
        l["talk"][i]["text"] = "[cleared]"
    return [(("toolResultRemoved",), (i, "text"), None, None) for i in gone]


def file_again(e, l, place, words):
    file = "<document path=\"manifest.csv\">\n" + words.lines(18) + "\n</document>"
    i = pick(e, ("user",), place)
    for c in (e, l):
        c["talk"][i]["text"] += "\n\n" + file
    l["talk"].append({"kind": "assistant", "text": words.sentence(), "calls": []})
    l["talk"].append({"kind": "user", "text": file + "\n\n" + words.sentence()})
    return [(("attachedAgain",), (len(l["talk"]) - 1, "text"), None, None)]


def file_moved(e, l, place, words):
    """The attachment wanders to the newest message."""
    file = "<document path=\"manifest.csv\">\n" + words.lines(18) + "\n</document>"
    i = pick(e, ("user",), place)
    e["talk"][i]["text"] = file + "\n\n" + e["talk"][i]["text"]
    l["talk"].append({"kind": "assistant", "text": words.sentence(), "calls": []})
    l["talk"].append({"kind": "user", "text": file + "\n\n" + words.sentence()})
    return [(("attachedAgain",), (i, "text"), None, None)]


def reasoning_gone(e, l, place, words):
    found = [i for i, t in enumerate(e["talk"][:-1]) if t.get("reasoning")]
    i = found[min(len(found) - 1, int(place * len(found)))]
    del l["talk"][i]["reasoning"]
    return [(("reasoningDropped",), (i,), None, None)]


def all_reasoning_gone(e, l, place, words):
    for t in l["talk"]:
        t.pop("reasoning", None)
    found = [i for i, t in enumerate(e["talk"][:-1]) if t.get("reasoning")]
    return [(("reasoningDropped",), (i,), None, None) for i in found]


def note_moves(e, l, place, words):
    note = f"\n<env_status>{words.text(2)}</env_status>"
    i = pick(e, ("user",), place)
    e["talk"][i]["text"] += note
    last = max(k for k, t in enumerate(l["talk"]) if t["kind"] in ("user", "result"))
    l["talk"][last]["text"] += note
    return [(("reminderMoved",), (i, "text"), None, None)]


def note_line_moves(e, l, place, words):
    """A note without a tag, the same words each time, behind the newest message."""
    note = "\n\nReminder: " + words.text(2)
    i = pick(e, ("user",), place)
    e["talk"][i]["text"] += note
    last = max(k for k, t in enumerate(l["talk"]) if t["kind"] == "user")
    if last == i:
        l["talk"].append({"kind": "assistant", "text": words.sentence(), "calls": []})
        l["talk"].append({"kind": "user", "text": words.sentence()})
        last = len(l["talk"]) - 1
    l["talk"][last]["text"] += note
    return [(("reminderMoved",), (i, "text"), None, None)]


def other_model(e, l, place, words):
    l["model"] = "harbour-70b"
    return [(("modelSwitched",), ("model",), None, None)]


def setting(name, old, new, kind):
    def breakage(e, l, place, words):
        e["more"], l["more"] = {name: old}, {name: new}
        return [((kind,), (name,), None, None)]
    return breakage


def context_first(e, l, place, words):
    """Retrieved text before the rules."""
    e["system"] = "Context:\n" + words.text(5) + "\n\n" + e["system"]
    l["system"] = "Context:\n" + words.text(5) + "\n\n" + l["system"]
    return [(("dynamicBeforeStatic", "edited"), ("system",), None, None)]


BREAKAGES = {
    **{f"value: {name}": insert_value(make) for name, make in VALUES.items()},
    "value in a header line": insert_value(clock("2026-11-{d} {h}:{m}"), "Current time: {}\n"),
    "value in a tag": insert_value(two(lambda w: w.hexa(16)), "<session id=\"{}\"/>"),
    "value in a list": insert_value(two(lambda w: w.hexa(16)), "[\"request\", \"{}\"]"),
    "keys in a schema": schema_keys,
    "text deep in a schema": schema_leaf(nested_text),
    "enum in a schema": schema_leaf(new_enum),
    "field in a schema": schema_leaf(new_field),
    "default in a schema": schema_leaf(new_default),
    "keys of a call": call_keys,
    "blanks of a call": call_blanks,
    "escapes of a call": call_ascii,
    "numbers of a call": call_number,
    "id of a call": call_id,
    "keys of a result": result_form(lambda v: json.dumps(reorder_keys(v), ensure_ascii=False), "keyOrder"),
    "sorted keys of a result": result_form(lambda v: json.dumps(v, ensure_ascii=False, sort_keys=True), "keyOrder"),
    "compact result": result_form(lambda v: json.dumps(v, ensure_ascii=False, separators=(",", ":")), "whiteSpace"),
    "tabs in a result": result_form(lambda v: json.dumps(v, ensure_ascii=False, indent="\t"), "whiteSpace"),
    "numbers of a result": result_form(lambda v: json.dumps(v, ensure_ascii=False).replace("2.5", "2.50"), "numberFormat"),
    "NFD": normal_form,
    "blank lines": blank_lines,
    "trailing blank": trailing_blank,
    "tool added": add_tool,
    "tool removed": drop_tool,
    "tools shuffled": shuffle_tools,
    "tool text": tool_text,
    "skills swapped": skills_swapped,
    "rules swapped": rules_swapped,
    "rule edited": rule_edited,
    "rule added": rule_added,
    "rule dropped": rule_dropped,
    "words changed": word_changed,
    "message rewritten": rewritten,
    "typo fixed": typo_fixed,
    "turn inserted": turn_inserted,
    "turn deleted": turn_deleted,
    "exchange deleted": exchange_deleted,
    "tail cut": tail_cut(""),
    "tail cut, ellipsis": tail_cut("…"),
    "tail cut, German": tail_cut(" [gekürzt, 312 Zeilen]"),
    "tail cut, Chinese": tail_cut("（已截断）"),
    "middle cut": middle_cut,
    "summary": summary,
    "result blanked": result_gone(""),
    "result cleared, German": result_gone("[Ergebnis entfernt]"),
    "result cleared, JSON": result_gone("{\"omitted\": true}"),
    "result cleared, long": result_gone("(The result of this call was removed from the history to save room; call the tool again if you need it.)"),
    "results cleared": all_results_gone,
    "file again": file_again,
    "file moved": file_moved,
    "reasoning gone": reasoning_gone,
    "all reasoning gone": all_reasoning_gone,
    "note moves": note_moves,
    "note without a tag moves": note_line_moves,
    "other model": other_model,
    "adapter": setting("lora", [{"id": 1, "scale": 0.5}], [{"id": 1, "scale": 1.0}], "adapterSwitched"),
    "template": setting("chat_template_kwargs", {"enable_thinking": True}, {"enable_thinking": False}, "templateSwitched"),
    "context first": context_first,
}
# What a prompt that is one text does not have.
# What a prompt that is one text does not have.
STRUCTURED = {"keys in a schema", "text deep in a schema", "enum in a schema", "field in a schema", "default in a schema", "id of a call",
              "tool added", "tool removed", "tools shuffled", "tool text", "reasoning gone", "all reasoning gone"}
# Arguments that are values, not text, have no blanks, escapes or number forms of their own.
RAW_CALLS = {"blanks of a call", "escapes of a call", "numbers of a call"}
IDS, REASONING, MODEL, SETTINGS = {"id of a call"}, {"reasoning gone", "all reasoning gone"}, {"other model"}, {"adapter", "template"}
