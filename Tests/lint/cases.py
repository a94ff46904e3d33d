"""What `kvstore lint` says of logs that people have, and of logs that nobody should have."""

import copy
import gzip
import http.server
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import actions
import breakages
import joined

COMMAND = sys.argv[1]
FOLDER = Path(tempfile.mkdtemp(prefix="kvstore-lint."))
checks = 0


def check(condition, text):
    global checks
    checks += 1
    if not condition:
        raise SystemExit(f"FAIL: {text}")


def run(*arguments, input=None, status=0):
    done = subprocess.run([COMMAND, "lint", *map(str, arguments)], input=input, capture_output=True)
    check(done.returncode == status, f"{arguments}: status {done.returncode}, {done.stderr.decode(errors='replace')[:500]}")
    return done


def lint(lines, *options):
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n"
    return json.loads(run("-", "--json", *options, input=text.encode()).stdout)


def kinds(document):
    return [f["kind"] for f in document["findings"]]


def the_ten_actions():
    for name, (_, kind, cause, path, _) in actions.ACTIONS.items():
        log = actions.log(name)
        found = [f for f in lint(log)["findings"] if f["line"] == len(log) and f["kind"] != "lowHitRate"]
        if kind is None:
            check(not found, f"{name}: {found}")
            continue
        check(len(found) == 1, f"{name}: {[(f['kind'], f['path']) for f in found]}")
        check((found[0]["kind"], found[0]["cause"]) == (kind, cause), f"{name}: {found[0]}")
        check(found[0]["path"] == path, f"{name}: {found[0]['path']} is not {path}")
        check(found[0]["tokens_lost"] > 0 and found[0]["remedy"], f"{name}: {found[0]}")


def interfaces():
    """The same break in every interface, in a record of every layout."""
    text = "It is {}. Answer briefly, and always name the file that you looked at before you answer."
    more = "And who calls it from the other side of the queue?"

    def chat(now, *messages):
        return {"model": "m", "messages": [{"role": "system", "content": text.format(now)}, {"role": "user", "content": "Where is the parser?"}, *messages]}

    def responses(now, *messages):
        return {"model": "m", "instructions": text.format(now), "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Where is the parser?"}]}, *messages]}

    def anthropic(now, *messages):
        return {"model": "m", "max_tokens": 5, "system": [{"type": "text", "text": text.format(now), "cache_control": {"type": "ephemeral"}}], "messages": [{"role": "user", "content": "Where is the parser?"}, *messages]}

    def completion(now, *messages):
        return {"n_predict": 5, "prompt": f"<|im_start|>system\n{text.format(now)}<|im_end|>\n<|im_start|>user\nWhere is the parser?<|im_end|>\n" + "".join(f"<|im_start|>user\n{m['content']}<|im_end|>\n" for m in messages)}

    def renamed(now, *messages):
        return {"engine": "m", "preamble": text.format(now), "turns": [{"speaker": "user", "said": "Where is the parser, and what does it do?"}, *({"speaker": "user", "said": m["content"]} for m in messages)]}

    layouts = {
        "body": lambda b: b,
        "record": lambda b: {"id": 1, "request": b, "response": {"choices": []}},
        "batch": lambda b: {"custom_id": "1", "method": "POST", "url": "/v1/x", "body": b},
        "text": lambda b: {"level": "info", "payload": json.dumps(b)},
    }
    for make, path, format in ((chat, "messages[0].content", "openai-chat"), (responses, "instructions", "openai-responses"), (anthropic, "system[0].text", "anthropic-messages"), (completion, "prompt", "completion"), (renamed, "preamble", "other")):
        for layout, wrap in layouts.items():
            document = lint([wrap(make("21:48")), wrap(make("21:49", {"role": "user", "content": more}))])
            found = document["findings"]
            check([(f["kind"], f["path"]) for f in found] == [("volatileValue", path)], f"{make.__name__} in {layout}: {[(f['kind'], f['path'], f.get('now')) for f in found]}")
            check(document["formats"] == {format: 2}, f"{make.__name__}: {document['formats']}")
            at = len("<|im_start|>system\nIt is ") if make is completion else len("It is ")
            check((found[0]["start"], found[0]["end"]) == (at, at + 5), f"{make.__name__} in {layout}: {found[0]}")
    # Code points, not bytes.
    shifted = lint([chat("21:48"), {**chat("21:49", {"role": "user", "content": more})}])
    text = "\u00e4\u65e5\U0001f600 it is {}. Answer briefly, and always name the file that you looked at."
    shifted = lint([chat("21:48"), chat("21:49", {"role": "user", "content": more})])["findings"][0]
    check((shifted["start"], shifted["end"]) == (10, 15), f"code points: {shifted}")


