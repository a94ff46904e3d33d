"""The interfaces beside chat and completion: /v1/messages, /v1/responses, cache_control."""
import json
import os
import signal
import socket
import subprocess
import time

from harness import Companion, Server, Skipped, check, equal, random_tokens, wait_for
from support import BLOCK, SYSTEM, Stream, chat, pair, restart, said

TOOL = {
    "name": "weather",
    "description": "Tells the weather.",
    "input_schema": {"type": "object", "properties": {"town": {"type": "string"}}},
}


def tool_talk():
    return [
        {"role": "user", "content": [{"type": "text", "text": "what is it like in M\u00fcnchen? "}, {"type": "text", "text": "now"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "I ask.", "signature": "x"},
                {"type": "text", "text": "let me look"},
                {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"town": "M\u00fcnchen \"a\"\n\t", "n": [1, 2.5, True]}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": [{"type": "text", "text": "rain"}]},
                {"type": "text", "text": "and tomorrow?"},
            ],
        },
    ]


def test_messages_with_tools(place, processes):
    """Tools, their results and thinking: our prompt has as many tokens as the server's, and comes back after a restart, in
    whichever slot the server takes."""
    server, beside = pair(place, processes, "attention", "-np", "3", "--cache-ram", "0")
    body = {
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1; cch=a5145;You are careful. "},
            {"type": "text", "text": SYSTEM},
        ],
        "tools": [TOOL],
        "messages": tool_talk(),
        "max_tokens": 4,
        "temperature": 0,
    }
    count = server.client.post("/v1/messages/count_tokens", body).json["input_tokens"]
    first = beside.client.post("/v1/messages", body)
    equal(first.status, 200, first.body)
    equal(first.prefix[1], count, "tokens")
    usage = first.json["usage"]
    equal(usage["cache_read_input_tokens"] + usage["input_tokens"], count)
    equal(usage["cache_read_input_tokens"], 0, "what was computed ahead is told as read")
    check(beside.last()["new_blocks"] >= count // 64, beside.last())
    for turn in range(3):
        restart(server, beside)
        # The slots are not the ones that were used last.
        for slot in range(turn):
            server.client.complete([1, 300, 301], 0, id_slot=slot)
        body["system"][0]["text"] = f"x-anthropic-billing-header: cc_version=2.1; cch=b514{turn};You are careful. "
        again = beside.client.post("/v1/messages", {**body, "stream": True})
        equal(again.status, 200, again.body)
        start = json.loads(again.body.decode().split("data: ")[1].split("\n")[0])
        usage = start["message"]["usage"]
        check(usage["cache_read_input_tokens"] >= count - 65, "read", usage, beside.last())
        equal(usage["cache_read_input_tokens"] + usage["input_tokens"], count)
    equal(beside.metric("kvstore_llama_prompts_misjudged_total"), 0)


def test_responses(place, processes):
    """/v1/responses with instructions, calls and outputs: the same tokens as the server's, and back after a restart."""
    server, beside = pair(place, processes, "attention", "-np", "2", "--cache-ram", "0")
    body = {
        "instructions": SYSTEM,
        "tools": [{"type": "function", "name": "weather", "parameters": TOOL["input_schema"]}],
        "input": [
            {"role": "user", "content": "what is it like?"},
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{\"town\":\"a\"}"},
            {"type": "function_call_output", "call_id": "c1", "output": "rain"},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "it rains"}]},
            {"role": "user", "content": [{"type": "input_text", "text": "and tomorrow?"}]},
        ],
        "max_output_tokens": 4,
        "temperature": 0,
    }
    first = beside.client.post("/v1/responses", body)
    equal(first.status, 200, first.body)
    count = first.json["usage"]["input_tokens"]
    equal(first.prefix, (0, count, "none"))
    beside.quiet()
    restart(server, beside)
    for stream in (False, True):
        again = beside.client.post("/v1/responses", {**body, "stream": stream})
        text = again.body.decode()
        usage = again.json["usage"] if not stream else json.loads(text.split("response.completed\ndata: ")[1].split("\n")[0])["response"]["usage"]
        check(usage["input_tokens_details"]["cached_tokens"] >= count - 65, usage, beside.last())
    equal(beside.last()["cached"], usage["input_tokens_details"]["cached_tokens"])
    equal(beside.metric("kvstore_llama_prompts_misjudged_total"), 0)


