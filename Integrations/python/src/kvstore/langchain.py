"""LangChain keeps answers of models, and bytes such as vectors, in a store: `KVStoreLLMCache`, `KVStoreByteStore`.

    from langchain_core.globals import set_llm_cache
    from kvstore.agent import AgentStore
    from kvstore.langchain import KVStoreByteStore, KVStoreLLMCache

    agents = AgentStore("~/.cache/my-agent")
    set_llm_cache(KVStoreLLMCache(agents, user="ann", ttl="1w"))
    embedder = CacheBackedEmbeddings.from_bytes_store(model, KVStoreByteStore(agents, user="ann"), namespace=model.model)

docs/agents.md tells what is stored. Importing this module needs langchain-core.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.load import dumps, loads
from langchain_core.stores import BaseStore

from .agent import AgentStore, Entry
from .agent.blocks import KIND_BYTES, UNAVAILABLE, encoded
from .agent.canonical import digest
from .agent.lists import AppendList
from .agent.scope import seconds

# Counts changes of what is stored.
_FORMAT = 1


class _Cleared:
    """How often something was emptied: a part of the keys of what is in it."""

    def __init__(self, agents: AgentStore, user: str | None, what: str) -> None:
        self._list = AppendList(
            agents.blocks(user), agents.claims, digest({"kvstore.langchain": _FORMAT, "cleared": what})
        )

    def count(self) -> int:
        return self._list.count()

    def more(self) -> None:
        content, kind = encoded(None)
        self._list.append(Entry(content, kind))


class KVStoreLLMCache(BaseCache):
    """Answers of models for LangChain, by the whole prompt and the model's settings as LangChain writes them.

    LangChain asks its cache for sampled answers too, and does not put accounts apart: give a user, or a cache for each account. ttl: so
    long an answer lives. A store that cannot be read or written is a miss.
    """

    def __init__(self, agents: AgentStore, *, user: str | None = None, ttl: float | str | None = None) -> None:
        self._agents, self._user, self._ttl_seconds = agents, user, seconds(ttl)
        self._cleared = _Cleared(agents, user, "answers")

    def _path(self, prompt: str, llm_string: str) -> bytes:
        return digest(
            {"kvstore.langchain": _FORMAT, "prompt": prompt, "llm": llm_string, "cleared": self._cleared.count()}
        )

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """The answer that is stored."""
        try:
            entry = self._agents.blocks(self._user).get(self._path(prompt, llm_string))
        except UNAVAILABLE:
            entry = None
        self._agents.metrics.count("answer", "langchain", "miss" if entry is None else "hit")
        # What was stored is what this class has stored: objects of LangChain's messages alone.
        return None if entry is None else [loads(text, allowed_objects="core") for text in json.loads(entry.content)]

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """Stores an answer; what was there is replaced."""
        content = json.dumps([dumps(generation) for generation in return_val]).encode()
        try:
            blocks, path = self._agents.blocks(self._user), self._path(prompt, llm_string)
            if blocks.peek(path):
                blocks.forget(path)
            kept = blocks.put(path, Entry(content, KIND_BYTES), ttl_seconds=self._ttl_seconds)
        except UNAVAILABLE:
            kept = False
        self._agents.metrics.count("answer", "langchain", "stored" if kept else "refused")

    def clear(self, **kwargs: Any) -> None:
        """From now on nothing that was stored is found; what it took is freed by eviction."""
        self._cleared.more()


class KVStoreByteStore(BaseStore[str, bytes]):
    """Bytes under names, for CacheBackedEmbeddings and what else takes a ByteStore.

    `name` keeps several apart. listed: whether `yield_keys` works, which takes a durable record for each new name; a cache of
    vectors does without.
    """

    def __init__(
        self,
        agents: AgentStore,
        name: str = "",
        *,
        user: str | None = None,
        ttl: float | str | None = None,
        listed: bool = True,
    ) -> None:
        self._agents, self._name, self._user, self._ttl_seconds = agents, name, user, seconds(ttl)
        self._names: AppendList | None = None
        if listed:
            key = digest({"kvstore.langchain": _FORMAT, "store": name, "names": True})
            self._names = AppendList(agents.blocks(user), agents.claims, key)

    def _path(self, key: str) -> bytes:
        return digest({"kvstore.langchain": _FORMAT, "store": self._name, "key": key})

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values, and None for what is not stored."""
        blocks = self._agents.blocks(self._user)
        found: list[bytes | None] = [None] * len(keys)

        def take(index: int, content: memoryview) -> None:
            found[index] = bytes(content)

        paths = [self._path(key) for key in keys]
        for index in blocks.get_many(b"".join(paths), take) if paths else ():
            entry = blocks.get(paths[index])
            found[index] = None if entry is None else entry.content
        return found

    def mset(self, key_value_pairs: Sequence[tuple[str, bytes]]) -> None:
        """Stores values, durably; what was there is replaced."""
        blocks = self._agents.blocks(self._user)
        for key, value in key_value_pairs:
            path = self._path(key)
            known = blocks.peek(path)
            if known:
                blocks.forget(path)
            elif self._names is not None:
                # Before the value: a name without one is passed over.
                content, kind = encoded(key)
                self._names.append(Entry(content, kind))
            blocks.put(path, Entry(value, KIND_BYTES), ttl_seconds=self._ttl_seconds, compress=False)
        self._agents.store.flush()

    def mdelete(self, keys: Sequence[str]) -> None:
        """Removes values, durably."""
        blocks = self._agents.blocks(self._user)
        for key in keys:
            blocks.forget(self._path(key))

    def yield_keys(self, *, prefix: str | None = None) -> Iterator[str]:
        """The names that have a value and begin so."""
        if self._names is None:
            raise ValueError("the names of this store are not listed: KVStoreByteStore(…, listed=True)")
        blocks = self._agents.blocks(self._user)
        for key in dict.fromkeys(entry.value for entry in self._names.entries()):
            if key.startswith(prefix or "") and blocks.peek(self._path(key)):
                yield key
