"""Figures of kvstore.agent: its caches beside others, and what a runtime makes of a server's prefix cache.

    python agent_layers.py caches                      # answers, steps, growing state, vectors
    python agent_layers.py prefix http://127.0.0.1:8080 [--sessions 50] [--turns 10]

`prefix` runs the same conversations in four ways against a real server with OpenAI's chat completions (llama-server), one
after the other, and counts by what the server says. Numbers are ratios of one run on one machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sqlite3
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import kvstore
from kvstore.agent import AgentStore, Answers, Runtime
from kvstore.agent.runtime import cached_of

WORDS = "valve pump roof lift gate north south urgent done open closed week month report hall east west seal motor spring".split()


def text(source: random.Random, words: int) -> str:
    return " ".join(source.choices(WORDS, k=words))


def median_us(call: Callable[[], Any], count: int = 2_000) -> float:
    times = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


# ---------------------------------------------------------------- caches


def caches() -> None:
    source = random.Random(1)
    request = {
        "model": "m", "temperature": 0,
        "messages": [{"role": "user", "content": text(source, 150)} for _ in range(20)],
        "tools": [{"type": "function", "function": {"name": f"t{n}", "parameters": {"type": "object"}}} for n in range(10)],
    }  # fmt: skip
    answer = {"text": text(source, 400)}
    with tempfile.TemporaryDirectory() as folder, kvstore.Store(Path(folder) / "store", capacity="1GiB") as store:
        agents = AgentStore(store)
        answers = Answers(agents, scope="global")
        answers.ask(request, lambda _: answer)
        key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        database = sqlite3.connect(Path(folder) / "sqlite")
        database.execute("pragma journal_mode = wal")
        database.execute("create table answers (key text primary key, value blob)")
        database.execute("insert into answers values (?, ?)", (key, json.dumps(answer)))
        database.commit()

        def by_sqlite() -> Any:
            digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
            return json.loads(database.execute("select value from answers where key = ?", (digest,)).fetchone()[0])

        plain = median_us(lambda: hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest())
        hit = median_us(lambda: answers.ask(request, lambda _: None))
        other = median_us(by_sqlite)
        print(f"answer hit, request of {len(json.dumps(request))} bytes: {hit:.0f} us; json and SHA-256 of it {plain:.0f} us "
              f"({hit / plain:.2f} x); SQLite with such keys {other:.0f} us ({hit / other:.2f} x)")

        messages: list[str] = []
        whole = 0
        before = store.stats()["payload_bytes_stored"]
        times = []
        with agents.run("growing") as run:
            for number in range(1_000):
                messages.append(text(source, 14))
                state = {"messages": messages, "step": number}
                whole += len(json.dumps(state))
                began = time.perf_counter()
                run.save(state)
                times.append(time.perf_counter() - began)
        grown = store.stats()["payload_bytes_stored"] - before
        print(f"1,000 steps of state that grows to {len(json.dumps(state)) >> 10} KiB: {grown >> 10} KiB, 1/{whole / grown:.0f} of a "
              f"snapshot each ({whole >> 20} MiB); a step takes {statistics.median(times) * 1e3:.1f} ms, synced")
        began = time.perf_counter()
        with agents.run("growing") as run:
            assert run.skip() == state
        print(f"resume behind 1,000 steps: {(time.perf_counter() - began) * 1e3:.0f} ms")
        vectors(agents, folder)


def vectors(agents: AgentStore, folder: str) -> None:
    try:
        import lmdb
        import numpy

        from kvstore.agent.embeddings import Embeddings
    except ImportError:
        print("vectors: needs numpy and lmdb")
        return
    documents = [f"document {number} " * 20 for number in range(10_000)]
    embeddings = Embeddings(agents, "m", lambda part: numpy.random.rand(len(part), 768), scope="global", batch=1_000)
    found = embeddings.get(documents)
    environment = lmdb.open(f"{folder}/lmdb", map_size=1 << 30)
    with environment.begin(write=True) as transaction:
        for key, vector in zip(embeddings.keys(documents), found, strict=True):
            transaction.put(key, vector.tobytes())

    def by_lmdb() -> Any:
        with environment.begin() as transaction:
            return numpy.stack([numpy.frombuffer(transaction.get(key), "<f4") for key in embeddings.keys(documents)])

    own, other = median_us(lambda: embeddings.get(documents), 7), median_us(by_lmdb, 7)
    print(f"10,000 vectors of 768 in a call: {own / 1e3:.0f} ms; LMDB by Python, with the same keys: {other / 1e3:.0f} ms")


# ---------------------------------------------------------------- prefix


class Server:
    """A real one; counts what it says of its cache."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.rates: list[float] = []
        self.computed = 0
        self.seconds: list[float] = []

    def __call__(self, body: Mapping[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            self.url + "/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        began = time.perf_counter()
        with urllib.request.urlopen(request, timeout=600) as response:
            answer: dict[str, Any] = json.load(response)
        self.seconds.append(time.perf_counter() - began)
        tokens, cached = cached_of(answer)
        self.rates.append(cached / tokens if tokens else 0)
        self.computed += tokens - cached
        return answer


SYSTEM = "You keep the books of a caretaker. Answer in one short sentence. " * 8
TOOLS = [
    {"type": "function", "function": {"name": f"tool_{name}", "description": f"Looks at each {name}.", "parameters": {"type": "object"}}}
    for name in WORDS[:8]
]


def conversation(strategy: str, server: Server, agents: AgentStore, number: int, turns: int, settings: dict[str, Any]) -> None:
    source = random.Random(number)
    rows = [json.dumps([{"row": row, "text": text(source, 4)} for row in range(12)]) for _ in range(turns)]
    if strategy in ("naive", "stable front"):
        messages: list[dict[str, Any]] = []
        for turn in range(turns):
            now = f"Now: {time.time_ns()}"
            if strategy == "naive":
                # What is often seen: the time in the system text, tools in the order of a set.
                front, tools = {"role": "system", "content": f"{now}\n{SYSTEM}"}, random.sample(TOOLS, len(TOOLS))
                said = f"Result: {rows[turn]}\nQuestion {turn}?"
            else:
                front, tools = {"role": "system", "content": SYSTEM}, TOOLS
                said = f"Result: {rows[turn]}\nQuestion {turn}?\n{now}"
            messages.append({"role": "user", "content": said})
            answer = server({"model": "m", "tools": tools, "messages": [front, *messages], **settings})
            messages.append({"role": "assistant", "content": answer["choices"][0]["message"].get("content") or ""})
        return
    window = 1_500 if strategy == "with a window" else None
    with agents.run(f"{strategy} {number}") as run:
        runtime = Runtime(
            run, server, model="m", system=SYSTEM, tools=TOOLS, settings=settings, window_tokens=window or 3_000,
            summarise=lambda found: f"{len(found)} messages about the house",
        )  # fmt: skip
        for turn in range(turns):
            runtime.say(f"Result: {rows[turn]}\nQuestion {turn}?", volatile={"Now": time.time_ns()})
            runtime.step()


def prefix(url: str, sessions: int, turns: int) -> None:
    settings = {"temperature": 0, "max_tokens": 1, "cache_prompt": True}
    with tempfile.TemporaryDirectory() as folder, kvstore.Store(Path(folder) / "store", capacity="1GiB") as store:
        agents = AgentStore(store)
        for strategy in ("naive", "stable front", "with a window", "whole runtime"):
            server = Server(url)
            for number in range(sessions):
                conversation(strategy, server, agents, number, turns, settings)
            seconds = sorted(server.seconds)
            print(
                f"{strategy:14}  {sessions} x {turns}: hit rate {statistics.mean(server.rates):.0%}, {server.computed} tokens computed, "
                f"first token p50 {statistics.median(seconds) * 1e3:.0f} ms, p95 {seconds[int(len(seconds) * 0.95)] * 1e3:.0f} ms"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("caches")
    command = commands.add_parser("prefix")
    command.add_argument("server")
    command.add_argument("--sessions", type=int, default=50)
    command.add_argument("--turns", type=int, default=10)
    arguments = parser.parse_args()
    if arguments.what == "caches":
        caches()
    else:
        prefix(arguments.server, arguments.sessions, arguments.turns)


if __name__ == "__main__":
    main()
