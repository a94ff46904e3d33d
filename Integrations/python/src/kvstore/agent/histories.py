"""What was written, and so ends what was read before it."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .. import KVStoreError, Prompt
from .blocks import KIND_BYTES, Blocks, Entry, NotStoredError
from .calls import DIGEST_BYTES
from .canonical import digest
from .lists import AppendList
from .rolling import Generations, forget_list
from .scope import LEVELS, Level, Scope

if TYPE_CHECKING:
    from .store import AgentStore

PIN_SECONDS = 90 * 86_400.0
READ_SECONDS_MAX = 30 * 86_400.0
"""The longest life of a result that depends on a history: long before the history's pin ends."""
# A write whose process cannot be asked is over after this time.
_WRITE_SECONDS_MAX = 3600.0
_LISTS_MAX = 512


class _History:
    """The writes to one resource, of one scope: a list of those that were begun, and one of those that ended.

    Both begin anew when they are long and no write is under way. What was read before depends on the generation.
    """

    def __init__(self, agents: AgentStore, blocks: Blocks, key: dict[str, object]) -> None:
        self._agents, self._blocks, self._key = agents, blocks, key
        self._generations = Generations(blocks, agents.claims, digest(key), claim_seconds=agents.claim_seconds, pinned=True)
        self._enter(0)

    def _enter(self, generation: int) -> None:
        self._generation = generation
        self._begun, self._ended = (self._list(generation, what) for what in ("begun", "ended"))
        # The mark of the last write that began, by its number: it never changes.
        self._mark = (0, "")

    def _list(self, generation: int, what: str) -> AppendList:
        key = self._key if generation == 0 else {**self._key, "generation": generation}
        return AppendList(
            self._blocks, self._agents.claims, digest({**key, "what": what}), claim_seconds=self._agents.claim_seconds
        )

    def state(self) -> tuple[str, bool]:
        """What stands for all writes so far, and whether one is under way."""
        while True:
            generation = self._generations.number()
            if generation != self._generation:
                self._enter(generation)
            # In this order: a write that ends in between is seen as under way, and not the other way round.
            ended = self._ended.count()
            begun = self._begun.count()
            # None were begun, or all of them were left behind meanwhile.
            if begun or self._generations.number() == generation:
                break
        if begun > ended:
            self._end_dead(begun, ended)
            return "", True
        number, mark = self._mark
        if number != begun:
            last = self._begun.get(begun - 1) if begun else None
            mark = last.meta["mark"] if last is not None else ""
            self._mark = (begun, mark)
        return f"{begun}:{mark}" if generation == 0 else f"{generation}:{begun}:{mark}", False

    def begin(self, mark: str) -> tuple[AppendList, int]:
        """A write begins: from now on, until it ends, nothing that depends on this is answered or stored. Returns what `end` takes."""
        with self._generations.alone() as generation:
            if generation != self._generation:
                self._enter(generation)
            if Generations.is_long(self._begun.count()) and self._ended.count() >= self._begun.count():
                left = self._begun, self._ended
                self._generations.begin(generation + 1)
                self._enter(generation + 1)
                # Its pins end with it. What was begun goes first: who finds none of it looks for another generation.
                for found in left:
                    forget_list(self._blocks, found)
            return self._ended, self._append(mark)

    def _append(self, mark: str) -> int:
        meta = {"mark": mark, "process": os.getpid(), "network": _network()}
        index = self._begun.append(Entry(b"", KIND_BYTES, meta, stored=time.time()))
        path = self._begun.path(index)
        try:
            pin = self._blocks.small.pin(Prompt.of_digests(path, DIGEST_BYTES), PIN_SECONDS)
        except KVStoreError:
            # Too many pins: what is left is the priority, above all else.
            pin = None
            self._agents.metrics.count("history", "pin", "refused")
        before = self._ended.get(self._ended.count() - 1) if index % 256 and self._ended.count() else None
        if before is not None and before.meta.get("pin"):
            self._agents.store.unpin(before.meta["pin"])
        return pin.id if pin else 0

    def end(self, mark: str, begun: tuple[AppendList, int], seconds: float) -> None:
        """It has ended, however it did."""
        ended, pin = begun
        if seconds > _WRITE_SECONDS_MAX / 2 and (mark in self._ended_marks(ended.count()) or ended.count() == 0):
            # Somebody took it for dead.
            return
        ended.append(Entry(b"", KIND_BYTES, {"mark": mark, "pin": pin}, stored=time.time()))

    def _ended_marks(self, ended: int) -> set[str]:
        return {entry.meta["mark"] for index in range(max(0, ended - 64), ended) if (entry := self._ended.get(index))}

    def _end_dead(self, begun: int, ended: int) -> None:
        """Ends writes whose process has died, and those that nobody can ask about after a time."""
        marks = self._ended_marks(ended)
        over = 0
        for index in range(max(0, begun - 64), begun):
            entry = self._begun.get(index)
            if entry is None or entry.meta["mark"] in marks:
                continue
            if entry.meta.get("network") == _network():
                with self._agents.claims.hold(_writing(entry.meta["mark"]), 0) as free:
                    is_over = free
            else:
                is_over = time.time() - entry.stored > _WRITE_SECONDS_MAX
            if is_over and self._ended.append_at(
                ended + over, Entry(b"", KIND_BYTES, {"mark": entry.meta["mark"], "pin": 0, "dead": True}, stored=time.time())
            ):
                over += 1


