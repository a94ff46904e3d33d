"""Vectors by their documents' content, many at once."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import open_store

from kvstore.agent import AgentStore, DivergenceError

if importlib.util.find_spec("numpy") is None:
    pytest.skip("numpy is not installed", allow_module_level=True)

import numpy

from kvstore.agent.embeddings import Embeddings


class Model:
    """Makes vectors, and counts of how many documents."""

    def __init__(self, size: int = 64, factor: float = 1.0) -> None:
        self.seen: list[Any] = []
        self.size, self.factor = size, factor

    def __call__(self, documents: list[Any]) -> Any:
        self.seen += documents
        rows = [[hash(document) % 1000 * self.factor + column for column in range(self.size)] for document in documents]
        return numpy.array(rows, dtype="float64")


@pytest.mark.parametrize("size", [1, 64, 3_000, 20_000])
def test_vectors_come_back_as_they_were(path: Path, size: int) -> None:
    model = Model(size)
    documents = [f"document {number}" for number in range(20)]
    with open_store(path) as store, AgentStore(store) as agents:
        first = Embeddings(agents, "m", model, scope="global").get(documents)
        assert first.shape == (20, size) and first.dtype == numpy.float32
    with open_store(path) as store, AgentStore(store) as agents:
        embeddings = Embeddings(agents, "m", model, scope="global")
        assert (embeddings.get(list(reversed(documents)))[::-1] == first).all()
        assert len(model.seen) == 20
        documents[7] += " changed"
        changed = embeddings.get(documents)
        assert model.seen[20:] == [documents[7]] and (changed[7] != first[7]).any()
        assert (numpy.delete(changed, 7, 0) == numpy.delete(first, 7, 0)).all()


def test_what_changes_a_vector_is_in_its_key(agents: AgentStore) -> None:
    keys = set()
    for model, version, settings, scope, dtype in (
        ("m", "", None, "global", "f4"), ("n", "", None, "global", "f4"), ("m", "2", None, "global", "f4"),
        ("m", "", {"dimensions": 64}, "global", "f4"), ("m", "", None, "user", "f4"), ("m", "", None, "global", "f2"),
    ):  # fmt: skip
        for user in ("ann", "bob"):
            with agents.scope(user=user):
                embeddings = Embeddings(agents, model, version=version, settings=settings, scope=scope, dtype=dtype)  # type: ignore[arg-type]
                keys.update(embeddings.keys(["text", b"text", "other", ""]))
    assert len(keys) == 7 * 4


def test_equal_documents_are_made_once(agents: AgentStore) -> None:
    model = Model()
    embeddings = Embeddings(agents, "m", model, scope="global", batch=3)
    vectors = embeddings.get(["a", "b", "a", "c", "b", "d"])
    assert model.seen == ["a", "b", "c", "d"] and (vectors[0] == vectors[2]).all()
    assert embeddings.get([]).shape[0] == 0
    assert [vector is None for vector in embeddings.look(["a", "z"])] == [False, True]
    with agents.fresh():
        embeddings.get(["a"])
    assert model.seen[4:] == ["a"]
    with pytest.raises(LookupError, match="1 documents"):
        Embeddings(agents, "m", scope="global").get(["z"])
    with pytest.raises(TypeError, match="list of documents"):
        embeddings.get("text")
    with pytest.raises(ValueError, match="shape"):
        Embeddings(agents, "q", lambda documents: numpy.zeros(3), scope="global").get(["a"])
    with pytest.raises(ValueError, match="3 numbers, and others have 64"):
        Embeddings(agents, "m", Model(3), scope="global").get(["a", "new"])
    counts = agents.metrics.counts()
    assert counts == {("embedding", "m", "stored"): 5, ("embedding", "m", "hit"): 1}


def test_a_life_ends_and_a_user_is_purged(agents: AgentStore) -> None:
    model = Model()
    short = Embeddings(agents, "m", model, scope="global", ttl="30ms")
    short.get(["a"])
    while short.look(["a"])[0] is not None:
        time.sleep(0.01)
    with agents.scope(user="ann"):
        mine = Embeddings(agents, "m", model)
        mine.get(["a"])
        agents.purge(user="ann")
        assert mine.look(["a"]) == [None]


def test_a_replay_makes_no_vectors(agents: AgentStore) -> None:
    model = Model()
    embeddings = Embeddings(agents, "m", model)
    with agents.run("r", user="ann") as run:
        first = embeddings.get(["a", "b"])
        assert run.events()[-1].reason == "2 documents, 2 made"
    with agents.replay("r", user="ann"):
        assert (embeddings.get(["a", "b"]) == first).all()
        with pytest.raises(DivergenceError, match="1 of 1 documents"):
            embeddings.get(["c"])


def test_ten_thousand_documents_in_one_call(path: Path) -> None:
    model = Model(32)
    documents = [f"document {number}" for number in range(10_000)]
    with open_store(path, capacity="512MiB") as store, AgentStore(store) as agents:
        embeddings = Embeddings(agents, "m", model, scope="global", batch=2_000)
        first = embeddings.get(documents)
        assert (embeddings.get(documents) == first).all() and len(model.seen) == 10_000
