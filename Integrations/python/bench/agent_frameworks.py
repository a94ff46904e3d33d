"""Figures of kvstore.langgraph and kvstore.langchain beside the frameworks' own stores on disk, in one run.

    python agent_frameworks.py threads [--steps 1000] [--kib 100] [--rounds 5]   # needs langgraph-checkpoint-sqlite
    python agent_frameworks.py answers                              # needs langchain-community; gptcache where it is there

`threads`: a thread whose list of messages grows to so many KiB, in checkpoints of one step each. `answers`: the same answer of a model
looked up in each cache. Numbers are those of one machine and run; what counts is how they compare.
"""

from __future__ import annotations

import argparse
import os
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kvstore
from kvstore.agent import AgentStore, Answers

WORDS = "valve pump roof lift gate north south urgent done open closed week month report hall east west seal motor spring".split()


def text(source: random.Random, size: int) -> str:
    words = ""
    while len(words) < size:
        words += f"{source.choice(WORDS)} {source.randrange(10_000)} "
    return words[:size]


def timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e6


def disk(folder: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())


# SQLite's own class is that of kvstore: synced when `put` returns. With NORMAL what was put last is gone after a power loss.
SAVERS = ("kvstore", "sqlite", "sqlite NORMAL")


def one_thread(steps: int, kib: int, where: str | None) -> dict[str, list[float]]:
    """Figures by name, for each of SAVERS."""
    from langchain_core.messages import AIMessage, HumanMessage
    from langgraph.checkpoint.base import uuid6
    from langgraph.checkpoint.sqlite import SqliteSaver

    from kvstore.langgraph import KVStoreSaver

    size = kib * 1024 // steps
    source = random.Random(1)
    messages = [(HumanMessage if step % 2 else AIMessage)(text(source, size), id=f"m{step}") for step in range(steps)]
    thread: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}

    def connected(folder: Path, synchronous: str) -> sqlite3.Connection:
        connection = sqlite3.connect(folder / "threads.db", check_same_thread=False)
        connection.execute(f"pragma synchronous={synchronous}")
        return connection

    with tempfile.TemporaryDirectory(dir=where) as folder:
        ours, *theirs = (Path(folder) / name for name in SAVERS)
        connections = []
        for path, synchronous in zip(theirs, ("FULL", "NORMAL"), strict=True):
            path.mkdir()
            connections.append(connected(path, synchronous))
        with kvstore.Store(ours, capacity="1GiB") as store, AgentStore(store) as agents:
            store.flush()
            empty = store.stats()["disk_bytes_used"]
            savers: list[Any] = [KVStoreSaver(agents, user="ann"), *map(SqliteSaver, connections)]
            for saver in savers[1:]:
                saver.setup()
            puts: list[list[float]] = [[] for _ in savers]
            gets: list[list[float]] = [[] for _ in savers]
            configs: list[Any] = [thread for _ in savers]
            for step in range(steps):
                # Each step begins with another one.
                for which in ((step + turn) % len(savers) for turn in range(len(savers))):
                    saver = savers[which]
                    checkpoint: Any = {
                        "v": 2, "id": str(uuid6(clock_seq=step)), "ts": "2026-01-01T00:00:00+00:00",
                        "channel_values": {"messages": messages[: step + 1], "system": "s" * 2_000},
                        "channel_versions": {"messages": f"{step:032}.1", "system": "1"},
                        "versions_seen": {"agent": {"messages": f"{step:032}.1"}}, "updated_channels": ["messages"],
                    }  # fmt: skip
                    new = {"messages": f"{step:032}.1", **({"system": "1"} if step == 0 else {})}
                    metadata: Any = {"source": "loop", "step": step, "parents": {}}
                    began = time.perf_counter()
                    configs[which] = saver.put(configs[which], checkpoint, metadata, new)
                    puts[which].append((time.perf_counter() - began) * 1e6)
                    if step % 10 == 9:
                        gets[which].append(timed(lambda saver=saver: saver.get_tuple(thread)))
            store.flush()
            # With the catalog.
            byte_counts = [store.stats()["disk_bytes_used"] - empty]
        for path, connection in zip(theirs, connections, strict=True):
            connection.execute("pragma wal_checkpoint(truncate)")
            connection.close()
            byte_counts.append(disk(path))
        # In a new opening of each, as a process that is started again.
        resumed: list[float] = []
        for path, name in zip((ours, *theirs), SAVERS, strict=True):
            began = time.perf_counter()
            if name == "kvstore":
                with kvstore.Store(path) as store, AgentStore(store) as agents:
                    found = KVStoreSaver(agents, user="ann").get_tuple(thread)
                    resumed.append((time.perf_counter() - began) * 1e6)
            else:
                connection = connected(path, "FULL")
                found = SqliteSaver(connection).get_tuple(thread)
                resumed.append((time.perf_counter() - began) * 1e6)
                connection.close()
            assert found is not None and found.checkpoint["channel_values"]["messages"] == messages
    late = steps - steps // 10
    return {
        "KiB": [count / 1024 for count in byte_counts],
        "put, p50, us": [statistics.median(times) for times in puts],
        "put, best, us": [min(times[late:]) for times in puts],
        "put, p50 of the last tenth, us": [statistics.median(times[late:]) for times in puts],
        "get, p50, us": [statistics.median(times) for times in gets],
        "open, get the last, us": resumed,
    }


