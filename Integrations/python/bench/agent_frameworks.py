"""Figures of kvstore.langgraph and kvstore.langchain beside the frameworks' own stores on disk, in one run.

    python agent_frameworks.py threads [--steps 1000] [--kib 100]   # needs langgraph-checkpoint-sqlite
    python agent_frameworks.py answers                              # needs langchain-community; gptcache where it is there

`threads`: a thread whose list of messages grows to so many KiB, in checkpoints of one step each. `answers`: the same answer of a model
looked up in each cache. Numbers are those of one machine and run; what counts is how they compare.
"""

from __future__ import annotations

import argparse
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


def report(rows: list[tuple[str, float, float, str]], left: str, right: str) -> None:
    print(f"{'':34}{left:>14}{right:>14}  {right} / {left}")
    for name, one, other, unit in rows:
        print(f"{name:34}{one:12.0f} {unit}{other:12.0f} {unit}  {other / one:.2f}")


def threads(steps: int, kib: int) -> None:
    from langchain_core.messages import AIMessage, HumanMessage
    from langgraph.checkpoint.base import uuid6
    from langgraph.checkpoint.sqlite import SqliteSaver

    from kvstore.langgraph import KVStoreSaver

    size = kib * 1024 // steps
    source = random.Random(1)
    messages = [
        (HumanMessage if step % 2 else AIMessage)(text(source, size), id=f"m{step}") for step in range(steps)
    ]

    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder) / "kvstore", Path(folder) / "sqlite"
        theirs.mkdir()
        with kvstore.Store(ours, capacity="1GiB") as store, AgentStore(store) as agents:
            store.flush()
            empty = store.stats()["disk_bytes_used"]
            connection = sqlite3.connect(theirs / "threads.db", check_same_thread=False)
            savers: list[Any] = [KVStoreSaver(agents, user="ann"), SqliteSaver(connection)]
            savers[1].setup()
            puts: list[list[float]] = [[], []]
            gets: list[list[float]] = [[], []]
            configs: list[Any] = [{"configurable": {"thread_id": "t", "checkpoint_ns": ""}} for _ in savers]
            for step in range(steps):
                # Of one step first the one, of the next first the other.
                for which in (0, 1) if step % 2 else (1, 0):
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
                        thread = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
                        gets[which].append(timed(lambda saver=saver, thread=thread: saver.get_tuple(thread)))
            store.flush()
            # With the catalog.
            bytes_ours = store.stats()["disk_bytes_used"] - empty
            connection.execute("pragma wal_checkpoint(truncate)")
            connection.close()
            bytes_theirs = disk(theirs)
        # In a new opening of each, as a process that is started again.
        began = time.perf_counter()
        with kvstore.Store(ours) as store, AgentStore(store) as agents:
            found = KVStoreSaver(agents, user="ann").get_tuple({"configurable": {"thread_id": "t", "checkpoint_ns": ""}})
            resumed_ours = (time.perf_counter() - began) * 1e6
        began = time.perf_counter()
        connection = sqlite3.connect(theirs / "threads.db", check_same_thread=False)
        other = SqliteSaver(connection).get_tuple({"configurable": {"thread_id": "t", "checkpoint_ns": ""}})
        resumed_theirs = (time.perf_counter() - began) * 1e6
        connection.close()
        assert found is not None and other is not None
        assert found.checkpoint["channel_values"]["messages"] == messages == other.checkpoint["channel_values"]["messages"]
    late = steps - steps // 10
    report(
        [
            ("bytes", bytes_ours / 1024, bytes_theirs / 1024, "KiB"),
            ("put, p50", statistics.median(puts[0]), statistics.median(puts[1]), "us "),
            ("put, p50 of the last tenth", statistics.median(puts[0][late:]), statistics.median(puts[1][late:]), "us "),
            ("get, p50", statistics.median(gets[0]), statistics.median(gets[1]), "us "),
            ("open and resume behind the last", resumed_ours, resumed_theirs, "us "),
        ],
        "kvstore",
        "sqlite",
    )


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
    arguments = parser.parse_args()
    if arguments.what == "threads":
        threads(arguments.steps, arguments.kib)
    else:
        answers()


if __name__ == "__main__":
    main()
