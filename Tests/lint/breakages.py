"""Makes logs of conversations in which one thing, or two, are broken at a known place, and logs in which nothing is.

Each breakage takes the request that was sent before and the one that goes on from it, changes the later one, and says what a linter
has to find: the kinds that are right, and a path and characters with which the finding has to overlap.
"""

import copy
import json
import random
import re

WORDS = """the request server answer cache token prefix block store engine batch layer model prompt write read file
folder disk memory page index table search result query message thread process signal value number string list order key change
test build error warning line column function class method field record header body stream buffer socket client timeout retry queue
worker job task plan step review merge branch commit release version package import export parse print count measure compare sort
filter group join split copy move delete create open close start stop wait check verify repair load save send receive""".split()
NAMES = ["read_file", "write_file", "run_tests", "search_code", "list_folder", "fetch_page", "apply_patch", "ask_user"]


class Texts:
    """Sentences of one's own, different each time."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def sentence(self, low=6, high=16):
        words = [self.random.choice(WORDS) for _ in range(self.random.randint(low, high))]
        return " ".join(words).capitalize() + "."

    def text(self, sentences):
        return " ".join(self.sentence() for _ in range(sentences))

    def lines(self, count):
        return "\n".join(f"{number + 1}: {self.sentence(3, 9)}" for number in range(count))


def tool(texts, name):
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": texts.text(2),
            "parameters": {
                "type": "object",
                "properties": {
                    "path": {"type": "string", "description": texts.sentence()},
                    "limit": {"type": "integer", "description": texts.sentence(), "default": 100},
                },
                "required": ["path"],
            },
        },
    }


# Recorded conversations to break instead of made ones.
SESSIONS = []


def transcript(seed, turns=24):
    """An agent at work: a list of messages in OpenAI's form, and its tools."""
    if SESSIONS:
        return copy.deepcopy(SESSIONS[seed % len(SESSIONS)])
    texts = Texts(seed)
    tools = [tool(texts, name) for name in NAMES[:6]]
    skills = "\n\n".join(f"## Skill {name}\n{texts.text(3)}" for name in ("pdf", "sheets", "mail", "charts"))
    system = f"You are an agent. {texts.text(4)}\n\n# Rules\n- {texts.sentence()}\n- {texts.sentence()}\n- {texts.sentence()}\n\n{skills}\n\n{texts.text(5)}"
    messages = [{"role": "system", "content": system}, {"role": "user", "content": texts.text(5)}]
    for turn in range(turns):
        if turn % 4 == 3:
            messages.append({"role": "assistant", "content": texts.text(3)})
            messages.append({"role": "user", "content": texts.text(4)})
        else:
            call = f"call_{seed}_{turn}"
            arguments = json.dumps({"path": f"src/{texts.random.choice(WORDS)}.py", "limit": 100 + turn})
            messages.append({
                "role": "assistant",
                "content": texts.text(1),
                "reasoning_content": texts.text(2),
                "tool_calls": [{"id": call, "type": "function", "function": {"name": NAMES[turn % 6], "arguments": arguments}}],
            })
            result = texts.lines(12) if turn % 2 else json.dumps({"ok": True, "rows": [{"id": n, "name": texts.sentence(2, 5), "score": 1.5} for n in range(6)]})
            messages.append({"role": "tool", "tool_call_id": call, "content": result})
    return {"model": "local-8b", "tools": tools, "messages": messages}


def steps(conversation):
    """The requests of an agent's run: one for each message of a user or a tool."""
    result = []
    for index, message in enumerate(conversation["messages"]):
        if message["role"] in ("user", "tool"):
            result.append({**conversation, "messages": conversation["messages"][: index + 1]})
    return result


# ---------------------------------------------------------------- breakages
# Each takes the earlier request, the later one (a deep copy), a place from 0 to 1 and texts; it returns what is to be found, as
# (kinds, path, start, end); start and end may be None where the place is the whole field.