def file_forms():
    lines, _ = breakages.broken(("time",), 3, 0.4)
    text = ("\n".join(lines) + "\n").encode()
    plain = FOLDER / "log.jsonl"
    plain.write_bytes(text)
    expected = json.loads(run(plain, "--json").stdout)["findings"]
    check(len(expected) == 1, "one finding")
    (FOLDER / "log.gz").write_bytes(gzip.compress(text[:5000]) + gzip.compress(text[5000:]))
    har = {"log": {"entries": [{"startedDateTime": "2026-11-29T21:48:03.000Z", "request": {"method": "POST", "postData": {"text": line}}} for line in lines]}}
    har["log"]["entries"].insert(0, {"request": {"method": "GET", "url": "/"}})
    (FOLDER / "log.har").write_text(json.dumps(har, indent=1))
    (FOLDER / "list.json").write_text(json.dumps([json.loads(line) for line in lines], indent=2))
    names = ["log.gz", "log.har", "list.json"]
    if shutil.which("zstd"):
        subprocess.run(["zstd", "-q", str(plain), "-o", str(FOLDER / "log.zst")], check=True)
        names.append("log.zst")
    for name in names:
        found = json.loads(run(FOLDER / name, "--json").stdout)["findings"]
        same = [(f["kind"], f["path"], f["start"], f["tokens_lost"]) for f in found]
        check(same == [(f["kind"], f["path"], f["start"], f["tokens_lost"]) for f in expected], f"{name}: {same}")
    # Cut files: what is there is read, and it is said where it breaks off.
    for name in names:
        if name in ("log.gz", "log.zst"):
            bytes_ = (FOLDER / name).read_bytes()
            cut = FOLDER / f"cut-{name}"
            cut.write_bytes(bytes_[: int(len(bytes_) * 0.9)])
            done = subprocess.run([COMMAND, "lint", cut, "--json"], capture_output=True)
            check(done.returncode in (0, 1), f"{cut}: {done.stderr}")
            if done.returncode == 0:
                check(json.loads(done.stdout)["broken_off"], f"{cut}: does not say that it is cut")
            damaged = bytearray(bytes_)
            damaged[len(damaged) // 2] ^= 0xFF
            cut.write_bytes(damaged)
            done = subprocess.run([COMMAND, "lint", cut, "--json"], capture_output=True)
            check(done.returncode in (0, 1), f"damaged {cut}: {done.stderr}")


def computed_seconds():
    """What the commands have computed so far: a machine with other work makes it no more."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def hostile_logs():
    good, _ = breakages.broken(("uuid",), 2, 0.5)
    secret = "sk-verysecret0123456789abcdefghijklmnop"
    bad = [
        b'{"messages": [{"role": "user", "content": "' + secret.encode() + b' and then it is cut',
        b"\xff\xfe{}", b'{"messages": [{"role": "user", "content": "\xc3\x28"}]}', b"[" * 100_000, b'{"a":' * 5_000,
        b"not json at all", b'"a text"', b"17", b'{"temperature": 1}', b'{"messages": 5}', b'{"messages": [null, 3, [], {}, {"role": 5}]}',
        b'{"messages": [{"role": "user", "content": "\\ud800 half a pair"}]}', b'{"prompt": [1, 2, 3]}',
        b'{"tools": [1, null, {"function": 3}], "messages": [{"role": "user", "content": [1, null, {"type": 4}]}]}',
    ]
    text = b"\n".join([good[0].encode(), *bad, *(line.encode() for line in good[1:])]) + b"\n"
    done = run("-", "--json", input=text)
    document = json.loads(done.stdout)
    check(kinds(document) == ["volatileValue"], f"hostile lines in between: {kinds(document)}")
    check(document["skipped_lines"] >= 8, f"skipped {document['skipped_lines']}")
    for output in (done, run("-", input=text), run("-", "--sarif", input=text)):
        check(secret.encode() not in output.stdout + output.stderr, "a secret of a broken line is shown")
    # Nothing to read: an error that says what a log is.
    for text, wanted in ((b"", "no requests"), (b"hello\n", "body of a request"), (b"\x28\xb5\x2f\xfd broken", "broken"), (b"\x1f\x8b\x08 broken", "")):
        done = run("-", input=text, status=1)
        check(done.stderr.strip(), f"{text!r}: says nothing")
    check(b"cannot open" in run("/nonexistent/log", status=1).stderr, "a file that is not there")
    check(b"folder" in run(FOLDER, status=1).stderr, "a folder")
    # A long line, and a message of many megabytes.
    big = {"messages": [{"role": "user", "content": "word " * 2_000_000}]}
    changed = copy.deepcopy(big)
    changed["messages"][0]["content"] = "other " + changed["messages"][0]["content"]
    changed["messages"].append({"role": "user", "content": "go on"})
    check(len(lint([big, changed])["findings"]) == 1, "a prompt of 10 MB")
    # Many messages that are all different, and all the same.
    many = {"messages": [{"role": "user", "content": f"message {n}"} for n in range(5_000)]}
    swapped = {"messages": many["messages"][::-1] + [{"role": "user", "content": "go on"}]}
    start = computed_seconds()
    lint([many, swapped])
    same = {"messages": [{"role": "user", "content": "ok"}] * 5_000}
    lint([same, {"messages": same["messages"][:4_000] + [{"role": "assistant", "content": "no"}] * 3_000}])
    # A message of many blocks, many tools under other names, many values in one text, JSON in JSON, and one letter all over.
    texts = breakages.Texts(1)
    words = [texts.sentence() for _ in range(3_000)]
    blocks = lambda mark: {"messages": [{"role": "user", "content": [{"type": "text", "text": f"{mark} {w}"} for w in words]}, {"role": "user", "content": "a question that stays"}]}
    lint([blocks("a"), blocks("b")])
    tools = lambda mark: {"tools": [{"function": {"name": f"{mark}{n}", "description": words[n]}} for n in range(2_000)], "messages": many["messages"][:3]}
    lint([tools("a"), tools("b")])
    values = lambda shift: {"messages": [{"role": "user", "content": " ".join(f"{w} {n + shift}" for n, w in enumerate(words * 3))}, *many["messages"][:3]]}
    changed = values(100_000)
    document = lint([values(0), {"messages": changed["messages"] + [{"role": "user", "content": "go on"}]}])
    check(0 < len(document["findings"]) <= 201, f"{len(document['findings'])} findings in one text")
    objects = lambda keys: {"messages": [{"role": "user", "content": "\n".join(json.dumps({k: n for k in keys}) for n in range(5_000))}, *many["messages"][:3]]}
    changed = {"messages": objects("ba")["messages"] + [{"role": "user", "content": "go on"}]}
    check("keyOrder" in kinds(lint([objects("ab"), changed])), "many objects with other key orders")
    letters = lambda tail: {"messages": [{"role": "user", "content": "a" * 300_000 + tail}, *many["messages"][:3]]}
    lint([letters("b" + "a" * 200_000), {"messages": letters("")["messages"] + [{"role": "user", "content": "a" * 400_000}]}])
    check(computed_seconds() - start < 240, "hostile requests take minutes")


def every_output(lines, *options):
    """All that the command says of a log, in every form."""
    text = ("\n".join(json.dumps(line) for line in lines) + "\n").encode()
    page = FOLDER / "secret.html"
    said = b"".join(run("-", *form, *options, input=text).stdout for form in ((), ("--json",), ("--sarif",), ("--report", page)))
    return said.decode() + page.read_text()


def secrets():
    """Of keys and passwords not more than the beginning; with --redact nothing of a prompt, keys of arguments included."""
    text = "The access is {}. Use it for the files of the project, and tell nobody what it is or where it came from."
    for old, new in (
        ("sk-proj-a8Xk2mQ9vTz4LwPn7Rb3", "sk-proj-c7Yk9nW2xUa5MvQo8Sd4"),
        ("wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPKEY", "xKbmsYVuoGFNJ/L8NEFOH/cQySgjDZaFYBNQLFZ"),
        ("postgres://admin:S3cr3tPassw0rd@db/main", "postgres://admin:N3wS3cr3tW0rd9@db/main"),
        ("https://h.example/f?X-Signature=a8f3c2d1e0b94857", "https://h.example/f?X-Signature=b9e4d3c2f1a05968"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI5ODc2NTQzMjEwIn0"),
    ):
        lines = [{"messages": [{"role": "system", "content": text.format(value)}, {"role": "user", "content": "Where is the parser, and what calls it?"}]} for value in (old, new)]
        lines[1]["messages"].append({"role": "user", "content": "Go on."})
        said = every_output(lines)
        check("volatileValue" in said or "edited" in said, said[:300])
        for secret in (part for value in (old, new) for part in value.replace("/", " ").replace(":", " ").replace("@", " ").replace("=", " ").replace("?", " ").split()):
            check(len(secret) < 12 or secret not in said, f"{secret} is shown")
    call = lambda arguments: {"messages": [  # noqa: E731
        {"role": "user", "content": "Who lives there, and since when do they?"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "look", "arguments": arguments}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Somebody does, but nobody knows since when they have."},
        {"role": "user", "content": "Then ask the neighbours, one after the other."}]}
    body = lambda secret: {"system": "Be brief.", "messages": [  # noqa: E731
        {"role": "user", "content": [{"type": "text", "text": "Who lives there, and since when do they?"}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"Erika Mustermann": {"number": secret, "street": "Main"}}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "Somebody does, and nobody knows since when they have."}]}]}
    for make, old, new in ((call, json.dumps({"Erika Mustermann": 1}), json.dumps({"Erika Mustermann": 2})), (body, 12, 13)):
        lines = [make(old), make(new)]
        lines[1]["messages"].append({"role": "user", "content": "And now the next one, please."})
        check(make is call or "Mustermann" in every_output(lines), "the path of what differs, where nothing is redacted")
        said = every_output(lines, "--redact")
        check("edited" in said or "volatileValue" in said, said[:300])
        check("Mustermann" not in said and "street" not in said, f"a key of arguments is shown: {said[:600]}")


def hidden_history():
    """The responses interface with `previous_response_id`: of the history nothing is known, of what comes before it all."""
    front = "It is 21:4{}. Answer briefly, and always name the file that you looked at before you answer."
    tools = [{"type": "function", "name": name, "description": f"About {name}, and what it is good for.", "parameters": {"type": "object"}} for name in ("read", "write", "ask")]

    def step(number, minute=0, tools=tools, **more):
        return {"model": "m", "instructions": front.format(minute), "input": f"Question {number}, of which nobody knows the answer.", "tools": tools, "previous_response_id": f"resp_{number}", **more}

    first = {key: value for key, value in step(0).items() if key != "previous_response_id"}
    quiet = lint([first, step(1), step(2), step(3), {**step(4), "input": [{"type": "function_call_output", "call_id": "c", "output": "Nothing."}]}])
    check(quiet["findings"] == [] and quiet["requests_with_hidden_history"] == 4, quiet["findings"])
    found = lint([first, step(1), step(2, 1), step(3, 2)])["findings"]
    check([(f["kind"], f["path"], f["line"]) for f in found] == [("volatileValue", "instructions", 3), ("volatileValue", "instructions", 4)], found)
    found = lint([first, step(1), step(2, tools=tools[::-1])])["findings"]
    check([f["kind"] for f in found] == ["toolsReordered"], found)
    found = lint([{**first, "conversation": "conv_1"}, {**step(1), "conversation": {"id": "conv_1"}, "instructions": front.format(7)}])["findings"]
    check([f["kind"] for f in found] == ["volatileValue"], found)
    text = ("\n".join(json.dumps(line) for line in [first, step(1), step(2)]) + "\n").encode()
    check(b"2 requests of which only the server has the history" in run("-", input=text).stdout, "what is not compared is said")


def outputs():
    lines, _ = breakages.broken(("host", "tools reordered"), 4, 0.3)
    text = ("\n".join(lines) + "\n").encode()
    shown = run("-", input=text).stdout.decode()
    check(max(map(len, shown.splitlines())) <= 100, "lines of at most 100 columns")
    check("with all findings mended" in shown and "estimated" in shown, shown)
    prompts = json.loads(lines[-1])["messages"]
    words = [word for m in prompts for word in str(m.get("content", "")).split() if len(word) > 7]
    for options in ((), ("--json",), ("--sarif",)):
        redacted = run("-", "--redact", *options, input=text).stdout.decode()
        check("internal" not in redacted and not any(w in redacted for w in words if w.startswith("worker-")), f"{options}: shows something of a prompt")
    sarif = json.loads(run("-", "--sarif", input=text).stdout)
    result = sarif["runs"][0]["results"][0]
    rules = {rule["id"] for rule in sarif["runs"][0]["tool"]["driver"]["rules"]}
    check(sarif["version"] == "2.1.0" and result["ruleId"] in rules, "SARIF")
    check(result["locations"][0]["physicalLocation"]["region"]["startLine"] == len(lines), "SARIF: line")
    # Exit status and baseline.
    done = run("-", "--fail-under", "99.9", input=text, status=2)
    check(b"below 99.9 %" in done.stderr, done.stderr)
    run("-", "--fail-under", "1", input=text)
    baseline = FOLDER / "known.json"
    run("-", "--write-baseline", baseline, input=text)
    document = json.loads(run("-", "--baseline", baseline, "--json", input=text).stdout)
    check(document["findings"] == [], "known findings are left out")
    other, _ = breakages.broken(("message deleted",), 4, 0.3)
    run("-", "--baseline", baseline, input=("\n".join(other) + "\n").encode(), status=2)
    # Pages, prices, the mended request.
    page = FOLDER / "report.html"
    run("-", "--report", page, input=text)
    check("<svg" in page.read_text() and "http-equiv" in page.read_text(), "the page")
    prices = FOLDER / "prices.json"
    prices.write_bytes(run("--print-prices").stdout)
    priced = json.loads(run("-", "--json", "--prices", prices, "--provider", "anthropic", "--input-price", "3", input=text).stdout)
    per_token = 3 * (1.25 - 0.1) / 1e6
    check(abs(priced["cost"] - priced["tokens_lost"] * per_token) < 1e-9, f"cost: {priced['cost']}")
    check("prefill_seconds" in json.loads(run("-", "--json", "--prefill-rate", "1000", input=text).stdout), "seconds")
    for name, breakage in (("host", ("host",)), ("keys", ("key order",)), ("inserted", ("message inserted",)), ("result", ("tool result removed",)), ("model", ("model switched",))):
        log, _ = breakages.broken(breakage, 1, 0.4)
        fixed = json.loads(run("-", "--show-fixed", len(log), input=("\n".join(log) + "\n").encode()).stdout)
        again = lint(log[:-1] + [json.dumps(fixed)])
        check(not again["findings"], f"{name}: the mended request breaks the prefix: {kinds(again)}")
    run("-", "--show-fixed", "1", input=text, status=1)
    # Wrong command lines.
    for arguments in ([], ["-", "--json", "--sarif"], ["-", "--fail-under", "101"], ["-", "--limit", "0"], ["-", "--store", "x"], ["-", "--redact", "--show-fixed", "1"]):
        run(*arguments, input=text, status=64)


def pauses_and_rates():
    first = actions.conversation()
    def at(seconds, request):
        return {"timestamp": seconds, "request": request}
    def steps(pause):
        request, lines = first, []
        for step in range(4):
            lines.append(at(1_000_000 + step * pause, request))
            request = actions.continued(request, f"Step {step}.")
        return lines
    check(not lint(steps(60))["findings"], "short pauses")
    check(kinds(lint(steps(7_200))).count("resumedAfterPause") == 3, "pauses longer than an hour")
    check(not lint(steps(7_200), "--ttl", "3h")["findings"], "--ttl 3h")
    check(not lint(steps(7_200), "--ttl", "0s")["findings"], "--ttl 0s: never")
    # What a body asks for counts: five minutes by Anthropic's interface, or an hour.
    def marked(pause, ttl):
        system = [{"type": "text", "text": first["messages"][0]["content"], "cache_control": {"type": "ephemeral", **ttl}}]
        return [at(line["timestamp"], {"model": "claude-sonnet-4-5", "system": system, "messages": line["request"]["messages"][1:]}) for line in steps(pause)]
    check(kinds(lint(marked(900, {}))).count("resumedAfterPause") == 3, "pauses of a quarter of an hour, break points of five minutes")
    check(not lint(marked(900, {"ttl": "1h"}))["findings"], "break points of an hour")
    # Writing for an hour costs twice the input price, for five minutes 1.25 of it; reading a tenth.
    for ttl, write in (({}, 1.25), ({"ttl": "1h"}, 2)):
        lost = lint(marked(7_200, ttl), "--provider", "anthropic", "--input-price", "3")
        check(abs(lost["cost"] - lost["tokens_lost"] * 3 * (write - 0.1) / 1e6) < 1e-9, f"{ttl}: {lost['cost']}")
    # Each step another time in front: nothing is found from the second on, and that is a finding of its own.
    lines = []
    for index, request in enumerate(breakages.steps(breakages.transcript(7, turns=8))):
        request = copy.deepcopy(request)
        request["messages"][0]["content"] = f"Now: 21:{10 + index}. " + request["messages"][0]["content"]
        lines.append(json.dumps(request))
    document = lint(lines)
    check(kinds(document).count("volatileValue") == len(lines) - 1, f"a time in each step: {kinds(document)}")
    check("lowHitRate" in kinds(document), "a low hit rate is a finding")
    # Results and calls count once, however often they are sent.
    sent = [m for m in json.loads(lines[-1])["messages"]]
    one = document["conversations"][0]
    check(one["tool_results"] == sum(m["role"] == "tool" for m in sent), f"tool results: {one}")
    check(one["tool_calls"] == one["tool_results"] and one["repeated_tool_calls"] == 0, f"tool calls: {one}")
    check(document["hit_rate"] < 0.5 < document["hit_rate_mended"], "rates as they are and mended")
    # The same, with a value of which nobody knows the shape.
    moods = ["calm", "eager", "tired", "happy", "bored", "sleepy", "wild", "quiet", "loud", "brave"]
    lines = []
    for index, request in enumerate(breakages.steps(breakages.transcript(8, turns=8))):
        request = copy.deepcopy(request)
        request["messages"][0]["content"] = f"Your mood is {moods[index]} today. " + request["messages"][0]["content"]
        lines.append(json.dumps(request))
    check(set(kinds(lint(lines))) == {"volatileValue", "lowHitRate"}, "a word that differs each time")
    # Retrieved text in front of the rules, another one each time.
    texts = breakages.Texts(3)
    lines = []
    for index, request in enumerate(breakages.steps(breakages.transcript(9, turns=8))):
        request = copy.deepcopy(request)
        request["messages"][0]["content"] = f"Context: {texts.text(4)}\nEnd of context.\n" + request["messages"][0]["content"]
        lines.append(json.dumps(request))
    check("dynamicBeforeStatic" in kinds(lint(lines)), "what differs each time in front of what stays")


def a_server_that_counts():
    """Words are its tokens: a template and a tokenizer that anybody can check by hand."""
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments):
            pass

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.headers["Authorization"] != wanted[0]:
                return self.send_error(401)
            if self.path == "/apply-template":
                if not all(isinstance(m["content"], str) for m in body["messages"]):
                    return self.send_error(500)
                answer = {"prompt": " ".join(joined.words(body))}
            elif self.path == "/tokenize":
                answer = {"tokens": [joined.token(word) for word in body["content"].split()]}
            else:
                return self.send_error(404)
            text = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in (text[:7], text[7:]):
                if piece:
                    self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")

    wanted = [None]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    front = "It is 21:4{}. " + "Keep to the point and name files. " * 10
    lines = [{"messages": [{"role": "system", "content": front.format(8)}, {"role": "user", "content": "one two three"}]},
             {"messages": [{"role": "system", "content": front.format(9)}, {"role": "user", "content": "one two three"}, {"role": "user", "content": "four five"}]}]
    document = lint(lines, "--server", url)
    finding = document["findings"][0]
    # 70 words behind the time, and a mark and three words of the first message.
    check(finding["tokens_lost"] == 74 and finding["tokens_estimated"] is False, f"counted by the server: {finding}")
    # What its template refuses is estimated, and the rest is counted.
    images = [{"messages": [{"role": "system", "content": front.format(n)}, {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}, *[{"role": "user", "content": "four five"}] * n]} for n in (0, 1)]
    document = lint(images + lines, "--server", url)
    check([f["tokens_estimated"] for f in document["findings"]] == [True, True, False], document["findings"])
    # A server that wants a key.
    wanted[0] = "Bearer opensesame"
    check(b"LLAMA_API_KEY" in run("-", "--server", url, input=b"{}", status=1).stderr, "which key it wants")
    os.environ["LLAMA_API_KEY"] = "opensesame"
    check(lint(lines, "--server", url)["findings"][0]["tokens_lost"] == 74, "with its key")
    del os.environ["LLAMA_API_KEY"]
    wanted[0] = None
    beside = joined.Joined(COMMAND, FOLDER, lines[0], lambda *options: lint(lines, "--server", url, *options), check)
    beside.run()
    if beside.found:
        beside.kept(FOLDER / "store")
        check(b"namespace" in run("-", "--server", url, "--store", FOLDER / "store", "--namespace", "7", input=b"{}", status=1).stderr, "a namespace that is not there")
    (FOLDER / "empty").mkdir()
    check(run("-", "--server", url, "--store", FOLDER / "empty", input=b"{}", status=1).stderr, "a folder that is no store")
    server.shutdown()
    server.server_close()
    check(b"nobody answers" in run("-", "--server", url, input=b"{}", status=1).stderr, "a server that is gone")
    check(b"http://" in run("-", "--server", "https://x", input=b"{}", status=1).stderr, "no encryption")


def watching():
    path = FOLDER / "growing.jsonl"
    lines, _ = breakages.broken(("time",), 3, 0.4)
    path.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:500])
    process = subprocess.Popen([COMMAND, "lint", "--watch", str(path)], stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(0.5)
        with path.open("a") as file:
            file.write(lines[-1][500:] + "\n")
        line = process.stdout.readline()
        check(f"line {len(lines)}" in line and "time" in line, f"--watch: {line!r}")
        # Put aside for a new one, and cut for a shorter one: each is read from its beginning.
        for seed, replaces in ((4, True), (5, False)):
            pair = "\n".join(breakages.broken(("time",), seed, 0.4)[0][-2:]) + "\n"
            if replaces:
                other = FOLDER / "new.jsonl"
                other.write_text(pair + lines[0] + "\n")
                os.replace(other, path)
            else:
                assert len(pair) < path.stat().st_size
                path.write_text(pair)
            line = process.stdout.readline()
            check("line 2" in line and "time" in line, f"--watch, {'another file' if replaces else 'cut'}: {line!r}")
    finally:
        process.kill()
        process.wait()


try:
    for test in (the_ten_actions, interfaces, file_forms, hostile_logs, secrets, hidden_history, outputs, pauses_and_rates, a_server_that_counts, watching):
        test()
        print(f"{test.__name__.replace('_', ' ')}: ok", flush=True)
finally:
    shutil.rmtree(FOLDER, ignore_errors=True)
print(f"lint: {checks} checks")
