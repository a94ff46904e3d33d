"""What LangGraph's agents remember across threads, in a store: `KVStoreMemories`, also by `kvstore.langgraph`.

    graph = builder.compile(checkpointer=KVStoreSaver(agents, user="ann"), store=KVStoreMemories(agents, user="ann"))

docs/agents.md tells what is stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

from langgraph.store.base import (
    BaseStore,
    GetOp,
    Item,
    ListNamespacesOp,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    validate_op_namespace,
)
from langgraph.store.memory import InMemoryStore

from .agent import AgentStore, Entry, NotStoredError
from .agent.blocks import encoded
from .agent.canonical import digest
from .agent.lists import AppendList

# Counts changes of what is stored.
_FORMAT = 1
# Memories may not leave the store before what can be made again.
_PRIORITY = 90

_Name = tuple[tuple[str, ...], str]


class KVStoreMemories(BaseStore):
    """The items of a user; of nobody's in particular without `user`. What is put is durable when the call returns.

    A search goes through all items below the prefix, by what LangGraph's InMemoryStore does without an index: filters, no meaning. A
    `query` is an error, and so is a TTL. Threads and processes may share it; of two that put one key at once one prevails.
    """

    def __init__(self, agents: AgentStore, *, user: str | None = None) -> None:
        self._agents, self._user = agents, user
        self._names = AppendList(
            agents.blocks(user),
            agents.claims,
            digest({"kvstore.langgraph": _FORMAT, "of": ["items"]}),
            claim_seconds=agents.claim_seconds,
        )

    @staticmethod
    def _path(name: _Name) -> bytes:
        return digest({"kvstore.langgraph": _FORMAT, "of": ["item", list(name[0]), name[1]]})

    def _item(self, name: _Name) -> Item | None:
        entry = self._agents.blocks(self._user).get(self._path(name))
        if entry is None:
            return None
        found = entry.value
        return Item(value=found["value"], key=name[1], namespace=name[0], created_at=found["created"], updated_at=found["updated"])

    def _items(self, prefix: tuple[str, ...]) -> dict[_Name, Item]:
        """The items below a prefix, in the order in which their names were first put."""
        names: dict[_Name, None] = {}
        for entry in self._names.entries():
            namespace, key = entry.value
            names[tuple(namespace), key] = None
        items = ((name, self._item(name)) for name in names if name[0][: len(prefix)] == prefix)
        return {name: item for name, item in items if item is not None}

    def _put(self, name: _Name, value: Mapping[str, Any] | None) -> None:
        blocks, path = self._agents.blocks(self._user), self._path(name)
        before = self._item(name)
        if value is None:
            blocks.forget(path)
            return
        now = datetime.now(timezone.utc).isoformat()
        created = before.created_at.isoformat() if before else now
        content, kind = encoded({"value": dict(value), "created": created, "updated": now})
        if before is not None:
            blocks.forget(path)
        else:
            # Before the item: a name without one is passed over.
            name_content, name_kind = encoded([list(name[0]), name[1]])
            self._names.append(Entry(name_content, name_kind))
        if not blocks.put(path, Entry(content, kind), priority=_PRIORITY):
            raise NotStoredError("the store has no place for an item")
        blocks.flush(path)

    def _found(self, op: SearchOp | ListNamespacesOp) -> Result:
        """What LangGraph's own store in memory finds in the same items."""
        if isinstance(op, SearchOp) and op.query:
            raise ValueError("this store finds items by their names and values, not by meaning: search without a query")
        items = self._items(op.namespace_prefix if isinstance(op, SearchOp) else ())
        memory = InMemoryStore()
        memory.batch([PutOp(name[0], name[1], item.value) for name, item in items.items()])
        found: Any = memory.batch([op])[0]
        if isinstance(op, ListNamespacesOp):
            return found
        return [
            SearchItem(item.namespace, item.key, item.value, item.created_at, item.updated_at)
            for item in (items[each.namespace, each.key] for each in found)
        ]

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Reads first, then puts, as LangGraph's own stores do."""
        results: list[Result] = []
        puts: dict[_Name, Mapping[str, Any] | None] = {}
        for op in ops:
            validate_op_namespace(op)
            found: Result = None
            if isinstance(op, GetOp):
                found = self._item((tuple(op.namespace), op.key))
            elif isinstance(op, PutOp):
                puts[tuple(op.namespace), op.key] = op.value
            else:
                found = self._found(op)
            results.append(found)
        for name, value in puts.items():
            self._put(name, value)
        return results

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """`batch` in a thread."""
        return await asyncio.to_thread(self.batch, list(ops))