def history(earlier, place, roles, low=1):
    """The index of a message of the given roles in what both requests have, with something behind it."""
    candidates = [i for i, m in enumerate(earlier["messages"][:-1]) if i >= low and m["role"] in roles]
    return candidates[min(len(candidates) - 1, int(place * len(candidates)))]


class Message(dict):
    """A message that is known again wherever it stands: by its number in the earlier request."""

    number = None


def numbered(messages):
    result = []
    for number, message in enumerate(messages):
        made = Message(copy.deepcopy(message))
        made.number = number
        result.append(made)
    return result


def there(later, number):
    """Where a message of the earlier request stands in the later one."""
    for index, message in enumerate(later["messages"]):
        if getattr(message, "number", None) == number:
            return index
    raise KeyError(number)


def put(earlier, later, path, make, place, texts):
    """Puts a value that differs between the two requests into a text of both."""
    old, new = make()
    number = history(earlier, place, ("system", "user"), low=0)
    index = there(later, number)
    text, before = later["messages"][index]["content"], earlier["messages"][number]["content"]
    words = text.split(" ")
    at = int(place * (len(words) - 2)) + 1
    front = " ".join(words[:at]) + " "
    back = " " + " ".join(words[at:])
    # In the earlier text before the same words, whatever else differs.
    mark = " " + " ".join(words[at:at + 3])
    cut = before.index(mark) if text != before else len(front) - 1
    earlier["messages"][number]["content"] = before[:cut] + " " + old + before[cut:]
    later["messages"][index]["content"] = front + new + back
    return [(("volatileValue",), f"messages[{index}].content", len(front), len(front) + len(new))]


def hexadecimal(texts, count):
    return "".join(texts.random.choice("0123456789abcdef") for _ in range(count - 2)) + texts.random.choice("abcdef") + texts.random.choice("0123456789")


def volatile(make):
    return lambda e, l, p, t: put(e, l, None, lambda: make(t), p, t)


def uuid(texts):
    h = lambda n: hexadecimal(texts, n)
    return f"{h(8)}-{h(4)}-{h(4)}-{h(4)}-{h(12)}"


def pair(make):
    def both(texts):
        first = make(texts)
        while True:
            second = make(texts)
            if second != first:
                return first, second
    return both


def a_time(texts):
    day, hour, minute = texts.random.randint(10, 28), texts.random.randint(10, 22), texts.random.randint(10, 50)
    style = texts.random.randrange(4)
    later = minute + texts.random.randint(1, 9)
    return {
        0: (f"2026-11-{day} {hour}:{minute}", f"2026-11-{day} {hour}:{later}"),
        1: (f"2026-11-{day}T{hour}:{minute}:11Z", f"2026-11-{day}T{hour}:{later}:40Z"),
        2: (f"{hour}:{minute}:07", f"{hour}:{later}:31"),
        3: (f"Monday, November {day}, 2026, {hour}:{minute}", f"Monday, November {day}, 2026, {hour}:{later}"),
    }[style]


def a_date(texts):
    day = texts.random.randint(10, 27)
    return texts.random.choice([
        (f"2026-11-{day}", f"2026-11-{day + 1}"), (f"{day} November 2026", f"{day + 1} November 2026"),
        (f"11/{day}/2026", f"11/{day + 1}/2026"),
    ])


def a_counter(texts):
    number = texts.random.randint(100, 900)
    return f"{number}", f"{number + 1}"


VOLATILE = {
    "time": volatile(a_time),
    "date": volatile(a_date),
    "uuid": volatile(pair(uuid)),
    "counter": volatile(a_counter),
    "hash": volatile(pair(lambda t: hexadecimal(t, 40))),
    "host": volatile(pair(lambda t: f"worker-{t.random.randint(10, 99)}.{t.random.choice(['east', 'west'])}.internal")),
    "folder": volatile(pair(lambda t: f"/tmp/run-{t.random.randint(1000, 9999)}/work")),
    "request id": volatile(pair(lambda t: "req_" + hexadecimal(t, 20))),
    "billing line": volatile(pair(lambda t: f"x-billing-header: cc_version=2.1.{t.random.randint(1, 9)}; cch={hexadecimal(t, 6)};")),
}