def _writing(mark: str) -> bytes:
    return digest({"kvstore.agent": "writing", "mark": mark})


def _network() -> int:
    try:
        return os.stat("/proc/self/ns/net").st_ino
    except OSError:
        return 0


class Histories:
    """The histories of the resources that tools read and write, in all scopes."""

    def __init__(self, agents: AgentStore) -> None:
        self._agents = agents
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, _History] = OrderedDict()

    def _history(self, scope: Scope, level: Level, resource: str, below: bool) -> _History:
        key = {"kvstore.agent": "history", "scope": scope.key(level), "resource": resource, "below": below}
        name = digest(key)
        with self._lock:
            found = self._known.get(name)
            if found is None:
                found = self._known[name] = _History(self._agents, self._agents.blocks(scope.owner(level)), key)
                if len(self._known) > _LISTS_MAX:
                    self._known.popitem(last=False)
            else:
                self._known.move_to_end(name)
            return found

    def _read(self, scope: Scope, level: Level, resource: str) -> Iterator[_History]:
        """Those that a reader at a level sees: writes at its level and at wider ones, and all at narrower ones."""
        yield self._history(scope, level, resource, True)
        known = scope.known()
        for wider in LEVELS[LEVELS.index(level) :]:
            if wider in known:
                yield self._history(scope, wider, resource, False)

    def state(self, scope: Scope, level: Level, resources: Sequence[str]) -> list[list[str]] | None:
        """What stands in a key for all writes to these resources; None while one is under way."""
        states = []
        is_open = False
        for resource in sorted(set(resources)):
            marks = [resource]
            for history in self._read(scope, level, resource):
                mark, under_way = history.state()
                is_open = is_open or under_way
                marks.append(mark)
            states.append(marks)
        return None if is_open else states

    @contextlib.contextmanager
    def writing(self, scope: Scope, level: Level, resources: Sequence[str]) -> Iterator[None]:
        """A write to these resources, by a call of a scope: ends what was read of them there and in wider scopes' results."""
        known = scope.known()
        levels = [(level, False)]
        levels += [(wider, True) for wider in LEVELS[LEVELS.index(level) + 1 :] if wider in known]
        held: list[tuple[_History, str, tuple[AppendList, int]]] = []
        start = time.monotonic()
        with contextlib.ExitStack() as claims:
            try:
                for resource in sorted(set(resources)):
                    for where, below in levels:
                        history = self._history(scope, where, resource, below)
                        mark = secrets.token_hex(8)
                        # Before anybody can know of the write: who finds its claim free takes it for dead.
                        claims.enter_context(self._agents.claims.hold(_writing(mark), 0))
                        held.append((history, mark, history.begin(mark)))
                yield
            finally:
                for history, mark, begun in held:
                    try:
                        history.end(mark, begun, time.monotonic() - start)
                    except (KVStoreError, NotStoredError):
                        # Nothing is answered until somebody ends it for us: the effect has happened, and its result is returned.
                        self._agents.metrics.count("history", "end", "refused")
