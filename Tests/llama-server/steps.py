"""Kills and departures at each step of a request: afterwards each conversation goes on from what was durable."""
import os
import random
import signal
import subprocess
import threading
import time

from harness import Between, Companion, Server, cached, check, equal, random_tokens, wait_for
from support import BLOCK, Stream, agree
from surface import LONG

# Name, when, of which request of the companion's, and how many seconds later.
STEPS = [
    ("slots", "asked", "GET /slots ", 0),
    ("restore", "asked", "action=restore", 0),
    ("restored", "answered", "action=restore", 0),
    ("forward", "asked", "POST /completion", 0),
    ("prefill", "passed", "POST /completion", 0.005),
    ("answer", "answered", "POST /completion", 0),
    ("save", "asked", "action=save", 0),
    ("saved", "answered", "action=save", 0),
    ("offload", "answered", "action=save", 0.004),
]
WHO = ["server", "companion", "both", "client", "pause"]


class Script:
    """Does something once, at one step of the next request."""

    def __init__(self):
        self.lock, self.armed, self.done = threading.Lock(), None, threading.Event()

    def arm(self, step, act):
        self.done.clear()
        with self.lock:
            self.armed = (step, act)

    def disarm(self):
        """Whether it had been done."""
        with self.lock:
            fired, self.armed = self.armed is None, None
        if fired:
            check(self.done.wait(60), "what was to be done has no end")
        return fired

    def at(self, when, line):
        with self.lock:
            if not self.armed:
                return
            (_, wanted, part, delay), act = self.armed
            if when != wanted or part not in line:
                return
            self.armed = None

        def later():
            time.sleep(delay)
            act()
            self.done.set()

        # Without a delay, nothing goes on before it is done.
        if delay:
            threading.Thread(target=later, daemon=True).start()
        else:
            later()


def steps(place, processes, kind, conversations, turns, whole):
    flags = ["-np", "2", "--cache-ram", "0", "-b", "64"]
    server = Server(place, kind, *flags)
    processes.append(server)
    script = Script()
    between = Between(server, at=script.at)
    beside = Companion(place, between)
    processes.append(beside)
    source = random.Random(3)
    front = random_tokens(400, 1)
    talks = [front + random_tokens(200, 10 + index)[1:] for index in range(conversations)]
    durable = [0] * conversations
    wanted = [(step, who) for step in STEPS for who in WHO]
    source.shuffle(wanted)
    if not whole:
        # Each step once, each who in turn.
        wanted = [(step, WHO[index % len(WHO)]) for index, step in enumerate(STEPS)]
    number, seen, worst = 0, {}, 0

    def ask(talk):
        return beside.client.complete(talk, 8, return_tokens=True)

    def is_over():
        try:
            return script.done.is_set() or beside.process is None or beside.status()["pending"] == 0
        except OSError:
            return False

    # Each is stored once.
    for index, talk in enumerate(talks):
        talk += ask(talk).json["tokens"]
        beside.quiet()
        durable[index] = len(talk)
    for turn in range(turns):
        for index, talk in enumerate(talks):
            talk += random_tokens(source.randrange(30, 300), source.random())[1:]
            step, who = wanted[number % len(wanted)]
            number += 1
            streams = []

            def act():
                if who == "client":
                    streams[0].leave()
                elif who == "pause":
                    server.process.send_signal(signal.SIGSTOP)
                    time.sleep(0.3)
                    server.process.send_signal(signal.SIGCONT)
                if who in ("companion", "both"):
                    beside.kill()
                if who in ("server", "both"):
                    server.kill()

            body = {"prompt": talk, "n_predict": 8, "temperature": 0, "stream": True}
            stream = Stream.__new__(Stream)
            streams.append(stream)
            script.arm(step, act)
            try:
                stream.__init__(beside.port, body)
                stream.is_whole()
            except OSError:
                pass
            if who == "client" and script.done.is_set():
                wait_for("the server to stop", lambda: not any(slot["is_processing"] for slot in server.client.slots()))
            if not script.done.is_set() and beside.process:
                # The last steps come behind the answer.
                wait_for("the step", is_over)
            if script.disarm():
                seen[step[0], who] = seen.get((step[0], who), 0) + 1
            stream.leave()
            if server.process is None:
                server.start()
            if beside.process is None:
                beside.start()
            again = ask(talk)
            lost = durable[index] - cached(again)
            worst = max(worst, lost)
            check(lost <= BLOCK, "turn", turn, "conversation", index, "after", who, "at", step[0], "computed", lost,
                  "tokens that were durable, of", durable[index], beside.last())
            beside.quiet()
            alone = None
            if turn == turns - 1 or not whole:
                alone = server.client.complete(talk, 8, cache_prompt=False)
                agree(again, alone, "after", who, "at", step[0])
            talk += again.json["tokens"]
            durable[index] = len(talk)
    beside.quiet()
    missing = [name for name, *_ in {step for step, _ in wanted[:number]} if not any(key[0] == name for key in seen)]
    equal(missing, [], "steps at which nothing was done")
    print(f"      {kind}: {number} requests, {sum(seen.values())} ended at a step; at most {worst} durable tokens computed again", flush=True)
    equal(os.listdir(os.path.realpath(server.slots_folder)), [], "left in the slot folder")
    check(len(os.listdir(f"/proc/{beside.process.pid}/fd")) < 100, "open descriptors")
    equal(beside.kill(signal.SIGTERM), 0)
    command = os.path.join(os.environ["KVSTORE_PREFIX"], "bin", "kvstore")
    if os.path.exists(command):
        done = subprocess.run([command, "verify", place / "store"], capture_output=True, text=True)
        equal(done.returncode, 0, done.stdout[-500:], done.stderr[-500:])
    server.kill()


def test_kills_at_each_step(place, processes):
    """kill -9 of server, companion or both, a pause of the server, and a client that leaves, at each step of a request: the first
    request afterwards computes at most one block of what was durable, and its new tokens."""
    for kind in ("attention", "hybrid", "window") if LONG else ("attention",):
        sub = place / kind
        sub.mkdir()
        if LONG:
            steps(sub, processes, kind, 20, 6, whole=True)
        else:
            steps(sub, processes, kind, 3, 3, whole=False)