def threads(steps: int, kib: int, rounds: int, where: str | None) -> None:
    found = []
    for number in range(rounds):
        found.append(one_thread(steps, kib, where))
        print(f"round {number + 1} of {rounds}, load {os.getloadavg()[0]:.1f}", flush=True)
    print(f"{'median of the rounds':34}" + "".join(f"{name:>16}" for name in SAVERS) + "   sqlite / kvstore (all rounds)")
    for name in found[0]:
        middle = [statistics.median(one[name][which] for one in found) for which in range(len(SAVERS))]
        ratios = sorted(one[name][1] / one[name][0] for one in found)
        print(
            f"{name:34}" + "".join(f"{value:16.0f}" for value in middle)
            + f"   {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )  # fmt: skip


def answers() -> None:
    from langchain_core.outputs import Generation

    from kvstore.langchain import KVStoreLLMCache

    source = random.Random(1)
    prompt, settings, answer = text(source, 16_000), text(source, 500), [Generation(text=text(source, 2_000))]
    with tempfile.TemporaryDirectory() as folder:
        with kvstore.Store(Path(folder) / "store", capacity="1GiB") as store, AgentStore(store) as agents:
            caches: list[tuple[str, Callable[[], Any]]] = []
            ours = KVStoreLLMCache(agents, user="ann")
            ours.update(prompt, settings, answer)
            caches.append(("kvstore.langchain", lambda: ours.lookup(prompt, settings)))
            request = {"model": "m", "temperature": 0, "messages": [{"role": "user", "content": prompt}]}
            kept = Answers(agents, scope="global")
            kept.ask(request, lambda _: {"text": answer[0].text})
            caches.append(("kvstore.agent Answers", lambda: kept.ask(request, lambda _: 1 / 0)))
            try:
                from langchain_community.cache import SQLiteCache

                sqlite = SQLiteCache(str(Path(folder) / "langchain.db"))
                sqlite.update(prompt, settings, answer)
                caches.append(("LangChain's SQLiteCache", lambda: sqlite.lookup(prompt, settings)))
            except ImportError:
                print("langchain-community is not installed")
            try:
                from gptcache import Cache
                from gptcache.adapter.api import get, put
                from gptcache.manager.factory import get_data_manager
                from gptcache.processor.pre import get_prompt

                exact = Cache()
                exact.init(
                    pre_embedding_func=get_prompt,
                    data_manager=get_data_manager(data_path=str(Path(folder) / "gptcache.map"), max_size=1000),
                )
                put(prompt, answer[0].text, cache_obj=exact)
                assert get(prompt, cache_obj=exact) == answer[0].text
                caches.append(("GPTCache, exact (in memory)", lambda: get(prompt, cache_obj=exact)))
            except ImportError:
                print("gptcache is not installed")
            times: dict[str, list[float]] = {name: [] for name, _ in caches}
            for _ in range(1_000):
                for name, call in caches:
                    times[name].append(timed(call))
    base = statistics.median(times["kvstore.langchain"])
    for name, found in times.items():
        print(f"{name:34}{statistics.median(found):10.0f} us{statistics.median(found) / base:8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("threads", "answers"))
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--kib", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where the stores are made (default: the system's folder for temporary files)")
    arguments = parser.parse_args()
    if arguments.what == "threads":
        threads(arguments.steps, arguments.kib, arguments.rounds, arguments.folder)
    else:
        answers()


if __name__ == "__main__":
    main()