def key_order(earlier, later, place, texts):
    index = int(place * len(later["tools"]))
    function = later["tools"][min(index, len(later["tools"]) - 1)]["function"]
    function["parameters"] = dict(reversed(list(function["parameters"].items())))
    return [(("keyOrder",), f"tools[{min(index, len(later['tools']) - 1)}]", None, None)]


def with_arguments(change, kind):
    def breakage(earlier, later, place, texts):
        number = history(earlier, place, ("assistant",))
        while not earlier["messages"][number].get("tool_calls"):
            number -= 1
        index = there(later, number)
        function = later["messages"][index]["tool_calls"][0]["function"]
        before = function["arguments"]
        function["arguments"] = change(json.loads(before))
        assert function["arguments"] != before
        return [((kind,), f"messages[{index}].tool_calls[0].function.arguments", None, None)]
    return breakage


def result_form(change, kind):
    """JSON in the result of a tool, serialised in another way."""
    def breakage(earlier, later, place, texts):
        candidates = [i for i, m in enumerate(earlier["messages"][:-1]) if m["role"] == "tool" and m["content"].startswith("{")]
        index = there(later, candidates[min(len(candidates) - 1, int(place * len(candidates)))])
        message = later["messages"][index]
        message["content"] = change(json.loads(message["content"]))
        return [((kind,), f"messages[{index}].content", None, None)]
    return breakage


def unicode_form(earlier, later, place, texts):
    number = history(earlier, place, ("user", "assistant"))
    index = there(later, number)
    text, more = later["messages"][index]["content"], " Caf\u00e9 is open. " + texts.sentence()
    earlier["messages"][number]["content"] += more
    later["messages"][index]["content"] += more.replace("\u00e9", "e\u0301")
    return [(("unicodeForm",), f"messages[{index}].content", len(text) + 1, len(text) + 6)]


def white_space(earlier, later, place, texts):
    index = there(later, history(earlier, place, ("user", "system"), low=0))
    text = later["messages"][index]["content"]
    at = text.index(" ", int(place * len(text) * 0.8))
    later["messages"][index]["content"] = text[:at] + "  " + text[at + 1:]
    return [(("whiteSpace",), f"messages[{index}].content", at, at + 2)]


def tools_added(earlier, later, place, texts):
    at = int(place * (len(later["tools"]) + 1))
    later["tools"] = later["tools"][:at] + [tool(texts, NAMES[6])] + later["tools"][at:]
    return [(("toolsAdded",), f"tools[{at}]", None, None)]


def tools_removed(earlier, later, place, texts):
    assert later["tools"]
    at = int(place * len(later["tools"]))
    later["tools"] = later["tools"][:at] + later["tools"][at + 1:]
    return [(("toolsRemoved",), "tools", None, None)]


def tools_reordered(earlier, later, place, texts):
    at = int(place * (len(later["tools"]) - 1))
    tools = list(later["tools"])
    tools[at], tools[at + 1] = tools[at + 1], tools[at]
    later["tools"] = tools
    return [(("toolsReordered",), f"tools[{at}]", None, None)]


def tool_changed(earlier, later, place, texts):
    at = int(place * len(later["tools"]))
    function = later["tools"][at]["function"]
    words = function["description"].split(" ")
    words[2] = "otherwise"
    function["description"] = " ".join(words)
    return [(("toolChanged",), f"tools[{at}].function.description", None, None)]


