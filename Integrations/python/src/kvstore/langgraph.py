"""LangGraph keeps its threads, the results of its nodes and what agents remember in a store: `KVStoreSaver`, `KVStoreCache`,
`KVStoreMemories`.

    from kvstore.agent import AgentStore
    from kvstore.langgraph import KVStoreCache, KVStoreSaver

    agents = AgentStore("~/.cache/my-agent")
    graph = builder.compile(checkpointer=KVStoreSaver(agents, user="ann"), cache=KVStoreCache(agents, user="ann"))

docs/agents.md tells what is stored. Importing this module needs langgraph (or langgraph-checkpoint alone).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.cache.base import BaseCache, FullKey
from langgraph.cache.base import Namespace as CacheNamespace
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    get_checkpoint_id,
    get_checkpoint_metadata,
    writes_sort_key,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from .agent import AgentStore, Entry, LostStepError, NotStoredError
from .agent.blocks import KIND_BYTES, encoded
from .agent.canonical import digest
from .agent.lists import AppendList
from .agent.pieces import digests_of
from .agent.scope import seconds
from .langgraph_store import KVStoreMemories

__all__ = ["KVStoreCache", "KVStoreMemories", "KVStoreSaver"]

# Counts changes of what is stored.
_FORMAT = 1
# Steps may not leave the store before what can be made again.
_PRIORITY = 90
_LISTS_MAX = 1024
# Heads of values that are new with a checkpoint lie in its record, as long as together they are not larger; so do the smallest ones of
# values that it has from the one before. Others are records.
_HEADS_BYTES_MAX = 3_000
_REPEATED_BYTES_MAX = 200
_HEADERS = {0xDC: 3, 0xDD: 5, 0xDE: 3, 0xDF: 5}


@dataclass(frozen=True, slots=True)
class _Before:
    """What a checkpoint hands on to the one behind it."""

    versions: ChannelVersions
    values: dict[str, str]
    """By channel, their names."""
    heads: dict[str, bytes]
    """By name, of those that lie in its record."""


def _config(thread: str, namespace: str, checkpoint: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": namespace, "checkpoint_id": checkpoint}}


def _json(value: Any) -> Entry:
    content, kind = encoded(value)
    return Entry(content, kind)


def _entry(typed: tuple[str, bytes]) -> Entry:
    """What a serializer gave, to store. How many members a list or map of MessagePack has stands at its front, so that one that
    grows would share nothing with what it was: that goes into the meta data."""
    kind, content = typed
    meta = {"type": kind}
    if kind == "msgpack" and content:
        size = _HEADERS.get(content[0], 1 if 0x80 <= content[0] <= 0x9F else 0)
        meta["front"], content = content[:size].hex(), content[size:]
    return Entry(content, KIND_BYTES, meta)


def _typed(entry: Entry) -> tuple[str, bytes]:
    return entry.meta["type"], bytes.fromhex(entry.meta.get("front", "")) + entry.content


class KVStoreSaver(BaseCheckpointSaver[str]):
    """The checkpoints of a user's threads; of nobody's in particular without `user`.

    Values of channels that did not change take no space, and of those that grow only what is new does. A checkpoint, and what a task
    has written, is durable when the call returns. ttl: a checkpoint ends so long after it was stored. What has left the store although
    it had no TTL raises a LostStepError; nothing older takes its place. Threads and processes may share one thread's checkpoints.
    """

    def __init__(
        self,
        agents: AgentStore,
        *,
        user: str | None = None,
        ttl: float | str | None = None,
        serde: SerializerProtocol | None = None,
    ) -> None:
        super().__init__(serde=serde)
        self._agents, self._user, self._ttl_seconds = agents, user, seconds(ttl)
        self._lists: OrderedDict[tuple[str, ...], AppendList] = OrderedDict()
        # The checkpoints that were stored last: the next one of a thread asks for them.
        self._stored: OrderedDict[tuple[str, str, str], _Before] = OrderedDict()
        self._lock = threading.Lock()

    # ------------------------------------------------------------ where things are

    def _key(self, *parts: str) -> bytes:
        return hashlib.sha256(json.dumps(("kvstore.langgraph", _FORMAT, parts)).encode()).digest()

    def _list(self, *parts: str) -> AppendList:
        """The threads of the user, the namespaces of a thread, the checkpoints in a namespace, or what was written to a checkpoint."""
        with self._lock:
            found = self._lists.get(parts)
            if found is None:
                found = self._lists[parts] = AppendList(
                    self._agents.blocks(self._user),
                    self._agents.claims,
                    self._key(*parts),
                    ttl_seconds=self._ttl_seconds if parts[0] == "writes" else None,
                    claim_seconds=self._agents.claim_seconds,
                )
                if len(self._lists) > _LISTS_MAX:
                    self._lists.popitem(last=False)
            self._lists.move_to_end(parts)
            return found

    def _names(self, *parts: str) -> list[str]:
        return list(dict.fromkeys(entry.value for entry in self._list(*parts).entries()))

    def _register(self, thread: str, namespace: str) -> None:
        """Notes a thread and its namespace, before the first checkpoint in it."""
        for parts, name in ((("threads",), thread), (("namespaces", thread), namespace)):
            if name not in self._names(*parts):
                self._list(*parts).append(_json(name))

    def _store(self, path: bytes, entry: Entry) -> None:
        if not self._agents.blocks(self._user).put(
            path, entry, ttl_seconds=self._ttl_seconds, priority=_PRIORITY
        ):
            raise NotStoredError("the store has no place for a checkpoint")

    # ------------------------------------------------------------ one checkpoint

    def _load(self, thread: str, namespace: str, checkpoint: str) -> dict[str, Any] | None:
        entry = self._agents.blocks(self._user).get(self._key("checkpoint", thread, namespace, checkpoint))
        return None if entry is None else self.serde.loads_typed(_typed(entry))

    def _values(self, thread: str, found: Mapping[str, Any]) -> dict[str, Any]:
        values = {}
        for channel, name in found["values"].items():
            values[channel] = self.serde.loads_typed(_typed(self._value(thread, found, channel, name)))
        return values

    def _value(self, thread: str, found: Mapping[str, Any], channel: str, name: str) -> Entry:
        blocks, head = self._agents.blocks(self._user), found["heads"].get(name)
        entry = blocks.get(self._key("value", thread, name)) if head is None else blocks.entry_of(head)
        if entry is None:
            raise LostStepError(f"the value of channel {channel!r} in thread {thread!r} has left the store")
        return entry

    def _writes(self, thread: str, namespace: str, checkpoint: str) -> list[tuple[str, str, Any]]:
        """What tasks wrote to a checkpoint: of what was written twice the first, of errors and interrupts the last."""
        found: dict[tuple[str, int], tuple[str, str, Any]] = {}
        for entry in self._list("writes", thread, namespace, checkpoint).entries():
            for task, index, path, channel, value in self.serde.loads_typed(_typed(entry)):
                if index < 0 or (task, index) not in found:
                    found[task, index] = (path, channel, value)
        order = sorted(found, key=lambda key: writes_sort_key(found[key][0], *key))
        return [(key[0], *found[key][1:]) for key in order]

    def _tuple(self, thread: str, namespace: str, checkpoint: str, found: Mapping[str, Any]) -> CheckpointTuple:
        parent = found["parent"]
        return CheckpointTuple(
            config=_config(thread, namespace, checkpoint),
            checkpoint=cast(Checkpoint, {**found["checkpoint"], "channel_values": self._values(thread, found)}),
            metadata=found["metadata"],
            parent_config=_config(thread, namespace, parent) if parent else None,
            pending_writes=self._writes(thread, namespace, checkpoint),
        )

    def _ids(self, thread: str, namespace: str) -> list[str]:
        """The checkpoints in a namespace that were not deleted, newest first."""
        ids: dict[str, None] = {}
        for entry in self._list("checkpoints", thread, namespace).entries():
            value = entry.value
            ids[value["id"]] = None
            for gone in value["gone"]:
                ids.pop(gone, None)
        ids.pop("", None)
        return sorted(ids, reverse=True)

    def _note(self, thread: str, namespace: str, checkpoint: str, gone: Sequence[str] = ()) -> None:
        """Adds to the list of checkpoints; each record has the newest one, so that the last tells it."""
        checkpoints = self._list("checkpoints", thread, namespace)

        def made(count: int) -> Entry:
            if gone:
                newest = next((id for id in self._ids(thread, namespace) if id not in gone), "")
            else:
                if count == 0:
                    self._register(thread, namespace)
                last = checkpoints.get(count - 1) if count else None
                newest = max(checkpoint, last.value["newest"] if last else "")
            return _json({"id": checkpoint, "newest": newest, "gone": list(gone)})

        checkpoints.append_made(made)

    def _newest(self, thread: str, namespace: str) -> str:
        checkpoints = self._list("checkpoints", thread, namespace)
        count = checkpoints.count()
        last = checkpoints.get(count - 1) if count else None
        return last.value["newest"] if last else ""

    def _is_lost(self, thread: str, namespace: str, checkpoint: str) -> bool:
        """Whether a checkpoint that is not there was neither deleted meanwhile nor has expired."""
        if self._ttl_seconds is not None or self._newest(thread, namespace) != checkpoint:
            return False
        path = self._key("checkpoint", thread, namespace, checkpoint)
        return self._agents.blocks(self._user).why_not(path) != "expired"

    # ------------------------------------------------------------ the interface

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that the configuration names, or the newest one."""
        thread = str(config["configurable"]["thread_id"])
        namespace = config["configurable"].get("checkpoint_ns", "")
        named = get_checkpoint_id(config)
        checkpoint = named or self._newest(thread, namespace)
        found = self._load(thread, namespace, checkpoint) if checkpoint else None
        if found is None:
            if checkpoint and not named and self._is_lost(thread, namespace, checkpoint):
                raise LostStepError(f"the newest checkpoint of thread {thread!r} has left the store")
            return None
        return self._tuple(thread, namespace, checkpoint, found)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """The checkpoints of a thread, or of all, newest first."""
        wanted = config["configurable"] if config else {}
        end = get_checkpoint_id(before) if before else None
        count = 0
        for thread in [str(wanted["thread_id"])] if config else self._names("threads"):
            for namespace in [wanted["checkpoint_ns"]] if "checkpoint_ns" in wanted else self._names("namespaces", thread):
                for checkpoint in self._ids(thread, namespace):
                    if limit is not None and count >= limit:
                        return
                    if checkpoint != wanted.get("checkpoint_id", checkpoint) or (end and checkpoint >= end):
                        continue
                    found = self._load(thread, namespace, checkpoint)
                    if found is None or any(found["metadata"].get(name) != value for name, value in (filter or {}).items()):
                        continue
                    count += 1
                    yield self._tuple(thread, namespace, checkpoint, found)

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Stores a checkpoint; of its channels those that have a new version."""
        thread = str(config["configurable"]["thread_id"])
        namespace = config["configurable"].get("checkpoint_ns", "")
        parent = get_checkpoint_id(config)
        versions = checkpoint["channel_versions"]
        blocks = self._agents.blocks(self._user)
        values: dict[str, str] = {}
        heads: dict[str, bytes] = {}
        # Records of values, and the heads of all that are new.
        paths: set[bytes] = set()
        made: set[bytes] = set()
        before: _Before | None = None
        for channel, value in checkpoint["channel_values"].items():
            if parent and channel not in new_versions and self._ttl_seconds is None:
                before = before or self._before(thread, namespace, parent)
                name = before.values.get(channel) if before.versions.get(channel) == versions.get(channel) else None
                if name is not None and self._keep(thread, name, before, heads, paths):
                    values[channel] = name
                    continue
            typed = self.serde.dumps_typed(value)
            entry = _entry(typed)
            digests = digests_of(entry.content)
            name = values[channel] = hashlib.sha256(json.dumps(entry.meta).encode() + digests[-1]).hexdigest()
            head = blocks.head_of(entry, ttl_seconds=self._ttl_seconds, priority=_PRIORITY, digests=digests)
            if head is None:
                raise NotStoredError("the store has no place for a checkpoint")
            made.add(head)
            if len(head) + sum(map(len, heads.values())) <= _HEADS_BYTES_MAX:
                heads[name] = head
            else:
                paths.add(self._store_head(thread, name, head))
        kept = {name: value for name, value in checkpoint.items() if name != "channel_values"}
        record = {
            "checkpoint": kept,
            "metadata": get_checkpoint_metadata(config, metadata),
            "parent": parent,
            "values": values,
            "heads": heads,
        }
        path = self._key("checkpoint", thread, namespace, checkpoint["id"])
        if blocks.peek(path):
            blocks.forget(path)
        self._store(path, _entry(self.serde.dumps_typed(record)))
        # Durable, with all before it.
        self._note(thread, namespace, checkpoint["id"])
        if not all(map(blocks.peek, (*paths, path))) or not all(map(blocks.is_whole, made)):
            raise NotStoredError("a checkpoint was dropped: the store is full of what may not be evicted, or cannot write")
        with self._lock:
            self._stored[thread, namespace, checkpoint["id"]] = _Before(dict(versions), values, heads)
            if len(self._stored) > _LISTS_MAX:
                self._stored.popitem(last=False)
        return _config(thread, namespace, checkpoint["id"])

    def _before(self, thread: str, namespace: str, parent: str) -> _Before:
        """The checkpoint that another one follows."""
        with self._lock:
            known = self._stored.get((thread, namespace, parent))
        if known is not None:
            return known
        found = self._load(thread, namespace, parent)
        return _Before(found["checkpoint"]["channel_versions"], found["values"], found["heads"]) if found else _Before({}, {}, {})

    def _keep(self, thread: str, name: str, before: _Before, heads: dict[str, bytes], paths: set[bytes]) -> bool:
        """Keeps a value that has not changed; False: it is not there as a whole."""
        blocks = self._agents.blocks(self._user)
        head = before.heads.get(name)
        if head is None:
            return blocks.peek(self._key("value", thread, name)) > 0
        if not blocks.is_whole(head):
            return False
        if len(head) <= _REPEATED_BYTES_MAX and len(head) + sum(map(len, heads.values())) <= _HEADS_BYTES_MAX:
            heads[name] = head
        else:
            paths.add(self._store_head(thread, name, head))
        return True

    def _store_head(self, thread: str, name: str, head: bytes) -> bytes:
        path = self._key("value", thread, name)
        if not self._agents.blocks(self._user).put_head(path, head, ttl_seconds=self._ttl_seconds, priority=_PRIORITY):
            raise NotStoredError("the store has no place for a checkpoint")
        return path

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Stores what a task wrote to a checkpoint."""
        wanted = config["configurable"]
        records = [
            (task_id, WRITES_IDX_MAP.get(channel, index), task_path, channel, value)
            for index, (channel, value) in enumerate(writes)
        ]
        self._list("writes", str(wanted["thread_id"]), wanted.get("checkpoint_ns", ""), wanted["checkpoint_id"]).append(
            _entry(self.serde.dumps_typed(records))
        )

    def _remove(self, thread: str, namespace: str, gone: Sequence[str]) -> None:
        """Removes checkpoints, what was written to them, and values that no other checkpoint of the thread has."""
        if not gone:
            return
        self._note(thread, namespace, "", gone)
        blocks = self._agents.blocks(self._user)
        names: set[str] = set()
        for checkpoint in gone:
            found = self._load(thread, namespace, checkpoint)
            names.update(found["values"].values() if found else ())
            blocks.forget(self._key("checkpoint", thread, namespace, checkpoint))
            self._forget_list("writes", thread, namespace, checkpoint)
        for other in self._names("namespaces", thread):
            for checkpoint in self._ids(thread, other) if names else ():
                found = self._load(thread, other, checkpoint)
                names.difference_update(found["values"].values() if found else ())
        for path in (self._key("value", thread, name) for name in names):
            if blocks.peek(path):
                blocks.forget(path)

    def _forget_list(self, *parts: str) -> None:
        found = self._list(*parts)
        # The last page first: who is interrupted finds the end of what is left.
        for first in range((max(found.count(), 1) - 1) // 256 * 256, -1, -256):
            self._agents.blocks(self._user).forget(found.path(first))
        with self._lock:
            self._lists.pop(parts, None)

    def delete_thread(self, thread_id: str) -> None:
        """Removes a thread. Of values of more than 4 KiB the pieces stay until they are evicted, or the user is purged."""
        thread = str(thread_id)
        for namespace in self._names("namespaces", thread):
            self._remove(thread, namespace, self._ids(thread, namespace))
            self._forget_list("checkpoints", thread, namespace)
        self._forget_list("namespaces", thread)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Removes the checkpoints that these runs made: looks at all of the user's."""
        runs = set(map(str, run_ids))
        for thread in self._names("threads"):
            for namespace in self._names("namespaces", thread):
                gone = []
                for checkpoint in self._ids(thread, namespace):
                    found = self._load(thread, namespace, checkpoint)
                    if found is not None and found["metadata"].get("run_id") in runs:
                        gone.append(checkpoint)
                self._remove(thread, namespace, gone)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copies all of a thread; large values are shared."""
        source, target = str(source_thread_id), str(target_thread_id)
        blocks = self._agents.blocks(self._user)
        for namespace in self._names("namespaces", source):
            self._register(target, namespace)
            for checkpoint in reversed(self._ids(source, namespace)):
                found = self._load(source, namespace, checkpoint)
                if found is None:
                    continue
                for channel, name in found["values"].items():
                    value = self._value(source, found, channel, name)
                    if name not in found["heads"]:
                        self._store(self._key("value", target, name), value)
                    elif not blocks.head_of(value, ttl_seconds=self._ttl_seconds, priority=_PRIORITY):
                        raise NotStoredError("the store has no place for a checkpoint")
                for entry in self._list("writes", source, namespace, checkpoint).entries():
                    self._list("writes", target, namespace, checkpoint).append(entry)
                self._store(
                    self._key("checkpoint", target, namespace, checkpoint), _entry(self.serde.dumps_typed(found))
                )
                self._note(target, namespace, checkpoint)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Removes all but the newest checkpoint of each namespace ("keep_latest"), or all ("delete").

        Ancestors that a DeltaChannel of the newest one is made from stay.
        """
        if strategy not in ("keep_latest", "delete"):
            raise ValueError(f"a strategy is 'keep_latest' or 'delete', not {strategy!r}")
        for thread in map(str, thread_ids):
            if strategy == "delete":
                self.delete_thread(thread)
                continue
            for namespace in self._names("namespaces", thread):
                ids = self._ids(thread, namespace)
                keep = set(ids[:1])
                found = self._load(thread, namespace, ids[0]) if ids else None
                open_channels = set(found["metadata"].get("counters_since_delta_snapshot") or ()) if found else set()
                while found is not None and found["parent"] and (open_channels := open_channels - set(found["values"])):
                    keep.add(found["parent"])
                    found = self._load(thread, namespace, found["parent"])
                self._remove(thread, namespace, [checkpoint for checkpoint in ids if checkpoint not in keep])

    def get_next_version(self, current: str | int | float | None, channel: None) -> str:
        """A number, and a random one behind it: branches of a thread that was rewound do not share a version."""
        number = 0 if current is None else int(str(current).partition(".")[0])
        return f"{number + 1:032}.{random.random():016}"

    # ------------------------------------------------------------ the same for coroutines

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """`get_tuple` in a thread."""
        return await asyncio.to_thread(self.get_tuple, config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """`list` in a thread."""
        found = self.list(config, filter=filter, before=before, limit=limit)
        while (item := await asyncio.to_thread(next, found, None)) is not None:
            yield item

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """`put` in a thread."""
        return await asyncio.to_thread(self.put, config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """`put_writes` in a thread."""
        await asyncio.to_thread(self.put_writes, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        """`delete_thread` in a thread."""
        await asyncio.to_thread(self.delete_thread, thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """`delete_for_runs` in a thread."""
        await asyncio.to_thread(self.delete_for_runs, run_ids)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """`copy_thread` in a thread."""
        await asyncio.to_thread(self.copy_thread, source_thread_id, target_thread_id)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """`prune` in a thread."""
        await asyncio.to_thread(lambda: self.prune(thread_ids, strategy=strategy))


class KVStoreCache(BaseCache[Any]):
    """The results of a graph's nodes, found by what LangGraph makes of their input; each lives as long as its CachePolicy says."""

    def __init__(self, agents: AgentStore, *, user: str | None = None, serde: SerializerProtocol | None = None) -> None:
        super().__init__(serde=serde)
        self._agents, self._user = agents, user
        self._generations = AppendList(
            agents.blocks(user), agents.claims, digest({"kvstore.langgraph": _FORMAT, "of": ["cleared"]})
        )

    def _cleared(self) -> dict[str, int]:
        """How often each namespace was cleared; "" stands for all."""
        counts: dict[str, int] = {}
        for entry in self._generations.entries():
            counts[entry.value] = counts.get(entry.value, 0) + 1
        return counts

    @staticmethod
    def _name(namespace: CacheNamespace) -> str:
        return digest(list(namespace)).hex()

    def _path(self, key: FullKey, cleared: Mapping[str, int]) -> bytes:
        name = self._name(key[0])
        return digest(
            {
                "kvstore.langgraph": _FORMAT,
                "of": ["node", name, key[1]],
                "cleared": [cleared.get("", 0), cleared.get(name, 0)],
            }
        )

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        """The results that are stored."""
        blocks, cleared = self._agents.blocks(self._user), self._cleared()
        found = {}
        for namespace, key in keys:
            entry = blocks.get(self._path((namespace, key), cleared))
            if entry is not None:
                found[tuple(namespace), key] = self.serde.loads_typed(_typed(entry))
        return found

    def set(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        """Stores results; what was there is replaced. What the store has no place for is computed again."""
        blocks, cleared = self._agents.blocks(self._user), self._cleared()
        for key, (value, ttl) in pairs.items():
            path = self._path(key, cleared)
            if blocks.peek(path):
                blocks.forget(path)
            blocks.put(path, _entry(self.serde.dumps_typed(value)), ttl_seconds=ttl)

    def clear(self, namespaces: Sequence[CacheNamespace] | None = None) -> None:
        """From now on nothing that was stored is found, of these namespaces or of all; what it took is freed by eviction."""
        for name in [""] if namespaces is None else map(self._name, namespaces):
            self._generations.append(_json(name))

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        """`get` in a thread."""
        return await asyncio.to_thread(self.get, keys)

    async def aset(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        """`set` in a thread."""
        await asyncio.to_thread(self.set, pairs)

    async def aclear(self, namespaces: Sequence[CacheNamespace] | None = None) -> None:
        """`clear` in a thread."""
        await asyncio.to_thread(self.clear, namespaces)
