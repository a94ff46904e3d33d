"""LangChain's own tests of caches and stores, and the two in use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import open_store

pytest.importorskip("langchain_tests", reason="langchain-tests is not installed")

from langchain_classic.embeddings import CacheBackedEmbeddings  # noqa: E402
from langchain_core.embeddings import Embeddings  # noqa: E402
from langchain_core.language_models import GenericFakeChatModel  # noqa: E402
from langchain_core.messages import AIMessage  # noqa: E402
from langchain_tests.integration_tests import (  # noqa: E402
    AsyncCacheTestSuite,
    BaseStoreAsyncTests,
    BaseStoreSyncTests,
    SyncCacheTestSuite,
)

from kvstore.agent import AgentStore  # noqa: E402
from kvstore.langchain import KVStoreByteStore, KVStoreLLMCache  # noqa: E402


class TestCache(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self, agents: AgentStore) -> KVStoreLLMCache:
        return KVStoreLLMCache(agents, user="ann", ttl="1h")


class TestAsyncCache(AsyncCacheTestSuite):
    @pytest.fixture
    async def cache(self, agents: AgentStore) -> KVStoreLLMCache:
        return KVStoreLLMCache(agents)


class TestStore(BaseStoreSyncTests[bytes]):
    @pytest.fixture
    def kv_store(self, agents: AgentStore) -> KVStoreByteStore:
        return KVStoreByteStore(agents, user="ann")

    @pytest.fixture
    def three_values(self) -> tuple[bytes, bytes, bytes]:
        return b"one", b"", bytes(range(256)) * 200


class TestAsyncStore(BaseStoreAsyncTests[bytes]):
    @pytest.fixture
    async def kv_store(self, agents: AgentStore) -> KVStoreByteStore:
        return KVStoreByteStore(agents, ttl="1h")

    @pytest.fixture
    def three_values(self) -> tuple[bytes, bytes, bytes]:
        return b"one", b"two", b"three"


class Counting(Embeddings):
    """Vectors that follow from the text, and how many were made."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.made += texts
        return [[float(ord(character)) for character in text.ljust(8)[:8]] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def test_vectors_are_made_once_over_openings_of_the_store(path: Path) -> None:
    for texts, made in ((["one", "two", "one"], ["one", "two"]), (["two", "three"], ["three"])):
        with open_store(path) as opened, AgentStore(opened) as agents:
            model = Counting()
            cached: Any = CacheBackedEmbeddings.from_bytes_store(
                model, KVStoreByteStore(agents, user="ann", listed=False), namespace="m", key_encoder="sha256"
            )
            assert cached.embed_documents(texts) == Counting().embed_documents(texts)
            assert sorted(set(model.made)) == sorted(made)


def test_a_chat_model_is_asked_once_over_openings_of_the_store(path: Path) -> None:
    def answers() -> Iterator[AIMessage]:
        yield AIMessage("forty-two", usage_metadata={"input_tokens": 3, "output_tokens": 2, "total_tokens": 5})

    # The second one has no answer to give.
    for source in (answers(), iter(list[AIMessage]())):
        with open_store(path) as opened, AgentStore(opened) as agents:
            model = GenericFakeChatModel(messages=source, cache=KVStoreLLMCache(agents, user="ann"))
            found = model.invoke("what is it?")
            assert found.content == "forty-two"


def test_stores_of_other_names_and_users_are_apart(agents: AgentStore) -> None:
    KVStoreByteStore(agents, "one", user="ann").mset([("k", b"v")])
    assert KVStoreByteStore(agents, "one", user="ann").mget(["k", "l"]) == [b"v", None]
    assert KVStoreByteStore(agents, "two", user="ann").mget(["k"]) == [None]
    assert KVStoreByteStore(agents, "one", user="bob").mget(["k"]) == [None]
    agents.purge(user="ann")
    assert KVStoreByteStore(agents, "one", user="ann").mget(["k"]) == [None]
    with pytest.raises(ValueError, match="listed"):
        next(KVStoreByteStore(agents, listed=False).yield_keys())
