"""Figures of kvstore.agent beside others: answers, steps, growing state, vectors.

    python agent_layers.py [--rounds 9]

SQLite is Python's; a Redis is started on this machine if redis-server and the package redis are there, LMDB needs the package lmdb.
They take turns, and numbers are ratios within a round: median and range of all. agent_strategies.py has what prompts cost on a server.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import socket
import sqlite3
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kvstore
from kvstore.agent import AgentStore, Answers

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


def compare(what: str, ways: dict[str, Callable[[], Any]], own: str, rounds: int, count: int) -> None:
    """Prints how long each takes, and how many times as long the own one takes; in another order in each round."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in random.Random(number).sample(list(ways), len(ways)):
            times[name].append(median_us(ways[name], count))
    print(f"{what}, {rounds} rounds, load {os.getloadavg()[0]:.1f}")
    for name in ways:
        ratios = sorted(mine / other for mine, other in zip(times[own], times[name]))
        ratio = "" if name == own else f"; {own} ÷ this: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        print(f"  {name}: {statistics.median(times[name]):,.0f} us{ratio}")


@contextlib.contextmanager
def local_redis() -> Iterator[Any]:
    """A client of a Redis of its own, which keeps nothing; None: there is none here."""
    program = shutil.which("redis-server")
    try:
        import redis
    except ImportError:
        program = None
    if program is None:
        print("without Redis: it needs redis-server and the package redis")
        yield None
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL
    )
    try:
        client = redis.Redis(port=port)
        for _ in range(200):
            with contextlib.suppress(redis.ConnectionError):
                client.ping()
                break
            time.sleep(0.1)
        yield client
    finally:
        process.terminate()
        process.wait()


# ---------------------------------------------------------------- caches


def caches(rounds: int) -> None:
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

        def digest() -> str:
            return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()

        def by_sqlite() -> Any:
            return json.loads(database.execute("select value from answers where key = ?", (digest(),)).fetchone()[0])

        ways: dict[str, Callable[[], Any]] = {
            "json and SHA-256 of the request": digest,
            "answer hit": lambda: answers.ask(request, lambda _: None),
            "SQLite with such keys": by_sqlite,
        }
        with local_redis() as client:
            if client is not None:
                client.set(key, json.dumps(answer))
                ways["Redis with such keys, over loopback"] = lambda: json.loads(client.get(digest()))
            for call in list(ways.values())[1:]:
                assert call() == answer
            compare(f"a request of {len(json.dumps(request)) >> 10} KiB", ways, "answer hit", rounds, 300)

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
        vectors(agents, folder, rounds)


def vectors(agents: AgentStore, folder: str, rounds: int) -> None:
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

    ways = {"one call": lambda: embeddings.get(documents), "LMDB by Python, with the same keys": by_lmdb}
    assert (ways["one call"]() == by_lmdb()).all()
    compare("10,000 vectors of 768", ways, "one call", rounds, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    caches(parser.parse_args().rounds)


if __name__ == "__main__":
    main()
