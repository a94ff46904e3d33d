"""Memories of LangGraph's agents in a store, beside LangGraph's own store in memory."""

from __future__ import annotations

import asyncio
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypedDict

import pytest
from conftest import open_store

pytest.importorskip("langgraph.graph", reason="langgraph is not installed")

from langgraph.graph import END, START, StateGraph  # noqa: E402
from langgraph.runtime import Runtime  # noqa: E402
from langgraph.store.base import BaseStore, GetOp, InvalidNamespaceError, PutOp, SearchOp  # noqa: E402
from langgraph.store.memory import InMemoryStore  # noqa: E402

from kvstore.agent import AgentStore  # noqa: E402
from kvstore.langgraph import KVStoreMemories  # noqa: E402


def found(items: Any) -> list[tuple[Any, ...]]:
    return sorted((item.namespace, item.key, repr(item.value)) for item in items)


@pytest.mark.parametrize("seed", range(3))
def test_it_answers_as_langgraphs_store_in_memory(path: Path, seed: int) -> None:
    source = random.Random(seed)
    memory = InMemoryStore()
    namespaces = [("users",), ("users", "ann"), ("users", "bob"), ("users", "ann", "facts"), ("docs", "v1"), ("other",)]
    for _ in range(3):
        # In another opening each time.
        with open_store(path) as opened, AgentStore(opened) as agents:
            store = KVStoreMemories(agents, user="ann")
            for _ in range(40):
                namespace, key = source.choice(namespaces), f"k{source.randrange(4)}"
                if source.random() < 0.2:
                    store.delete(namespace, key)
                    memory.delete(namespace, key)
                else:
                    value = {"n": source.randrange(5), "text": "x" * source.choice((1, 20_000)), "in": {"deep": source.random() < 0.5}}
                    store.put(namespace, key, value)
                    memory.put(namespace, key, value)
                one, other = store.get(namespace, key), memory.get(namespace, key)
                assert (one and one.value) == (other and other.value)
            for prefix in ((), ("users",), ("users", "ann"), ("nobody",)):
                for wanted in (None, {"n": 2}, {"n": {"$gte": 2}}, {"n": {"$ne": 1}, "in": {"deep": True}}):
                    everything = memory.search(prefix, filter=wanted, limit=1_000)
                    assert found(store.search(prefix, filter=wanted, limit=1_000)) == found(everything)
                    pages = [store.search(prefix, filter=wanted, limit=3, offset=offset) for offset in range(0, 30, 3)]
                    assert found(item for page in pages for item in page) == found(everything)
            filled = {item.namespace for item in memory.search((), limit=1_000)}
            assert store.list_namespaces() == sorted(filled)
            assert store.list_namespaces(prefix=("users", "*"), max_depth=2) == sorted(
                {namespace[:2] for namespace in filled if len(namespace) > 1 and namespace[0] == "users"}
            )
            assert store.list_namespaces(suffix=("v1",)) == sorted(namespace for namespace in filled if namespace[-1] == "v1")


def test_when_an_item_was_made_and_changed(agents: AgentStore) -> None:
    store = KVStoreMemories(agents)
    store.put(("a",), "k", {"n": 1})
    first = store.get(("a",), "k")
    store.put(("a",), "k", {"n": 2})
    second = store.search(("a",))[0]
    assert first is not None and first.created_at == first.updated_at == second.created_at < second.updated_at


def test_a_batch_reads_before_it_writes_and_what_does_not_fit_is_an_error(agents: AgentStore) -> None:
    store = KVStoreMemories(agents)
    ops = [PutOp(("a",), "k", {"n": 1}), GetOp(("a",), "k"), SearchOp(("a",)), PutOp(("a",), "k", {"n": 2})]
    assert asyncio.run(store.abatch(ops)) == [None, None, [], None]
    item = store.get(("a",), "k")
    assert item is not None and item.value == {"n": 2}
    with pytest.raises(ValueError, match="meaning"):
        store.search(("a",), query="what is it?")
    with pytest.raises(NotImplementedError):
        store.put(("a",), "k", {}, ttl=5)
    with pytest.raises(InvalidNamespaceError):
        store.batch([GetOp(("a.b",), "k")])
    with pytest.raises(TypeError):
        store.put(("a",), "l", {"x": object()})
    assert store.get(("a",), "l") is None
    assert store.list_namespaces(prefix=("a",)) == [("a",)]


def test_users_are_apart_and_a_purge_takes_all(agents: AgentStore) -> None:
    ann, bob = KVStoreMemories(agents, user="ann"), KVStoreMemories(agents, user="bob")
    ann.put(("a",), "k", {"n": 1})
    assert bob.get(("a",), "k") is None and bob.search(()) == []
    agents.purge(user="ann")
    for store in (ann, KVStoreMemories(agents, user="ann")):
        assert store.get(("a",), "k") is None and store.search(()) == [] and store.list_namespaces() == []
    ann.put(("b",), "k", {"n": 2})
    assert [item.value for item in ann.search(())] == [{"n": 2}]


def test_two_openings_at_once_lose_nothing(path: Path) -> None:
    with open_store(path) as one, AgentStore(one) as first, open_store(path) as two, AgentStore(two) as second:
        stores = [KVStoreMemories(first), KVStoreMemories(second), KVStoreMemories(first)]

        def work(which: int) -> None:
            for number in range(which, 30, 3):
                stores[which].put((f"n{number % 2}",), f"k{number}", {"n": number})

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(work, range(3)))
        for store in stores:
            assert sorted(item.value["n"] for item in store.search((), limit=100)) == list(range(30))


class State(TypedDict):
    said: str


def test_a_graph_remembers_in_another_opening(path: Path) -> None:
    def node(state: State, runtime: Runtime[None]) -> dict[str, str]:
        store: BaseStore | None = runtime.store
        assert store is not None
        before = store.get(("users", "ann"), "name")
        store.put(("users", "ann"), "name", {"name": state["said"]})
        return {"said": before.value["name"] if before else "nobody"}

    for said, known in (("Ann", "nobody"), ("Anna", "Ann")):
        with open_store(path) as opened, AgentStore(opened) as agents:
            builder = StateGraph(State)
            builder.add_node("node", node)
            builder.add_edge(START, "node")
            builder.add_edge("node", END)
            graph = builder.compile(store=KVStoreMemories(agents, user="ann"))
            assert graph.invoke({"said": said}) == {"said": known}
