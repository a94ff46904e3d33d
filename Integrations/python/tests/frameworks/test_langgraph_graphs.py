"""Real graphs whose threads and node results are in a store."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypedDict

import pytest
from conftest import environment, open_store

pytest.importorskip("langgraph.graph", reason="langgraph is not installed")

from langgraph.graph import END, START, StateGraph  # noqa: E402
from langgraph.types import CachePolicy  # noqa: E402

from kvstore import Prompt  # noqa: E402
from kvstore.agent import AgentStore, LostStepError  # noqa: E402
from kvstore.agent.blocks import pieces_of  # noqa: E402
from kvstore.langgraph import KVStoreCache, KVStoreSaver  # noqa: E402

PROGRAM = Path(__file__).with_name("graph_program.py")


def start(path: Path, effects: Path, phase: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), str(path), str(effects), phase], stdout=subprocess.PIPE, text=True, env=environment()
    )


def killed(path: Path, effects: Path, phase: str) -> str:
    """Runs the program until it says where it is, and ends it by kill -9."""
    process = start(path, effects, phase)
    assert process.stdout is not None
    said = process.stdout.readline().strip()
    process.kill()
    process.wait()
    process.stdout.close()
    return said


def finished(path: Path, effects: Path, phase: str) -> Any:
    process = start(path, effects, phase)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    return json.loads(said.splitlines()[-1])


def test_a_graph_goes_on_after_kill_9_in_a_node_and_at_an_interrupt_in_a_subgraph(path: Path, tmp_path: Path) -> None:
    open_store(path).close()
    effects = tmp_path / "effects"
    assert killed(path, effects, "killed-in-a-node") == "in draft"
    assert effects.read_text().split("\n") == ["research", ""]
    assert killed(path, effects, "killed-at-the-interrupt") == "interrupted"
    notes = ["read about valves", "x" * 20_000, "collected", "approved: yes", "published"]
    # The subgraph returns all of its notes, and the outer reducer adds them: what LangGraph does without a store, too.
    assert finished(path, effects, "resumed")[-5:] == notes
    # Nothing that was confirmed was done again.
    done = ["research", "draft", "collect", "approved yes", "publish"]
    assert effects.read_text().split() == " ".join(done).split()
    travelled = finished(path, effects, "time-travel")
    assert travelled[0] == "pumps" and travelled[-2:] == ["approved: no", "published"]
    assert effects.read_text().split("\n")[5:-1] == ["draft", "collect", "approved no", "publish"]


class Numbers(TypedDict):
    number: int
    doubled: int


def doubling(calls: list[int], cache: KVStoreCache, ttl: int | None = None) -> Any:
    def double(state: Numbers) -> dict[str, int]:
        calls.append(state["number"])
        return {"doubled": 2 * state["number"]}

    builder = StateGraph(Numbers)
    builder.add_node("double", double, cache_policy=CachePolicy(ttl=ttl))
    builder.add_edge(START, "double")
    builder.add_edge("double", END)
    return builder.compile(cache=cache)


def test_results_of_nodes_are_kept_and_cleared(path: Path) -> None:
    calls: list[int] = []
    with open_store(path) as opened, AgentStore(opened) as agents:
        for _ in range(2):
            assert doubling(calls, KVStoreCache(agents, user="ann")).invoke({"number": 4}) == {"number": 4, "doubled": 8}
        assert calls == [4]
        doubling(calls, KVStoreCache(agents, user="bob")).invoke({"number": 4})
        assert calls == [4, 4], "another user's"
    with open_store(path) as opened, AgentStore(opened) as agents:
        graph = doubling(calls, KVStoreCache(agents, user="ann"))
        assert graph.invoke({"number": 4})["doubled"] == 8
        assert calls == [4, 4], "in another opening"
        graph.clear_cache()
        graph.invoke({"number": 4})
        assert calls == [4, 4, 4]


def test_a_cache_tells_keys_namespaces_and_ends_apart(agents: AgentStore) -> None:
    cache = KVStoreCache(agents)
    one, two, three = (("a", "b"), "k"), (("a",), "k"), (("a", "b"), "l")
    cache.set({one: ({"x": {1, 2}}, None), two: ("two", 3600)})
    assert cache.get([one, two, three]) == {one: {"x": {1, 2}}, two: "two"}
    cache.set({one: ("new", None)})
    assert cache.get([one]) == {one: "new"}
    cache.clear([("a",)])
    assert cache.get([one, two]) == {one: "new"}
    cache.set({two: ("again", None)})
    cache.clear()
    assert cache.get([one, two]) == {}


def checkpoint(number: int, values: dict[str, Any], versions: dict[str, Any]) -> Any:
    return {
        "v": 2, "id": f"{number:08}", "ts": "2026-01-01T00:00:00+00:00", "channel_values": values, "channel_versions": versions,
        "versions_seen": {}, "updated_channels": None,
    }  # fmt: skip


def thread(saver: KVStoreSaver, steps: int, name: str = "t") -> Any:
    """A thread whose one list grows by a piece of text each step, beside one large value that stays."""
    config: Any = {"configurable": {"thread_id": name, "checkpoint_ns": ""}}
    grown: list[str] = []
    for step in range(steps):
        grown = [*grown, random.Random(step).randbytes(100).hex()]
        versions = {"grown": step + 1, "fixed": 1}
        new = versions if step == 0 else {"grown": step + 1}
        values = {"grown": grown, "fixed": "f" * 50_000}
        config = saver.put(config, checkpoint(step, values, versions), {"source": "loop", "step": step, "parents": {}}, new)
    return config


def test_only_what_changed_is_stored_and_every_step_is_found(agents: AgentStore) -> None:
    saver = KVStoreSaver(agents, user="ann")
    config = thread(saver, 200)
    agents.store.flush()
    # All snapshots would take 14 MB.
    assert agents.store.stats()["payload_bytes_stored"] < 14_000_000 / 10
    for step in (0, 1, 100, 199):
        found = saver.get_tuple({"configurable": {**config["configurable"], "checkpoint_id": f"{step:08}"}})
        assert found is not None and len(found.checkpoint["channel_values"]["grown"]) == step + 1
        assert found.checkpoint["channel_values"]["fixed"] == "f" * 50_000


def test_a_value_that_left_the_store_is_an_error_and_no_older_state(agents: AgentStore) -> None:
    saver, blocks = KVStoreSaver(agents, user="ann"), agents.blocks("ann")
    config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    kept, changing = random.Random(1).randbytes(60_000), random.Random(2).randbytes(20_000)
    for step in range(3):
        versions = {"kept": 1, "changing": step}
        new = versions if step == 0 else {"changing": step}
        values = {"kept": kept, "changing": changing + bytes([step])}
        config = saver.put(config, checkpoint(step, values, versions), {"step": step}, new)
    found = saver._load("t", "", "00000002")
    assert found is not None and list(found["heads"]) == [found["values"]["changing"]]
    # The one value lies in the record, the other in one of its own; both have pieces.
    head = found["heads"][found["values"]["changing"]]
    name = found["values"]["kept"]
    pieces = pieces_of(head)
    assert pieces is not None and blocks.is_whole(head)
    blocks.small.forget(Prompt.of_digests(pieces[0], 32))
    for fresh in (saver, KVStoreSaver(agents, user="ann")):
        with pytest.raises(LostStepError, match="changing"):
            fresh.get_tuple({"configurable": {"thread_id": "t"}})
    # What is stored again is whole again, and the other value leaves.
    config = saver.put(config, checkpoint(3, values, {"kept": 1, "changing": 2}), {"step": 3}, {})
    again = saver.get_tuple({"configurable": {"thread_id": "t"}})
    assert again is not None and again.checkpoint["channel_values"] == values
    blocks.forget(saver._key("value", "t", name))
    with pytest.raises(LostStepError, match="kept"):
        saver.get_tuple({"configurable": {"thread_id": "t"}})
    blocks.forget(saver._key("checkpoint", "t", "", "00000003"))
    with pytest.raises(LostStepError, match="newest"):
        saver.get_tuple({"configurable": {"thread_id": "t"}})
    assert saver.get_tuple({"configurable": {**config["configurable"], "checkpoint_id": "00000009"}}) is None


def test_checkpoints_and_writes_of_two_openings_at_once_are_all_kept(path: Path) -> None:
    with open_store(path) as one, AgentStore(one) as first, open_store(path) as two, AgentStore(two) as second:
        savers = [KVStoreSaver(agents, user="ann") for agents in (first, second, first)]

        def work(which: int) -> None:
            for number in range(which, 30, 3):
                config: Any = {"configurable": {"thread_id": "t", "checkpoint_ns": f"n{number % 2}"}}
                put = savers[which].put(config, checkpoint(number, {"x": number}, {"x": number}), {"step": number}, {"x": number})
                savers[which].put_writes(put, [("x", which)], f"task {which}")
                shared = {"configurable": {"thread_id": "t", "checkpoint_ns": "n0", "checkpoint_id": "shared"}}
                savers[which].put_writes(shared, [("x", number)], f"task {number}")

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(work, range(3)))
        for saver in (*savers, KVStoreSaver(first, user="ann")):
            found = list(saver.list({"configurable": {"thread_id": "t"}}))
            assert sorted(item.checkpoint["channel_values"]["x"] for item in found) == list(range(30))
            assert all(len(item.pending_writes or ()) == 1 for item in found)
            for namespace, newest in (("n0", 28), ("n1", 29)):
                latest = saver.get_tuple({"configurable": {"thread_id": "t", "checkpoint_ns": namespace}})
                assert latest is not None and latest.checkpoint["channel_values"] == {"x": newest}
            assert sorted(value for _, _, value in saver._writes("t", "n0", "shared")) == list(range(30))


def test_an_expired_thread_begins_anew_whoever_opens_it(agents: AgentStore) -> None:
    thread(KVStoreSaver(agents, ttl="300ms"), 2)
    config: Any = {"configurable": {"thread_id": "t"}}
    time.sleep(0.4)
    for saver in (KVStoreSaver(agents, ttl="300ms"), KVStoreSaver(agents)):
        assert saver.get_tuple(config) is None and list(saver.list(config)) == []


def test_a_users_threads_are_his_and_go_with_a_purge(agents: AgentStore) -> None:
    ann, bob = KVStoreSaver(agents, user="ann"), KVStoreSaver(agents, user="bob")
    thread(ann, 3)
    assert bob.get_tuple({"configurable": {"thread_id": "t"}}) is None
    assert list(bob.list(None)) == []
    assert [found.metadata["step"] for found in ann.list(None)] == [2, 1, 0]
    agents.purge(user="ann")
    fresh = KVStoreSaver(agents, user="ann")
    assert fresh.get_tuple({"configurable": {"thread_id": "t"}}) is None and list(fresh.list(None)) == []
    thread(ann, 2)
    assert [found.metadata["step"] for found in ann.list(None)] == [1, 0]


def test_what_a_pruned_thread_shares_stays(agents: AgentStore) -> None:
    saver = KVStoreSaver(agents)
    thread(saver, 4)
    saver.copy_thread("t", "copy")
    saver.prune(["t"])
    left = saver.get_tuple({"configurable": {"thread_id": "t"}})
    assert left is not None and len(left.checkpoint["channel_values"]["grown"]) == 4
    assert left.checkpoint["channel_values"]["fixed"] == "f" * 50_000
    saver.delete_thread("t")
    assert saver.get_tuple({"configurable": {"thread_id": "t"}}) is None
    assert len(list(saver.list({"configurable": {"thread_id": "copy"}}))) == 4
    thread(saver, 2)
    assert len(list(saver.list({"configurable": {"thread_id": "t"}}))) == 2