def skills_reordered(earlier, later, place, texts):
    system = later["messages"][0]["content"]
    parts = system.split("\n\n")
    skills = [i for i, part in enumerate(parts) if part.startswith("## Skill")]
    first = min(int(place * (len(skills) - 1)), len(skills) - 2)
    a, b = skills[first], skills[first + 1]
    parts[a], parts[b] = parts[b], parts[a]
    later["messages"][0]["content"] = "\n\n".join(parts)
    start = system.index("## Skill")
    return [(("reordered",), "messages[0].content", start, system.rindex("## Skill") + 200)]


def rules_edited(earlier, later, place, texts):
    text = later["messages"][0]["content"]
    lines = text.split("\n")
    rules = [i for i, line in enumerate(lines) if line.startswith("- ")]
    at = rules[min(int(place * len(rules)), len(rules) - 1)]
    lines[at] = "- " + texts.sentence(8, 12)
    later["messages"][0]["content"] = "\n".join(lines)
    start = len("\n".join(lines[:at]))
    return [(("edited",), "messages[0].content", start, start + len(lines[at]) + 1)]


def message_edited(earlier, later, place, texts):
    index = there(later, history(earlier, place, ("user", "assistant")))
    text = later["messages"][index]["content"]
    words = text.split(" ")
    at = int(place * (len(words) - 2))
    start = len(" ".join(words[:at]))
    words[at:at + 2] = ["quite", "another", "thing"]
    later["messages"][index]["content"] = " ".join(words)
    return [(("edited",), f"messages[{index}].content", start, start + 21)]


def message_inserted(earlier, later, place, texts):
    at = there(later, history(earlier, place, ("user", "assistant")))
    later["messages"].insert(at, {"role": "user", "content": texts.text(3)})
    return [(("inserted",), f"messages[{at}]", None, None)]


def message_deleted(earlier, later, place, texts):
    at = there(later, history(earlier, place, ("user", "assistant")))
    del later["messages"][at]
    return [(("deleted",), f"messages[{at}]", None, None)]


def message_truncated(earlier, later, place, texts):
    index = there(later, history(earlier, place, ("user", "tool")))
    text = later["messages"][index]["content"]
    keep = int(len(text) * (0.3 + 0.4 * place))
    later["messages"][index]["content"] = text[:keep] + texts.random.choice(["", "\u2026", "... [truncated]"])
    return [(("truncated",), f"messages[{index}].content", keep - 16, keep + 20)]


def compacted(earlier, later, place, texts):
    number = history(earlier, place * 0.7, ("user", "assistant"))
    count = min(4, len(earlier["messages"]) - 3 - number)
    if count < 2:
        number, count = 1, 2
    first = there(later, number)
    assert [getattr(m, "number", None) for m in later["messages"][first:first + count]] == list(range(number, number + count))
    later["messages"][first:first + count] = [{"role": "user", "content": "Summary of what was done: " + texts.text(2)}]
    return [(("compacted",), f"messages[{first}]", None, None)]


def result_removed(earlier, later, place, texts):
    index = there(later, history(earlier, place, ("tool",)))
    later["messages"][index]["content"] = texts.random.choice(["[removed]", "[Old tool result content cleared]", "[ref#3: 47 rows]", ""])
    return [(("toolResultRemoved",), f"messages[{index}]", None, None)]


def attached_again(earlier, later, place, texts):
    file = "```\n" + texts.lines(20) + "\n```"
    number = history(earlier, place, ("user",))
    for message in (earlier["messages"][number], later["messages"][there(later, number)]):
        message["content"] += "\n\n" + file
    later["messages"].append({"role": "user", "content": texts.sentence() + "\n\n" + file})
    return [(("attachedAgain",), f"messages[{len(later['messages']) - 1}].content", None, None)]


def reasoning_dropped(earlier, later, place, texts):
    number = history(earlier, place, ("assistant",))
    while "reasoning_content" not in earlier["messages"][number]:
        number -= 1
    index = there(later, number)
    del later["messages"][index]["reasoning_content"]
    return [(("reasoningDropped",), f"messages[{index}]", None, None)]


