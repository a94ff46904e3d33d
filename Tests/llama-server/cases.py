#!/usr/bin/env python3
"""The cases. Each gets a folder of its own, and a list for the processes that it starts."""
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time

from harness import (
    MODELS,
    Between,
    Client,
    Companion,
    Failed,
    Server,
    Skipped,
    cached,
    check,
    equal,
    figures,
    free_port,
    random_tokens,
    run_all,
    text_of,
    wait_for,
)
from support import BLOCK, SYSTEM, Stream, agree, chat, pair, restart, said, settled

# ---------------------------------------------------------------- kinds of models


def goes_on(place, processes, kind, *flags, exact=True, count=1000, context=8192):
    """After a kill of both at most one block of what was asked before is computed, and the answer is the one of the server's own
    memory."""
    server, beside = pair(place, processes, kind, *flags, context=context)
    prompt = random_tokens(count, 7)
    more = prompt + random_tokens(60, 8)[1:]

    # The server alone: computes the prompt, then goes on in its own memory, with the very batches of a restored one.
    server.client.complete(prompt[:-1], 0, id_slot=0)
    alone = server.client.complete(more, 16, id_slot=0)
    equal(cached(alone), len(prompt) - 1, "the server's own cache")
    server.client.post("/slots/0?action=erase", {})

    first = beside.client.complete(prompt[:-1], 0)
    equal(first.prefix, (0, len(prompt) - 1, "none"))
    beside.quiet()
    beside.stored(len(prompt) // BLOCK)
    wait_for("the end", lambda: beside.last()["new_blocks"] == (len(prompt) - 1) // BLOCK)

    restart(server, beside)
    warm = beside.client.complete(more, 16)
    used, total, tier = warm.prefix
    equal((total, tier), (len(more), "disk"), beside.last())
    check(used >= len(prompt) - 1 - BLOCK, "restored", used, "of", len(prompt), beside.last())
    equal(text_of(warm), text_of(alone), "the answer")
    if exact and used == len(prompt) - 1:
        equal(figures(warm), figures(alone), "bit identity")
    else:
        difference = max(
            abs(a[1] - b[1]) for a, b in zip(sum(figures(warm), []), sum(figures(alone), []))
        )
        check(difference < 0.35, "logarithms differ by", difference)
    # The figures of the server are those of the whole prompt.
    timings = warm.json["timings"]
    equal(timings["cache_n"] + timings["prompt_n"], len(more), "the figures' sum")
    check(timings["cache_n"] >= used, timings)


def test_attention(place, processes):
    goes_on(place, processes, "attention", "-np", "1")


def test_attention_quantised(place, processes):
    goes_on(place, processes, "attention", "-np", "1", "-ctk", "q8_0", "-ctv", "q8_0")


def test_attention_without_flash(place, processes):
    goes_on(place, processes, "attention", "-np", "1", "-fa", "off")


def test_attention_streams(place, processes):
    goes_on(place, processes, "attention", "-np", "3", "--no-kv-unified")


def test_window(place, processes):
    goes_on(place, processes, "window", "-np", "1", exact=False)


def test_window_without_flash(place, processes):
    goes_on(place, processes, "window", "-np", "1", "-fa", "off", exact=False)


def test_recurrent(place, processes):
    goes_on(place, processes, "recurrent", "-np", "1")


def test_hybrid(place, processes):
    goes_on(place, processes, "hybrid", "-np", "1")


def test_gpt_oss(place, processes):
    """Windows of each second layer, and sinks."""
    goes_on(place, processes, "oss", "-np", "1", exact=False)


def test_gpt_oss_quantised(place, processes):
    goes_on(place, processes, "oss", "-np", "1", "-ctk", "q8_0", "-ctv", "q8_0", exact=False)


def test_llama4(place, processes):
    """Chunks of 8,192 tokens: the one that a prompt ends in may be younger than what the server could want."""
    goes_on(place, processes, "llama4", "-np", "1", exact=False, count=8700, context=9216)


def test_qwen3next(place, processes):
    goes_on(place, processes, "qwen3next", "-np", "1", exact=False)


def test_granite(place, processes):
    goes_on(place, processes, "granite", "-np", "1", exact=False)


def test_hybrid_quantised(place, processes):
    goes_on(place, processes, "hybrid", "-np", "1", "-ctk", "q8_0", "-ctv", "q8_0")


def test_zeroed_payload_is_noticed(place, processes):
    """The control: with the payload zeroed on its way the answer is another one, so what is restored is what is used."""
    server = Server(place, "attention", "-np", "1")
    processes.append(server)
    seen = []

    def zero(data):
        if b"action=restore" not in data:
            return
        name = re.search(rb'"filename":"([^"]+)"', data).group(1).decode()
        path = os.path.join(os.path.realpath(server.slots_folder), name)
        size = os.path.getsize(path)
        # The values of the last layers: no length and no type.
        with open(path, "r+b") as file:
            file.seek(size - size // 8)
            file.write(b"\0" * (size // 8))
        seen.append(size)

    between = Between(server, zero)
    beside = Companion(place, between)
    processes.append(beside)
    prompt = random_tokens(1000, 9)
    good = beside.client.complete(prompt, 16)
    beside.quiet()
    before = len(seen)
    server.client.post("/slots/0?action=erase", {})
    bad = beside.client.complete(prompt, 16)
    check(len(seen) > before, "nothing was restored")
    check(cached(bad) > 900, "nothing was used")
    try:
        agree(bad, good)
    except Failed:
        return
    raise Failed("zeroed values change nothing")


def test_foreign_use_of_a_slot(place, processes):
    """Who uses the server without us takes a slot; what is in it is not taken for ours."""
    server, beside = pair(place, processes, "attention", "-np", "1")
    prompt = random_tokens(600, 3)
    good = beside.client.complete(prompt)
    beside.quiet()
    # As long as ours, so that its length tells nothing.
    count = server.client.slots()[0]["n_prompt_tokens"]
    server.client.complete(random_tokens(count, 4), 0, id_slot=0)
    again = beside.client.complete(prompt)
    agree(again, good)
    check(again.prefix[2] in ("host", "disk"), again.prefix)
    check(cached(again) >= 512, cached(again))


def test_slot_is_used_while_the_server_is_looked_at(place, processes):
    """Who uses the slot between two steps of the look makes no request pass: it is looked at again at once."""
    server = Server(place, "attention", "-np", "1")
    processes.append(server)
    uses = []

    def use(data):
        if len(uses) < 2:
            uses.append(data)
            server.client.complete(random_tokens(300, len(uses)), 0, id_slot=0)

    beside = Companion(place, Between(server, use))
    processes.append(beside)
    equal(len(uses), 2, "uses")
    equal(beside.status()["standing"], "attached", beside.status())
    prompt = random_tokens(600, 3)
    beside.client.complete(prompt)
    beside.quiet()
    check(beside.client.complete(prompt).prefix[0] >= 512, beside.last())


def test_other_model_on_the_port(place, processes):
    """A server that was swapped for another model gets nothing of the first one's."""
    server, beside = pair(place, processes, "attention", "-np", "1")
    prompt = random_tokens(600, 5)
    beside.client.complete(prompt)
    beside.quiet()
    server.kill()
    server.model = MODELS / "hybrid.gguf"
    server.start()
    alone = text_of(server.client.complete(prompt, id_slot=0, cache_prompt=False))
    other = beside.client.complete(prompt)
    equal(other.prefix, (0, 600, "none"))
    equal((cached(other), text_of(other)), (0, alone))
    beside.quiet()
    server.kill()
    server.model = MODELS / "attention.gguf"
    server.start()
    check(beside.client.complete(prompt).prefix[0] >= 512, "the first model's prefix is gone")


def swapped_at(place, processes, action):
    """A server, and a companion that reaches it through something that swaps it for a model of the same layout in the
    middle of a slot action, once it is armed."""
    server = Server(place, "attention", "-np", "1")
    processes.append(server)
    armed = []

    def swap(data):
        if armed and action in data:
            armed.clear()
            server.kill()
            server.model = MODELS / "other.gguf"
            server.start()

    between = Between(server, swap)
    beside = Companion(place, between)
    processes.append(beside)
    return server, beside, armed


def test_swapped_between_decision_and_restore(place, processes):
    """The other model's server takes the file, since its layout is the same: its answer must not be made from it."""
    server, beside, armed = swapped_at(place, processes, b"action=restore")
    prompt = random_tokens(600, 5)
    beside.client.complete(prompt)
    beside.quiet()
    server.client.post("/slots/0?action=erase", {})
    armed.append(True)
    answer = beside.client.complete(prompt)
    check(not armed, "nothing was restored")
    equal(answer.prefix, (0, 600, "none"), "found for the other model")
    beside.quiet()
    alone = server.client.complete(prompt, id_slot=0, cache_prompt=False)
    agree(answer, alone)


def test_swapped_between_answer_and_save(place, processes):
    """What the other model's server saves is not stored as the first one's."""
    server, beside, armed = swapped_at(place, processes, b"action=save")
    prompt = random_tokens(600, 5)
    alone = server.client.complete(prompt, id_slot=0, cache_prompt=False)
    server.client.post("/slots/0?action=erase", {})
    armed.append(True)

    # Until its slot is saved, the new server gets the same prompt: the tokens in it tell nothing.
    original = server.start

    def start_and_ask():
        original()
        server.client.complete(prompt, id_slot=0)

    server.start = start_and_ask
    beside.client.complete(prompt)
    wait_for("the swap", lambda: not armed)
    server.start = original
    beside.quiet()
    server.kill()
    server.model = MODELS / "attention.gguf"
    server.start()
    answer = beside.client.complete(prompt)
    equal(answer.prefix[0], 0, "stored from the other model")
    agree(answer, alone)


def test_full_window(place, processes):
    """--swa-full: refused with the server's own cache in RAM; else a slot that is left in its middle is erased."""
    server = Server(place, "window", "-np", "1", "--swa-full")
    processes.append(server)
    beside = Companion(place, server)
    processes.append(beside)
    equal(beside.status()["standing"], "passing")
    check("--swa-full" in beside.status()["why"], beside.status())
    beside.kill()
    server.kill()
    server.flags += ["--cache-ram", "0"]
    server.start()
    beside.start()
    equal(beside.status()["standing"], "attached", beside.status())
    prompt = random_tokens(1000, 6)
    beside.client.complete(prompt, 0)
    beside.quiet()
    server.client.post("/slots/0?action=erase", {})
    check(beside.client.complete(prompt + [300] * 8, 0).prefix[0] >= 900, "not restored")
    beside.quiet()
    # In the middle of the last window of what was restored.
    fork = prompt[:940] + random_tokens(40, 11)[1:]
    answer = beside.client.complete(fork)
    beside.quiet()
    server.client.post("/slots/0?action=erase", {})
    alone = server.client.complete(fork, id_slot=0, cache_prompt=False)
    agree(answer, alone)


# ---------------------------------------------------------------- conversations


def test_conversations_share_and_survive(place, processes):
    """Twenty conversations on one system prompt: stored once, and each goes on after a kill of both."""
    server, beside = pair(place, processes, "attention", "-np", "2", "--cache-ram", "0")
    talks = [[{"role": "system", "content": SYSTEM}] for _ in range(20)]
    whole = 0
    for turn in range(2):
        for index, talk in enumerate(talks):
            talk.append({"role": "user", "content": f"talk {index}, question {turn}?"})
            answer = chat(beside.client, talk)
            talk.append({"role": "assistant", "content": said(answer)})
            if turn == 1:
                whole += answer.json["usage"]["total_tokens"]
    beside.quiet()
    row = 3 * 2 * 64 * 2
    used = beside.status()["store"]["blocks"] * BLOCK * row
    check(used * 4 <= whole * row, "stored", used, "of", whole * row, "in whole slot files")
    restart(server, beside)
    for index, talk in enumerate(talks):
        prompt = talk + [{"role": "user", "content": "and now?"}]
        answer = chat(beside.client, prompt)
        last = beside.last()
        told = answer.json["usage"]["prompt_tokens_details"]["cached_tokens"]
        # Where the slot has nearly as much, what is found is left where it is: that is by the measured times.
        new = last["tokens"] - max(told, last["found"])
        # The new message, and of what was there a block at most.
        check(new <= BLOCK + 40, "talk", index, "computed", new, "of", last)


def test_window_fork_becomes_an_end(place, processes):
    """Where prompts part, the third one goes on from there: the second one has made an end."""
    server, beside = pair(place, processes, "window", "-np", "1", "--cache-ram", "0")
    front = random_tokens(1024, 20)
    for seed in (21, 22):
        beside.client.complete(front + random_tokens(300, seed)[1:], 4)
        beside.quiet()
        server.client.post("/slots/0?action=erase", {})
    third = beside.client.complete(front + random_tokens(300, 23)[1:], 4)
    check(third.prefix[0] >= 1024 - BLOCK, third.prefix, beside.last())
    # What was computed ahead is told as computed.
    check(cached(third) <= 1024, third.json["timings"])


def payload(beside):
    lines = beside.client.get("/metrics").body.decode().splitlines()
    return sum(float(line.split(" ")[-1]) for line in lines if line.startswith("kvstore_payload_bytes{"))


def test_windows_are_shared(place, processes):
    """Ends near each other share the blocks of their windows, and each conversation goes on from its own after a restart."""
    server, beside = pair(place, processes, "window", "-np", "1", "--cache-ram", "0")
    front = random_tokens(1060, 24)
    talks = [front + random_tokens(20, 60 + index)[1:] for index in range(8)]
    whole, begin = 0, payload(beside)
    folder = os.path.realpath(server.slots_folder)
    for turn in range(3):
        for talk in talks:
            answer = beside.client.complete(talk, 8, return_tokens=True)
            talk += answer.json["tokens"]
            beside.quiet()
            server.client.post("/slots/0?action=save", {"filename": "whole"})
            whole += os.path.getsize(os.path.join(folder, "whole"))
            os.unlink(os.path.join(folder, "whole"))
            if turn < 2:
                talk += random_tokens(10, len(talk))[1:]
    stored = payload(beside) - begin
    check(stored * 5 <= whole, "stored", stored, "of", whole, "in whole slot files")
    restart(server, beside)
    for index, talk in enumerate(talks):
        more = talk + random_tokens(12, index)[1:]
        answer = beside.client.complete(more, 8)
        # Of ends behind one block the first is kept.
        check(cached(answer) >= len(talk) - 1 - BLOCK, "talk", index, "cached", cached(answer), "of", len(talk), beside.last())
        beside.quiet()
        server.client.post("/slots/0?action=erase", {})
        agree(answer, server.client.complete(more, 8, id_slot=0, cache_prompt=False), "talk", index)


def test_reasoning_is_stripped(place, processes):
    """A client that leaves out what the model thought still goes on from the prompt's end."""
    for kind in ("attention", "hybrid"):
        sub = place / kind
        sub.mkdir()
        server, beside = pair(sub, processes, kind, "-np", "1", "--cache-ram", "0")
        talk = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "why?"}]
        first = chat(beside.client, talk, 40)
        beside.quiet()
        restart(server, beside)
        talk += [
            {"role": "assistant", "content": "shortened"},
            {"role": "user", "content": "go on"},
        ]
        again = chat(beside.client, talk)
        before = first.json["usage"]["prompt_tokens"]
        told = again.json["usage"]["prompt_tokens_details"]["cached_tokens"]
        check(told >= before - BLOCK, kind, "went on from", told, "of", before)
        beside.kill(signal.SIGTERM)
        server.kill()


def test_default_flags_and_eight_clients(place, processes):
    """-np auto empties idle slots when another starts: eight clients at once get what one after the other got."""
    server, beside = pair(place, processes, "attention")
    check(len(beside.status()["slots"]) == 4, "four slots by default")
    prompts = [random_tokens(500 + 13 * index, 30 + index) for index in range(8)]
    alone = []
    for prompt in prompts:
        alone.append(beside.client.complete(prompt))
    beside.quiet()
    restart(server, beside)
    for turn in range(2):
        found = {}

        def one(index):
            answer = beside.client.complete(prompts[index])
            found[index] = (answer, len(prompts[index]) - cached(answer))

        threads = [threading.Thread(target=one, args=(index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for index in range(8):
            answer, computed = found[index]
            agree(answer, alone[index], "turn", turn, "client", index)
            check(computed <= BLOCK, "turn", turn, "client", index, "computed", computed)
    equal(beside.metric("kvstore_llama_restores_ignored_total"), 0)


def test_next_request_comes_at_once(place, processes):
    """Straight after an answer, while the slot is still being saved: the conversation goes on in its slot, and another one that
    begins alike finds what is on its way into the store."""
    for flags in (("-np", "3", "--cache-ram", "0"), ()):
        sub = place / f"flags {len(flags)}"
        sub.mkdir()
        next_request(sub, processes, *flags)


def next_request(place, processes, *flags):
    server = Server(place, "attention", *flags)
    processes.append(server)
    between = Between(server, lambda data: time.sleep(0.5) if b"action=save" in data else None)
    beside = Companion(place, between)
    processes.append(beside)
    front = random_tokens(900, 40)
    talk = list(front)
    for turn in range(3):
        for form in ({}, {"stream": True}):
            talk += random_tokens(40, 41 + turn)[1:]
            stream = Stream(beside.port, {"prompt": talk, "n_predict": 2, "temperature": 0, **form})
            # Its end is not waited for.
            stream.until(b'"prompt_ms"')
            told = int(re.findall(rb'"cache_n":(\d+)', stream.data)[-1])
            check(turn == 0 and not form or told >= len(talk) - 45, "turn", turn, form, "cached", told, "of", len(talk), beside.client.get("/kvstore/requests").body.decode())
    beside.quiet()
    requests = beside.client.get("/kvstore/requests").json
    equal(len({exchange["slot"] for exchange in requests}), 1, "slots of one conversation")
    # Clients that hang up behind the last of an answer: each was settled once.
    equal(sorted(exchange["id"] for exchange in requests), list(range(1, 7)))
    last = beside.client.complete(talk + [300] * 20, 2)
    check(cached(last) >= len(talk), "went on in its slot:", cached(last))
    other = beside.client.complete(front + random_tokens(300, 50)[1:])
    check(cached(other) >= 896, "begun alike: cached", cached(other))
    # One that has nothing in common waits for nobody.
    beside.client.complete(random_tokens(300, 51))
    waits = [step for step in beside.last()["steps_ms"] if step.startswith("wait")]
    equal(waits, [], beside.last())
    beside.kill()
    server.kill()


# ---------------------------------------------------------------- kills


def test_kills_at_random(place, processes):
    """kill -9 of one, the other or both in the middle of work: afterwards all goes on, with the same answers."""
    server, beside = pair(place, processes, "attention", "-np", "2", "--cache-ram", "0")
    source = random.Random(1)
    prompts = [random_tokens(700 + 64 * index, 50 + index) for index in range(4)]
    alone = [server.client.complete(prompt, id_slot=0, cache_prompt=False) for prompt in prompts]
    for turn in range(6):
        stop = threading.Event()

        def work(index):
            while not stop.is_set():
                try:
                    beside.client.post(
                        "/completion",
                        {"prompt": prompts[index], "n_predict": 12, "temperature": 0},
                        timeout=30,
                    )
                except (OSError, ValueError):
                    time.sleep(0.01)
                except Exception:  # noqa: BLE001 - a half answer of a killed companion
                    time.sleep(0.01)

        threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(source.random() * 0.4)
        who = turn % 3
        if who != 0:
            server.kill()
        if who != 1:
            beside.kill()
        stop.set()
        if server.process is None:
            server.start()
        if beside.process is None:
            beside.start()
        for thread in threads:
            thread.join()
        for index, prompt in enumerate(prompts):
            answer = beside.client.complete(prompt)
            agree(answer, alone[index], "turn", turn, "prompt", index, beside.last())
    beside.quiet()
    for index, prompt in enumerate(prompts):
        check(beside.client.complete(prompt).prefix[0] >= len(prompt) - BLOCK - 1, "prompt", index)
    command = os.path.join(os.environ["KVSTORE_PREFIX"], "bin", "kvstore")
    beside.quiet()
    equal(beside.kill(signal.SIGTERM), 0)
    if os.path.exists(command):
        done = subprocess.run([command, "verify", place / "store"], capture_output=True, text=True)
        equal(done.returncode, 0, done.stdout[-500:], done.stderr[-500:])
    left = os.listdir(os.path.realpath(server.slots_folder))
    equal(left, [], "left in the slot folder")


def test_companion_alone_comes_back(place, processes):
    """Beside a server all of whose slots are in use, in whichever of them it looks at what the server writes."""
    for flags in (("-np", "3", "--cache-ram", "0"), ("-np", "3", "--no-kv-unified"), ()):
        sub = place / f"flags {len(flags)}"
        sub.mkdir()
        server, beside = pair(sub, processes, "attention", *flags)
        count = len(server.client.slots())
        prompts = [random_tokens(500, 63 + index) for index in range(count)]
        for prompt in prompts:
            beside.client.complete(prompt)
            beside.quiet()
        equal(sum(slot["n_prompt_tokens"] > 0 for slot in server.client.slots()), 1 if not flags else count, flags)
        for slot in range(count):
            server.client.complete(prompts[slot], 0, id_slot=slot)
        beside.kill()
        beside.start()
        equal(beside.status()["standing"], "attached", beside.status())
        for prompt in prompts:
            answer = beside.client.complete(prompt)
            check(answer.prefix and answer.prefix[0] >= 448, flags, answer.prefix, beside.last())
        beside.kill()
        server.kill()


def test_server_gone_and_back(place, processes):
    server, beside = pair(place, processes, "attention", "-np", "1")
    prompt = random_tokens(500, 60)
    beside.client.complete(prompt)
    beside.quiet()
    server.kill()
    for path, body in (("/completion", {"prompt": prompt}), ("/v1/models", None)):
        answer = beside.client.request("POST" if body else "GET", path, body)
        equal(answer.status, 503, path)
        check(int(answer.headers["retry-after"]) > 0, answer.headers)
        equal(answer.json["error"]["code"], 503)
    equal(beside.client.get("/health").status, 503)
    server.start()
    check(beside.client.complete(prompt).prefix[0] >= 448, beside.last())
    equal(beside.client.get("/health").status, 200)


def test_server_that_sleeps(place, processes):
    """--sleep-idle-seconds: the companion lets it sleep, and what it has unloaded comes back from the store."""
    server, beside = pair(place, processes, "attention", "-np", "1", "--sleep-idle-seconds", "1")
    prompt = random_tokens(500, 62)
    first = beside.client.complete(prompt)
    beside.quiet()

    def sleeps():
        return server.client.get("/props").json["is_sleeping"]

    wait_for("the server to sleep", sleeps, 20)
    for _ in range(10):
        time.sleep(0.2)
        check(sleeps(), "woken by nobody's request")
        equal(beside.client.get("/health").status, 200)
    again = beside.client.complete(prompt)
    check(again.prefix[0] >= 448 and again.prefix[2] != "memory", again.prefix, beside.last())
    agree(again, first)
    beside.quiet()
    wait_for("the server to sleep again", sleeps, 20)


def test_server_stops_in_the_middle_of_an_answer(place, processes):
    server, beside = pair(place, processes, "attention", "-np", "1")
    stream = Stream(beside.port, {"prompt": random_tokens(300, 61), "n_predict": 4000, "stream": True})
    stream.event()
    server.kill()
    check(not stream.is_whole(), "an answer without its end looks whole")
    server.start()
    beside.client.complete(random_tokens(300, 61))


# ---------------------------------------------------------------- streams and clients that leave


def is_working(server):
    return any(slot["is_processing"] for slot in server.client.slots())


def test_stream_is_not_held_back(place, processes):
    """The first event is here while the server still works on the last."""
    server, beside = pair(place, processes, "attention", "-np", "1")
    stream = Stream(beside.port, {"prompt": random_tokens(200, 70), "n_predict": 6000, "stream": True})
    stream.event()
    check(is_working(server), "the answer was complete before its first event came")
    stream.leave()
    wait_for("the server to stop", lambda: not is_working(server))
    check(server.client.slots()[0]["n_prompt_tokens"] < 6000, "the server went on to the end")


def test_clients_leave_at_each_step(place, processes):
    """Before the answer, in the prompt, while waiting for a slot, in the answer: the server stops, no slot is lost."""
    for kind in ("attention", "window"):
        sub = place / kind
        sub.mkdir()
        server, beside = pair(sub, processes, kind, "-np", "1", "-b", "64")
        for delay in (0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2):
            body = {"prompt": random_tokens(4000, 71), "n_predict": 3000, "stream": True}
            first = Stream(beside.port, body)
            second = Stream(beside.port, body)
            time.sleep(delay)
            second.leave()
            first.leave()
        wait_for("the server to stop", lambda: not is_working(server))
        beside.quiet()
        prompt = random_tokens(300, 72)
        alone = beside.client.complete(prompt)
        server.client.post("/slots/0?action=erase", {})
        agree(server.client.complete(prompt, id_slot=0, cache_prompt=False), alone)
        count = wait_for("connections", lambda: len(os.listdir(f"/proc/{beside.process.pid}/fd")))
        check(count < 100, count, "open descriptors")
        beside.kill(signal.SIGTERM)
        server.kill()


# ---------------------------------------------------------------- everything goes through


def test_same_answers_as_directly(place, processes):
    """Requests of all kinds, directly and through: the same status, type, body and events."""
    server, beside = pair(place, processes, "attention", "-np", "1", "--cache-ram", "0", "--metrics")
    talk = [{"role": "user", "content": "hello there " * 10}]
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    cases = [
        ("GET", "/props", None),
        ("GET", "/v1/models", None),
        ("GET", "/models", None),
        ("GET", "/nothing/here", None),
        ("GET", "/slots?fail_on_no_slot=1", None),
        ("GET", "/completion", None),
        ("PUT", "/completion", {"prompt": "a"}),
        ("OPTIONS", "/v1/chat/completions", None),
        ("HEAD", "/v1/models", None),
        ("POST", "/tokenize", {"content": "hello", "with_pieces": True}),
        ("POST", "/detokenize", {"tokens": [300, 301]}),
        ("POST", "/apply-template", {"messages": talk}),
        ("POST", "/v1/embeddings", {"input": "hello"}),
        ("POST", "/rerank", {"query": "a", "documents": ["b"]}),
        ("POST", "/infill", {"input_prefix": "a", "input_suffix": "b", "n_predict": 2, "temperature": 0}),
        ("POST", "/lora-adapters", []),
        ("POST", "/v1/messages/count_tokens", {"messages": talk, "max_tokens": 4}),
        ("POST", "/completion", b"{"),
        ("POST", "/completion", b""),
        ("POST", "/completion", b"[]"),
        ("POST", "/completion", b"null"),
        ("POST", "/completion", {"prompt": [], "n_predict": 2}),
        ("POST", "/completion", {"prompt": ["a b", "c d"], "n_predict": 3, "temperature": 0}),
        ("POST", "/completion", {"prompt": [300, "text", 301], "n_predict": 3, "temperature": 0}),
        ("POST", "/completion", {"prompt": "x" * 20000, "n_predict": 3}),
        ("POST", "/completion", {"prompt": [99999999], "n_predict": 3}),
        ("POST", "/completion", {"prompt": {"no": 1}, "n_predict": 2}),
        ("POST", "/v1/chat/completions", {"messages": [], "max_tokens": 2}),
        ("POST", "/v1/chat/completions", {"messages": "text", "max_tokens": 2}),
        ("POST", "/v1/chat/completions", {"messages": [{"role": "user"}], "max_tokens": 2}),
        ("POST", "/v1/chat/completions", {"messages": talk, "max_tokens": 3, "n": 2, "temperature": 0}),
        ("POST", "/v1/chat/completions", {"messages": talk, "max_tokens": "many"}),
        ("POST", "/v1/chat/completions", {"messages": talk, "tools": [tool], "max_tokens": 3}),
        (
            "POST",
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
        ),
        ("POST", "/v1/responses", {"input": "hello", "max_output_tokens": 3, "temperature": 0}),
    ]
    for stream in (False, True):
        more = {"stream": stream, "temperature": 0, "seed": 1}
        cases += [
            ("POST", "/completion", {"prompt": "a long one " * 40, "n_predict": 6, **more}),
            ("POST", "/v1/completions", {"prompt": "once upon a time", "max_tokens": 6, **more}),
            ("POST", "/v1/chat/completions", {"messages": talk, "max_tokens": 6, **more}),
            (
                "POST",
                "/v1/chat/completions",
                {"messages": talk, "max_tokens": 6, "stream_options": {"include_usage": True}, **more},
            ),
            (
                "POST",
                "/v1/chat/completions",
                {"messages": talk, "max_tokens": 6, "response_format": {"type": "json_object"}, **more},
            ),
            ("POST", "/v1/messages", {"messages": talk, "system": "be brief", "max_tokens": 6, **more}),
            ("POST", "/v1/responses", {"input": "hello", "max_output_tokens": 3, **more}),
            ("POST", "/completion", {"prompt": "own slot", "n_predict": 4, "id_slot": 0, **more}),
            ("POST", "/completion", {"prompt": "no cache", "n_predict": 4, "cache_prompt": False, **more}),
        ]
    for turn in range(2):
        for method, path, body in cases:
            directly = server.client.request(method, path, body)
            through = beside.client.request(method, path, body)
            equal(settled(through), settled(directly), method, path, str(body)[:100])
    passed = beside.status()["passed"]
    for reason in ("the caller's own slot", "cache_prompt is off", "several answers at once", "media"):
        check(passed.get(reason), "not counted:", reason, passed)


def test_hostile_bodies(place, processes):
    """Mutated requests: the same status as directly, and both are alive afterwards."""
    server, beside = pair(place, processes, "attention", "-np", "2", "--cache-ram", "0")
    source = random.Random(5)
    good = [
        json.dumps({"prompt": random_tokens(80, 1), "n_predict": 2}).encode(),
        json.dumps({"messages": [{"role": "user", "content": "h\u00e9llo \ud83d\ude00"}], "max_tokens": 2}).encode(),
        json.dumps({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}], "max_tokens": 2}).encode(),
        b'{"a":' * 600 + b"1" + b"}" * 600,
        b'{"prompt":"\\ud83d","n_predict":1,"n_predict":2}',
        b'{"prompt":' + b"[" * 2000 + b"]" * 2000 + b"}",
        b'{"prompt":[1e999,-1,3.5],"n_predict":1}',
        b'{"prompt":"x","id_slot":99999999999999999999,"n_predict":1}',
    ]
    paths = ["/completion", "/v1/chat/completions", "/v1/messages", "/v1/completions"]
    bodies = list(good)
    for _ in range(150):
        body = bytearray(source.choice(good))
        for _ in range(source.randrange(1, 4)):
            kind = source.randrange(4)
            at = source.randrange(len(body) + 1)
            if kind == 0 and body:
                body[at % len(body)] = source.randrange(256)
            elif kind == 1:
                del body[at : at + source.randrange(1, 20)]
            elif kind == 2:
                body[at:at] = source.choice([b'"', b"\\", b"{", b"]", b"\0", b"\xff", b"\\u", b"-", b"1e9"])
            else:
                body[at:at] = body[: source.randrange(1, 40)]
        bodies.append(bytes(body))
    for body in bodies:
        path = source.choice(paths)
        # Long answers are no part of this.
        try:
            directly = server.client.request("POST", path, body, {"x-test": "1"}, timeout=10)
        except TimeoutError:
            continue
        through = beside.client.request("POST", path, body, {"x-test": "1"})
        equal(through.status, directly.status, path, body[:200])
    # What is no HTTP at all.
    for data in (b"\0" * 100, b"GET\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", b"A" * 100_000):
        with socket.create_connection(("127.0.0.1", beside.port), timeout=10) as raw:
            try:
                raw.sendall(data)
                raw.shutdown(socket.SHUT_WR)
                while raw.recv(65536):
                    pass
            except OSError:
                pass
    beside.client.complete(random_tokens(200, 2))
    equal(beside.process.poll(), None)
    equal(server.process.poll(), None)


def test_body_longer_than_is_looked_at(place, processes):
    """What is not looked at is passed on as it comes, to its end."""
    server, beside = pair(place, processes, "attention", "-np", "1", companion=("--body-limit", "4096"))
    body = {"prompt": random_tokens(900, 80), "n_predict": 6, "temperature": 0, "padding": "x" * 300_000}
    directly = server.client.post("/completion", body)
    through = beside.client.post("/completion", body)
    equal(through.json["tokens_evaluated"], directly.json["tokens_evaluated"])
    equal(beside.status()["passed"], {"too long to look at": 1})


def test_keys_and_tenants(place, processes):
    server = Server(place, "attention", "-np", "1", "--cache-ram", "0", "--api-key", "one,two,three")
    processes.append(server)
    beside = Companion(place, server, "--api-key", "three", "--tenant-by-key")
    processes.append(beside)
    prompt = random_tokens(600, 81)

    def ask(key):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return beside.client.post("/completion", {"prompt": prompt, "n_predict": 2}, headers=headers)

    equal(ask("wrong").status, 401)
    equal(ask(None).status, 401)
    equal(ask("one").prefix[0], 0)
    beside.quiet()
    check(ask("one").prefix[0] >= 512, "the same key")
    beside.quiet()
    other = ask("two")
    equal((other.prefix[0], cached(other)), (0, 0), "another key's prefix")
    beside.quiet()
    check(ask("two").prefix[0] >= 512, "the other key's own")
    beside.quiet()
    back = ask("one")
    check(back.prefix[0] >= 512 and back.prefix[2] != "memory", back.prefix)
    equal(beside.client.get("/kvstore/requests").status, 401)


# ---------------------------------------------------------------- what runs out


def test_tmpfs_is_full(place, processes):
    """No room for a slot file: computed instead, and nothing aborts."""
    if os.geteuid() != 0:
        raise Skipped("only root may mount a tmpfs")
    folder = place / "small"
    folder.mkdir(mode=0o700)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k,mode=700", "tmpfs", folder], capture_output=True)
    if done.returncode != 0:
        raise Skipped("no tmpfs can be mounted here")
    try:
        (place / "slots").symlink_to(folder)
        server, beside = pair(place, processes, "attention", "-np", "1")
        short, long = random_tokens(128, 82), random_tokens(1000, 83)
        for prompt in (short, long, short, long):
            alone = server.client.complete(prompt, id_slot=0, cache_prompt=False)
            agree(beside.client.complete(prompt), alone)
            beside.quiet()
        equal(server.process.poll(), None)
        beside.kill(signal.SIGTERM)
        server.kill()
        equal(os.listdir(folder), [])
    finally:
        for process in processes:
            process.kill()
        subprocess.run(["umount", folder], check=False)


def test_store_is_full(place, processes):
    """A store at its bound evicts, and answers stay right."""
    server, beside = pair(
        place, processes, "attention", "-np", "1", "-ctk", "f32", "-ctv", "f32", companion=("--capacity", "64MiB", "--host", "16MiB")
    )
    for seed in range(8):
        beside.client.complete(random_tokens(4000, 100 + seed), 2)
        beside.quiet()
    prompt = random_tokens(4000, 107)
    alone = server.client.complete(prompt, id_slot=0, cache_prompt=False)
    agree(beside.client.complete(prompt), alone)
    size = sum(os.path.getsize(place / "store" / name) for name in os.listdir(place / "store"))
    check(size <= 64 << 20, size)
    check(beside.status()["store"]["evicted"] > 0, "nothing was evicted:", beside.status())


def test_store_cannot_be_had(place, processes):
    server = Server(place, "attention", "-np", "1")
    processes.append(server)
    (place / "store").write_text("a file where a folder should be")
    beside = Companion(place, server)
    processes.append(beside)
    answer = beside.client.complete(random_tokens(300, 90))
    check("the store cannot be used" in answer.headers["x-kvstore-prefix"], answer.headers)


def test_slot_folder_is_looked_at(place, processes):
    """Another folder than the server's, one that others can read, one that is in use: said at once."""
    server = Server(place, "attention", "-np", "1")
    processes.append(server)
    other = place / "other"
    other.mkdir(mode=0o700)
    beside = Companion(place, server, slots=other)
    processes.append(beside)
    check("--slot-save-path" in beside.status()["why"], beside.status())
    answer = beside.client.complete(random_tokens(300, 91))
    check(answer.headers["x-kvstore-prefix"].startswith("pass"), answer.headers)
    second = Companion.__new__(Companion)
    second.place, second.server, second.port, second.flags = place, server, free_port(), []
    second.slots_folder, second.client = other, Client(second.port)
    processes.append(second)
    second.start(attached=False)
    equal(second.process.wait(30), 1, "two companions on one folder")
    second.process = None
    other.chmod(0o755)
    beside.kill()
    beside.start(attached=False)
    equal(beside.process.wait(30), 1, "a folder that others can read")
    beside.process = None


# ---------------------------------------------------------------- what it tells


def test_pages_and_trace(place, processes):
    trace = place / "trace.jsonl"
    server, beside = pair(place, processes, "attention", "-np", "1", companion=("--record", str(trace)))
    talk = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "one"}]
    first = chat(beside.client, talk)
    talk += [{"role": "assistant", "content": said(first)}, {"role": "user", "content": "two"}]
    chat(beside.client, talk)
    beside.quiet()
    requests = beside.client.get("/kvstore/requests").json
    equal(len(requests), 2)
    equal(requests[0]["conversation"], requests[1]["conversation"])
    equal(beside.client.get(f"/kvstore/requests/{requests[0]['id']}").json["id"], requests[0]["id"])
    equal(beside.client.get("/kvstore/requests/999999").status, 404)
    sessions = beside.client.get("/kvstore/sessions").json
    equal((len(sessions), sessions[0]["requests"]), (1, 2))
    page = beside.client.get("/kvstore")
    check(page.headers["content-type"].startswith("text/html"), page.headers)
    metrics = beside.client.get("/metrics").body.decode()
    for name in ("kvstore_llama_requests_total", "kvstore_llama_restores_total", "kvstore_blocks"):
        check(name in metrics, "no", name)
    message = {"messages": talk[1:], "system": SYSTEM, "max_tokens": 4}
    usage = beside.client.post("/v1/messages", message).json["usage"]
    check(usage["cache_read_input_tokens"] > 800, usage)
    equal(beside.kill(signal.SIGTERM), 0)
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    equal([line["turn"] for line in lines[:2]], [1, 2])
    shared = len(set(lines[0]["hash_ids"]) & set(lines[1]["hash_ids"]))
    equal(shared, lines[0]["input_length"] // BLOCK)
    command = os.path.join(os.environ["KVSTORE_PREFIX"], "bin", "kvstore")
    if os.path.exists(command):
        done = subprocess.run([command, "replay", trace], capture_output=True, text=True)
        equal(done.returncode, 0, done.stdout[-300:], done.stderr[-300:])


if __name__ == "__main__":
    import agents
    import interfaces
    import load
    import order
    import outside
    import page
    import recordings
    import remote
    import steps
    import surface

    for module in (agents, interfaces, outside, order, page, recordings, remote, surface, steps, load):
        globals().update({name: value for name, value in vars(module).items() if name.startswith("test_")})
    tests = [value for name, value in list(globals().items()) if name.startswith("test_")]
    sys.exit(run_all(tests, sys.argv[1:]))