def test_cache_control(place, processes):
    """Break points are pinned for their time, and told as the hosted interface does."""
    server, beside = pair(place, processes, "attention", "-np", "2", "--cache-ram", "0")
    minute, hour = {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}
    body = {
        "system": [{"type": "text", "text": SYSTEM * 2, "cache_control": hour}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "a question " * 20, "cache_control": minute}]},
        ],
        "max_tokens": 4,
        "temperature": 0,
    }
    count = server.client.post("/v1/messages/count_tokens", body).json["input_tokens"]
    for stream in (False, True):
        answer = beside.client.post("/v1/messages", {**body, "stream": stream})
        if stream:
            usage = json.loads(answer.body.decode().split("data: ")[1].split("\n")[0])["message"]["usage"]
        else:
            usage = answer.json["usage"]
        total = usage["input_tokens"] + usage["cache_read_input_tokens"] + usage["cache_creation_input_tokens"]
        equal(total, count, usage)
        kept = beside.last()["kept"]
        equal(len(kept), 2, beside.last())
        check(1024 <= kept[0] < kept[1] <= count, kept, count)
        if not stream:
            pins = beside.metric("kvstore_pins")
            check(pins >= 2, pins, "pins")
            equal(usage["cache_read_input_tokens"], 0)
            equal(usage["cache_creation_input_tokens"], kept[1])
            created = usage["cache_creation"]
            equal(created["ephemeral_1h_input_tokens"], kept[0])
            equal(created["ephemeral_5m_input_tokens"], kept[1] - kept[0])
        else:
            equal(usage["cache_creation_input_tokens"], max(0, kept[1] - usage["cache_read_input_tokens"]))
    beside.quiet()
    # Used twice: the second pin of each took the place of the first.
    equal(beside.metric("kvstore_llama_pins_total"), 4)
    equal(beside.metric("kvstore_pins"), pins)
    short = {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": minute}]}], "max_tokens": 2}
    usage = beside.client.post("/v1/messages", short).json["usage"]
    check("cache_creation_input_tokens" not in usage, "shorter than is kept:", usage)


def test_hints(place, processes):
    """Pins, keep-alive, TTL and priority, by header and in the body; nonsense in them is no error."""
    server, beside = pair(place, processes, "attention", "-np", "1", companion=("--ttl", "3600"))
    prompt = [1] + [270 + i % 60 for i in range(300)]
    beside.client.complete(prompt, headers={"x-kvstore-pin": "60", "x-kvstore-keep-alive": "7200"})
    beside.quiet()
    pins = beside.metric("kvstore_pins")
    check(pins >= 1, "no pin")
    beside.client.complete(prompt, kvstore={"pin": 60, "ttl": 10, "priority": 7})
    beside.quiet()
    equal(beside.metric("kvstore_pins"), pins)
    for hint in ("-1", "x", "1e9", "99999999999999999999", ""):
        headers = {f"x-kvstore-{name}": hint for name in ("pin", "keep-alive", "ttl", "priority")}
        beside.client.complete(prompt, headers=headers, kvstore={"pin": hint, "ttl": [], "priority": None})
    beside.client.complete(prompt, kvstore="no object")
    beside.quiet()


def test_the_end_of_a_conversation(place, processes):
    """What a conversation leaves is removed once it is over, or goes on from a summary; what another prompt shares stays."""
    for kind in ("attention", "window", "hybrid"):
        (place / kind).mkdir()
        server, beside = pair(place / kind, processes, kind, "-np", "1")
        front = random_tokens(200, 1)

        def stored(prompt, **hints):
            """The blocks and states of the store once an answer is settled."""
            beside.client.complete(prompt, **hints)
            beside.quiet()
            return beside.status()["store"]["blocks"]

        def part(count, seed):
            return random_tokens(count + 1, seed)[1:]

        other = front + part(300, 2)
        stored(other)
        # Summaries of that length, without hints; the first one also stores what they share of the windows.
        first = stored(front + part(150, 3))
        before = stored(front + part(150, 8))
        of_summary = before - first
        check(of_summary > 0, kind, first, before)

        talk = front + part(300, 4)
        after = stored(talk, headers={"x-kvstore-session": "one"})
        talk += part(300, 5)
        last = stored(talk, kvstore={"session": "one"})
        check(last > after > before, kind, before, after, last)
        # Another conversation has nothing that it could go on from; what it leaves goes with it.
        check(stored(front + part(300, 6), kvstore={"session": "another", "compacted": True}) > last, kind)
        equal(stored(front + part(300, 6), kvstore={"session": "another", "end": True}), last, kind, "another ends")
        compacted = front + part(150, 7)
        equal(stored(compacted, headers={"x-kvstore-session": "one", "x-kvstore-compacted": "1"}), before + of_summary, kind, "compacted")
        equal(stored(compacted, headers={"x-kvstore-session": "one", "x-kvstore-end": "1"}), before, kind, "ends")
        # What is no hint removes nothing.
        for hints in ({"end": 1}, {"end": "true"}, {"session": 7, "compacted": True}, {"session": "n" * 65, "compacted": True}):
            equal(stored(other, kvstore=hints), before, kind)
        restart(server, beside)
        used, total, _ = beside.client.complete(other).prefix
        check(total - used <= BLOCK, kind, used, total)
        beside.quiet()
        for process in (beside, server):
            process.kill(signal.SIGKILL)


def test_tells_why_in_the_requests_own_text(place, processes):
    """A time in front, in another form of each interface: the field, the characters, what it was, and what it costs."""
    server, beside = pair(place, processes, "attention", "-np", "1", "--cache-ram", "0")
    talk = [{"role": "user", "content": "what is there to see? " * 8}]

    # Another word for each interface: what one has stored the others would find.
    def system(minute):
        return f"{word}: now it is 2026-11-29 21:{minute}. " + SYSTEM

    forms = {
        "/v1/chat/completions": lambda minute: {"messages": [{"role": "system", "content": system(minute)}] + talk, "max_tokens": 2},
        "/v1/messages": lambda minute: {"system": system(minute), "messages": talk, "max_tokens": 2},
        "/v1/responses": lambda minute: {"instructions": system(minute), "input": talk, "max_output_tokens": 2},
    }
    places = {"/v1/chat/completions": "messages[0].content", "/v1/messages": "system", "/v1/responses": "instructions"}
    for word, (path, form) in zip(("one", "two", "six"), forms.items()):
        equal(beside.client.post(path, form(48)).status, 200)
        equal(beside.client.post(path, form(49)).status, 200)
        last = beside.last()
        check("changes" in last, json.dumps(last))
        change = last["changes"][0]
        equal((change["path"], change["kind"]), (places[path], "volatileValue"), last)
        text = system(49)
        check("49" in text[change["start"] : change["end"]], change)
        check("48" in change["was"] and "49" in change["now"], change)
        check(change["tokens"] > 150, change)
        for part in (places[path], "characters", change["now"], change["was"], "tokens"):
            check(part in last["why"], part, "is not in", last["why"])
    whole = beside.client.get(f"/kvstore/requests/{last['id']}").json
    equal(whole["changes"], last["changes"])
    # Appended: nothing to tell.
    word = "two"
    talk.append({"role": "assistant", "content": "nothing"})
    talk.append({"role": "user", "content": "more?"})
    beside.client.post("/v1/messages", forms["/v1/messages"](49))
    check("changes" not in beside.last(), beside.last())


def test_texts_stay_with_their_tenant(place, processes):
    """What one caller asked is not told to another, nor shown to anyone without the companion's key; nothing with --no-texts."""
    server = Server(place, "attention", "-np", "1", "--cache-ram", "0", "--api-key", "one,two,three")
    processes.append(server)
    beside = Companion(place, server, "--api-key", "three", "--tenant-by-key")
    processes.append(beside)
    for key, secret in (("one", "swordfish"), ("two", "something")):
        body = {"messages": [{"role": "system", "content": f"The word is {secret}. " + SYSTEM}], "max_tokens": 2}
        equal(beside.client.post("/v1/chat/completions", body, headers={"Authorization": f"Bearer {key}"}).status, 200)
    check("swordfish" not in json.dumps(beside.last()), beside.last())
    for path in ("/kvstore/requests", "/kvstore/sessions", "/kvstore/status"):
        for key in ("one", "x", ""):
            equal(beside.client.get(path, headers={"Authorization": f"Bearer {key}"}).status, 401, path)
    beside.kill()
    beside.flags += ["--no-texts"]
    beside.start()
    for minute in (1, 2):
        body = {"messages": [{"role": "system", "content": f"{minute} o'clock. " + SYSTEM}], "max_tokens": 2}
        beside.client.post("/v1/chat/completions", body, headers={"Authorization": "Bearer one"})
    check("changes" not in beside.last() and "o'clock" not in json.dumps(beside.last()), beside.last())


def test_sessions_are_in_the_store(place, processes):
    """Each conversation is a session of the store, with its steps."""
    command = os.path.join(os.environ["KVSTORE_PREFIX"], "bin", "kvstore")
    if not os.path.exists(command):
        raise Skipped("no kvstore command")
    server, beside = pair(place, processes, "attention", "-np", "1", "--cache-ram", "0")
    for name in ("a", "b"):
        talk = [{"role": "system", "content": f"You are {name}. " + SYSTEM}]
        for turn in range(3):
            talk.append({"role": "user", "content": f"question {turn}"})
            answer = chat(beside.client, talk)
            talk.append({"role": "assistant", "content": said(answer)})
            # A step says what the store had when it began.
            beside.quiet()
    beside.quiet()
    equal(beside.kill(signal.SIGTERM), 0)
    done = subprocess.run([command, "inspect", "sessions", place / "store", "--json"], capture_output=True, text=True)
    equal(done.returncode, 0, done.stderr[-400:])
    sessions = json.loads(done.stdout)["sessions"]
    equal(sorted(session["step_count"] for session in sessions), [3, 3])
    for session in sessions:
        steps = session["steps"]
        check(steps[2]["matched_token_count"] > steps[0]["token_count"] - BLOCK, steps)
        check(steps[2]["computed_token_count"] < 200, steps)


def test_called_kvstore_it_is_the_command(place, processes):
    """One program in the wheel: under the command's name it is the command, and starts itself as that."""
    command = place / "kvstore"
    command.symlink_to(os.environ["KVSTORE_LLAMA"])

    def run(*arguments):
        done = subprocess.run([command, *map(str, arguments)], capture_output=True, text=True)
        equal(done.returncode, 0, done.stderr[-400:])
        return done.stdout

    check(run("--help").startswith("OVERVIEW: Look inside a store"), "another program's help")
    equal(json.loads(run("init", place / "own", "--capacity", "64MiB", "--json"))["capacity_bytes"], 64 << 20)
    run("bench", "multiprocess", "--total", "2MiB", "--runs", "1", "--path", place)


def test_warm_and_prefetch(place, processes):
    """A prompt that was warmed is in memory when it is asked; one that is stored is brought into RAM."""
    for kind, flags in (("attention", ("-np", "2")), ("window", ("-np", "1"))):
        sub = place / kind
        sub.mkdir()
        server, beside = pair(sub, processes, kind, *flags)
        talk = {"messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "hello"}]}
        cold = beside.client.post("/kvstore/prefetch", talk).json
        equal(cold["stored"], 0)
        warmed = beside.client.post("/kvstore/warm", {**talk, "kvstore": {"pin": 60}})
        equal(warmed.status, 200, warmed.body)
        equal((warmed.json["reused"], warmed.json["computed"]), (0, warmed.json["tokens"]))
        beside.quiet()
        check(beside.metric("kvstore_pins") >= 1, "no pin")
        answer = chat(beside.client, talk["messages"])
        equal(answer.prefix[:2], (warmed.json["tokens"] - 1, warmed.json["tokens"]))
        restart(server, beside)
        found = beside.client.post("/kvstore/prefetch", talk).json
        equal(found["stored"], found["tokens"] // BLOCK * BLOCK)
        again = beside.client.post("/kvstore/warm?for=/v1/chat/completions", talk).json
        check(again["reused"] >= again["tokens"] - BLOCK, again)
        beside.kill()
        server.kill()
    server, beside = pair(place, processes)
    for body, status in ((b"{", 422), ({"messages": 1}, 422), ({"prompt": "a", "n": 2}, 422), ({"prompt": {"a": 1}}, 422)):
        for path in ("/kvstore/warm", "/kvstore/prefetch"):
            check(beside.client.post(path, body).status in (status, 400), path, body)
    server.kill()
    for path in ("/kvstore/warm", "/kvstore/prefetch"):
        equal(beside.client.post(path, {"prompt": "some text"}).status, 503, path)


def test_warm_wants_the_servers_key(place, processes):
    server = Server(place, "attention", "-np", "1", "--api-key", "one,three")
    processes.append(server)
    beside = Companion(place, server, "--api-key", "three")
    processes.append(beside)
    for path in ("/kvstore/warm", "/kvstore/prefetch"):
        for key, good in (("wrong", False), ("one", True)):
            answer = beside.client.post(path, {"prompt": "some text " * 30}, headers={"Authorization": f"Bearer {key}"})
            equal(answer.status == 200, good, path, key, answer.body)


def test_adapters_of_a_request_are_not_stored(place, processes):
    """While a request with adapters of its own is under way, whatever slot it has: nothing that is saved is stored."""
    server, beside = pair(place, processes, "attention", "-np", "2", "-b", "32", "--cache-ram", "0", "--no-kv-unified")
    stream = Stream(beside.port, {"prompt": random_tokens(3500, 3), "n_predict": 16, "lora": [{"id": 0, "scale": 0.5}], "stream": True})
    wait_for("the request to be passed on", lambda: beside.status()["passed"].get("adapters of its own"))
    beside.client.complete(random_tokens(300, 4))
    check(not stream.data, "it had ended before")
    stream.event()
    stream.leave()
    beside.quiet()
    equal(beside.status()["store"]["blocks"], 0, "stored")
    beside.client.complete(random_tokens(300, 4))
    beside.quiet()
    check(beside.status()["store"]["blocks"] >= 4, beside.status())


def test_what_the_server_forgets_is_woken(place, processes):
    """Of several that wait for one slot the server wakes one, and slot actions wake none in turn: a request behind them is
    answered all the same."""
    server, beside = pair(place, processes, "attention", "-np", "2", "-b", "32", "--cache-ram", "0")
    beside.client.complete(random_tokens(300, 4))
    beside.quiet()
    busy = Stream(server.port, {"prompt": random_tokens(2500, 3), "n_predict": 16, "id_slot": 0, "stream": True})
    wait_for("a busy slot", lambda: any(slot["is_processing"] for slot in server.client.slots()))
    saves = []
    for index in range(2):
        body = json.dumps({"filename": f"own{index}"}).encode()
        save = socket.create_connection(("127.0.0.1", server.port))
        head = f"POST /slots/0?action=save HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        save.sendall(head.encode() + body)
        saves.append(save)
    time.sleep(0.1)
    check(not busy.data, "it had ended before")
    answer = beside.client.post("/completion", {"prompt": random_tokens(300, 4), "n_predict": 2}, timeout=50)
    equal(answer.status, 200)
    equal(answer.json["id_slot"], 0, "another slot than the busy one")
    check(beside.metric("kvstore_llama_wakes_total") >= 1, "it was not put off")
    for save in saves:
        save.close()
    for name in os.listdir(os.path.realpath(server.slots_folder)):
        os.unlink(os.path.join(os.path.realpath(server.slots_folder), name))