def reminder_moved(earlier, later, place, texts):
    note = f"\n\n<system-reminder>{texts.text(2)}</system-reminder>"
    number = history(earlier, place, ("user",))
    index = there(later, number)
    earlier["messages"][number]["content"] += note
    last = max(i for i, m in enumerate(later["messages"]) if m["role"] in ("user", "tool"))
    later["messages"][last]["content"] += note
    return [(("reminderMoved",), f"messages[{index}].content", None, None)]


def model_switched(earlier, later, place, texts):
    later["model"] = "local-70b"
    return [(("modelSwitched",), "model", None, None)]


def adapter_switched(earlier, later, place, texts):
    earlier["lora"], later["lora"] = [{"id": 0, "scale": 1}], [{"id": 1, "scale": 1}]
    return [(("adapterSwitched",), "lora", None, None)]


def template_switched(earlier, later, place, texts):
    later["chat_template_kwargs"] = {"enable_thinking": place < 0.5}
    return [(("templateSwitched",), "chat_template_kwargs", None, None)]


def call_ids(earlier, later, place, texts):
    number = history(earlier, place, ("assistant",))
    while not earlier["messages"][number].get("tool_calls"):
        number -= 1
    index = there(later, number)
    later["messages"][index]["tool_calls"][0]["id"] = "call_" + hexadecimal(texts, 12)
    return [(("volatileValue",), f"messages[{index}].tool_calls[0].id", None, None)]


BREAKAGES = {
    **VOLATILE,
    "key order": key_order,
    "key order in arguments": with_arguments(lambda v: json.dumps(dict(reversed(list(v.items())))), "keyOrder"),
    "key order in a result": result_form(lambda v: json.dumps(dict(reversed(list(v.items())))), "keyOrder"),
    "blanks in arguments": with_arguments(lambda v: json.dumps(v, separators=(",", ":")), "whiteSpace"),
    "indented result": result_form(lambda v: json.dumps(v, indent=2), "whiteSpace"),
    "number format": result_form(lambda v: json.dumps(v).replace("1.5", "1.50"), "numberFormat"),
    "unicode form": unicode_form,
    "white space": white_space,
    "tools added": tools_added,
    "tools removed": tools_removed,
    "tools reordered": tools_reordered,
    "tool changed": tool_changed,
    "skills reordered": skills_reordered,
    "rules edited": rules_edited,
    "message edited": message_edited,
    "message inserted": message_inserted,
    "message deleted": message_deleted,
    "message truncated": message_truncated,
    "compacted": compacted,
    "tool result removed": result_removed,
    "attached again": attached_again,
    "reasoning dropped": reasoning_dropped,
    "reminder moved": reminder_moved,
    "model switched": model_switched,
    "adapter switched": adapter_switched,
    "template switched": template_switched,
    "call ids": call_ids,
}


def broken(names, seed, place):
    """The log of a conversation with breakages in one step: its lines, and what is to be found in the last one."""
    texts = Texts(seed * 7919 + int(place * 1000) + len(names))
    run = steps(transcript(seed if SESSIONS else seed % 5))
    at = min(len(run) - 1, 6 + int(place * (len(run) - 8)))
    earlier, later = ({**copy.deepcopy(request), "messages": numbered(request["messages"])} for request in (run[at - 1], run[at]))
    expected = []
    for offset, name in enumerate(names):
        for kinds, path, start, end in BREAKAGES[name](earlier, later, place if offset == 0 else (place + 0.5) % 1, texts):
            thing = element(later, path)
            text = thing.get("content") if thing is not None and start is not None else None
            expected.append((kinds, path, thing, start, end, text[max(0, start):max(0, end)] if text else ""))
    moved = []
    # A later breakage may have moved a message, a tool, or the text within one.
    for kinds, path, thing, start, end, text in expected:
        if thing is not None:
            number = next((i for i, other in enumerate(later[path.split("[")[0]]) if other is thing), None)
            # It was taken out.
            if number is None:
                continue
            path = re.sub(r"\[\d+\]", f"[{number}]", path, count=1)
            if text:
                places = [m.start() for m in re.finditer(re.escape(text), thing.get("content") or "")]
                shift = min((place - max(0, start) for place in places), key=abs, default=0)
                start, end = start + shift, end + shift
        moved.append((kinds, path, start, end))
    # What was sent before is what the earlier request has.
    before = [{**earlier, "messages": earlier["messages"][: len(line["messages"])]} for line in run[: at - 1]]
    return [json.dumps(line, ensure_ascii=False) for line in before + [earlier, later]], moved


def element(request, path):
    """The message or tool in which a path begins."""
    found = re.match(r"(messages|tools)\[(\d+)\]", path)
    return request[found[1]][int(found[2])] if found and int(found[2]) < len(request[found[1]]) else None


def harmless(kind, seed):
    """The log of a conversation in which nothing is wrong."""
    texts = Texts(seed)
    conversation = transcript(seed, turns=8)
    run = steps(conversation)
    if kind == "append":
        pass
    elif kind == "fork":
        cut = texts.random.randint(2, len(conversation["messages"]) - 2)
        other = {**conversation, "messages": conversation["messages"][:cut] + [{"role": "user", "content": texts.text(4)}]}
        run.append(other)
        run.append({**other, "messages": other["messages"] + [{"role": "assistant", "content": texts.text(2)}, {"role": "user", "content": texts.text(2)}]})
    elif kind == "retry":
        at = texts.random.randrange(len(run))
        run = run[:at] + [run[at]] * 3 + run[at:]
    elif kind == "parallel":
        other = transcript(seed + 100_000, turns=8)
        other["tools"], other["messages"][0] = conversation["tools"], conversation["messages"][0]
        run = [line for both in zip(run, steps(other)) for line in both]
    elif kind == "sampled twice":
        # The same task, two agents: equal tool results behind different answers.
        second = copy.deepcopy(conversation)
        for message in second["messages"]:
            if message["role"] == "assistant":
                message["content"] = texts.text(2)
        run = [line for both in zip(run, steps(second)) for line in both]
    elif kind == "placeholder from the start":
        for message in conversation["messages"]:
            if message["role"] == "tool":
                message["content"] = "[result kept in ref#7: 120 rows]"
        run = steps(conversation)
    elif kind == "placeholder at the tail":
        last = run[-1]
        tools = [i for i, m in enumerate(last["messages"]) if m["role"] == "tool"]
        at = tools[-1]
        front = copy.deepcopy(last["messages"][: at + 1])
        run = [r for r in run if len(r["messages"]) <= at + 1]
        front[at]["content"] = "[removed]"
        run.append({**conversation, "messages": front + [{"role": "assistant", "content": texts.text(1)}, {"role": "user", "content": texts.text(1)}]})
    elif kind == "other parameters":
        run = [{**line, "temperature": index / 10, "max_tokens": 100 + index, "seed": index, "user": f"u{index}", "metadata": {"id": index}} for index, line in enumerate(run)]
    elif kind == "cache breakpoints":
        changed = []
        for line in run:
            line = copy.deepcopy(line)
            last = line["messages"][-1]
            last["content"] = [{"type": "text", "text": last["content"], "cache_control": {"type": "ephemeral"}}]
            changed.append(line)
        run = changed
    elif kind == "fields in another order":
        run = [dict(reversed([(k, v) for k, v in line.items()])) if index % 2 else {**line, "messages": [dict(reversed(list(m.items()))) for m in line["messages"]]} for index, line in enumerate(run)]
    return [json.dumps(line, ensure_ascii=index % 3 == 0, indent=None) for index, line in enumerate(run)]


HARMLESS = ["append", "fork", "retry", "parallel", "sampled twice", "placeholder from the start", "placeholder at the tail",
            "other parameters", "cache breakpoints", "fields in another order"]
