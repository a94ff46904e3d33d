"""What a run's calls asked and what they were answered: kept in the store, so that they can be audited and answered again."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from .blocks import KIND_BYTES, KIND_JSON, Blocks, Entry, decoded
from .canonical import digest, keyed
from .claims import Claims
from .lists import AppendList

ENTRIES_MAX = 100_000
"""The most events of one opening of a run; what comes after them is counted, and cannot be replayed."""
_VALUE_BYTES_MAX = 6_144
_ASKED_BYTES_MAX = 65_536


class DivergenceError(RuntimeError):
    """A call is not the one that was recorded in its place."""

    def __init__(self, call: str, field: str, recorded: Any, asked: Any) -> None:
        super().__init__(f"{call}: {field} was {_shown(recorded)} when it was recorded, and is {_shown(asked)} now")
        self.call = call
        """Which call, as "run/3:search"."""
        self.field = field
        """Where it differs, as "arguments.query"."""
        self.recorded, self.asked = recorded, asked


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) and value in ("absent", "no call") else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 200 else text[:200] + "…"


def _text(asked: Any) -> bytes:
    return json.dumps(asked, ensure_ascii=False, separators=(",", ":"), sort_keys=True, default=str).encode("utf-8", "surrogatepass")


def first_difference(recorded: Any, asked: Any, path: str = "") -> tuple[str, Any, Any] | None:
    """The first field in which two JSON values differ, and both values of it; None: they are one."""
    if isinstance(recorded, dict) and isinstance(asked, dict):
        for name in sorted({*recorded, *asked}):
            inner = f"{path}.{name}" if path else name
            if name not in recorded:
                return inner, "absent", asked[name]
            if name not in asked:
                return inner, recorded[name], "absent"
            found = first_difference(recorded[name], asked[name], inner)
            if found:
                return found
        return None
    if isinstance(recorded, (list, tuple)) and isinstance(asked, (list, tuple)):
        for index, (left, right) in enumerate(zip(recorded, asked)):
            found = first_difference(left, right, f"{path}[{index}]")
            if found:
                return found
        if len(recorded) != len(asked):
            index = min(len(recorded), len(asked))
            longer = recorded if len(recorded) > len(asked) else asked
            values = (longer[index], "absent") if longer is recorded else ("absent", longer[index])
            return f"{path}[{index}]", *values
        return None
    return None if keyed(recorded) == keyed(asked) else (path or "the value", recorded, asked)


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a run's log."""

    time: float
    layer: str
    """"step", "tool", "answer", "embedding", "run"."""
    outcome: str
    """hit, miss, stored, stale, forced, bypassed, failed, recorded, refused, expired, invalidated …"""
    name: str
    """Of the tool, the model, the step."""
    call: str
    """Which call of the run it is, as "run/3:search"; "" for what is no call."""
    key: str
    """The digest that it was looked up by."""
    version: str
    age: float | None
    """Of what was found, in seconds."""
    source: str
    """The run that stored what was found."""
    reason: str
    asked: Any
    """What the call was made with; None where that is too large, or the value is not read."""
    value: Any = None
    """What it was answered, where that is kept here."""
    has_value: bool = False
    seconds: float | None = None
    """What the call took when it was made: saved, where it was answered."""
    tokens: tuple[int, int] | None = None
    """Of a model's prompt and answer."""
    money: float | None = None
    """What they cost, by the store's price list."""


@dataclass(frozen=True, slots=True)
class Opening:
    """One time that a run was opened, and its log."""

    index: int
    opened: float
    process: int
    mode: str


class RunLog:
    """The log of one run: a list of openings, and a list of events of each."""

    def __init__(
        self, blocks: Blocks, claims: Claims, key: dict[str, Any], *, ttl_seconds: float | None, claim_seconds: float = 60
    ) -> None:
        self._blocks, self._claims, self._key = blocks, claims, key
        self._ttl_seconds, self._claim_seconds = ttl_seconds, claim_seconds
        self._openings = self._list({**key, "log": "openings"})

    def _list(self, key: dict[str, Any]) -> AppendList:
        return AppendList(
            self._blocks,
            self._claims,
            digest(key),
            ttl_seconds=self._ttl_seconds,
            priority=90,
            claim_seconds=self._claim_seconds,
        )

    def open(self, mode: str) -> tuple[int, AppendList]:
        """One more opening, and the list of its events."""
        nonce = secrets.token_hex(16)
        meta = {"nonce": nonce, "process": os.getpid(), "mode": mode}
        index = self._openings.append(Entry(b"", KIND_BYTES, meta, stored=time.time()))
        return index, self._list({**self._key, "log": nonce})

    def openings(self) -> list[Opening]:
        """All of them, in order."""
        return [
            Opening(index, entry.stored, entry.meta.get("process", 0), entry.meta.get("mode", ""))
            for index, entry in enumerate(self._openings.entries())
        ]

    def list_of(self, index: int) -> AppendList | None:
        """The events of an opening."""
        entry = self._openings.get(index)
        return self._list({**self._key, "log": entry.meta["nonce"]}) if entry else None

    def events(self, index: int, *, values: bool = False) -> list[Event]:
        """The events of an opening, in order."""
        found = self.list_of(index)
        if found is None:
            return []
        return [self.event(entry, values=values) for entry in found.entries()]

    def event(self, entry: Entry, *, values: bool = False) -> Event:
        """What a record of the log says."""
        meta = entry.meta
        asked_size = meta.get("asked", 0)
        value: Any = None
        has_value = "kind" in meta
        if values and has_value:
            content: bytes | None = entry.content[asked_size:]
            if "value" in meta:
                kept = self._blocks.get(bytes.fromhex(meta["value"]))
                content = kept.content if kept else None
            if content is None:
                has_value = False
            else:
                value = decoded(content, meta["kind"])
        return Event(
            time=entry.stored,
            layer=meta.get("layer", ""),
            outcome=meta.get("outcome", ""),
            name=meta.get("name", ""),
            call=meta.get("call", ""),
            key=meta.get("key", ""),
            version=meta.get("version", ""),
            age=meta.get("age"),
            source=meta.get("source", ""),
            reason=meta.get("reason", ""),
            asked=decoded(entry.content[:asked_size], KIND_JSON) if asked_size else None,
            value=value,
            has_value=has_value,
            seconds=meta.get("seconds"),
            tokens=tuple(meta["tokens"]) if "tokens" in meta else None,
            money=meta.get("money"),
        )

    def keep_value(self, content: bytes, kind: int) -> str | None:
        """Keeps a value that is too large for its line; its pieces are shared with where it is stored besides."""
        key = digest({**self._key, "log": "value", "n": secrets.token_hex(16)})
        if self._blocks.put(key, Entry(content, kind), ttl_seconds=self._ttl_seconds, priority=90):
            return key.hex()
        return None


# Where within a run a call is made: a step's own calls are counted by themselves.
place: ContextVar[Place | None] = ContextVar("kvstore.agent.place", default=None)


class Place:
    """Numbers the calls of a run that come one after the other."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls = 0
        self._lock = threading.Lock()

    def next(self, what: str) -> str:
        """The name of the next call."""
        with self._lock:
            self.calls += 1
            return f"{self.name}/{self.calls}:{what}"


class _Recorded:
    """Where the answers of a run's calls are: by what was asked, and by their number. The answers stay in the store."""

    def __init__(self, log: RunLog, openings: list[int], is_on_path: Callable[[str, int], bool]) -> None:
        self.log = log
        self._lists = {index: found for index in openings if (found := log.list_of(index)) is not None}
        self.numbered: dict[str, tuple[int, int]] = {}
        self._asked: dict[tuple[str, str], list[tuple[int, int]]] = {}
        for opening, events in self._lists.items():
            seen: dict[tuple[str, str], int] = {}
            self.numbered = {}
            for index in range(events.count()):
                entry = events.get(index, content=False)
                if entry is None or "digest" not in entry.meta or not is_on_path(entry.meta["branch"], entry.meta["at"]):
                    continue
                meta = entry.meta
                self.numbered[_numbered(meta["call"])] = (opening, index)
                if meta["outcome"] == "failed":
                    continue
                # The n-th call of one kind at one place is answered by the n-th record of it, from the first opening that has it.
                place_asked = (_place(meta["call"]), meta["digest"])
                occurrence = seen[place_asked] = seen.get(place_asked, 0) + 1
                known = self._asked.setdefault(place_asked, [])
                if len(known) < occurrence and "kind" in meta:
                    known.append((opening, index))

    def take(self, call: str, asked: str) -> Event | None:
        """The answer of the next such call; each is taken once."""
        known = self._asked.get((_place(call), asked))
        while known:
            opening, index = known.pop(0)
            event = self.event(opening, index)
            if event is not None and event.has_value:
                return event
        return None

    def event(self, opening: int, index: int) -> Event | None:
        """A line of the log, with its answer."""
        entry = self._lists[opening].get(index)
        return self.log.event(entry, values=True) if entry is not None else None


class Recorder:
    """Writes the events of one opening of a run, and knows what the openings before it were answered."""

    def __init__(self, log: RunLog, at: Callable[[], tuple[str, int]], is_on_path: Callable[[str, int], bool]) -> None:
        self._log, self._at, self._is_on_path = log, at, is_on_path
        self._lock = threading.Lock()
        self._list: AppendList | None = None
        self._count = 0
        self._before = len(log.openings())
        self._recorded: _Recorded | None = None
        self.dropped = 0
        self.root = Place("run")

    def call(self, what: str) -> str:
        """The name of the call that is made now."""
        return (place.get() or self.root).next(what)

    def answered(self, layer: str, call: str, asked: Any) -> Event | None:
        """What this call was answered before the process that made it ended; None: it was not, so make it."""
        if not self._before:
            return None
        with self._lock:
            if self._recorded is None:
                self._recorded = _Recorded(self._log, list(range(self._before)), self._is_on_path)
            return self._recorded.take(call, _digest(asked))

    def forget_recorded(self) -> None:
        """The run goes another way: what was recorded on the way that it leaves answers nothing."""
        with self._lock:
            self._before = len(self._log.openings())
            self._recorded = None

    def note(
        self,
        layer: str,
        outcome: str,
        name: str,
        *,
        call: str = "",
        key: bytes = b"",
        version: str = "",
        age: float | None = None,
        source: str = "",
        reason: str = "",
        asked: Any = None,
        answer: tuple[bytes, int] | None = None,
        step: tuple[int, str] | None = None,
        lane: str = "",
        took: float | None = None,
        tokens: Sequence[int] | None = None,
        money: float | None = None,
    ) -> None:
        """One more event. It is durable with the next step, or at `Store.flush`."""
        meta: dict[str, Any] = {"layer": layer, "outcome": outcome, "name": name[:200]}
        for field, text in (
            ("call", call[:400]),
            ("key", key.hex()),
            ("version", version[:100]),
            ("source", source[:200]),
            ("reason", reason[:400]),
            ("lane", lane),
        ):
            if text:
                meta[field] = text
        if age is not None:
            meta["age"] = round(age, 6)
        if took:
            meta["seconds"] = round(took, 6)
        if tokens and any(tokens):
            meta["tokens"] = list(tokens)
            if money:
                meta["money"] = round(money, 9)
        if step is not None:
            meta["step"], meta["branch"] = step
        content = b""
        if asked is not None:
            meta["branch"], meta["at"] = self._at()
            meta["digest"] = _digest(asked)
            written = _text(asked)
            if len(written) <= _ASKED_BYTES_MAX:
                content, meta["asked"] = written, len(written)
        with self._lock:
            if self._count >= ENTRIES_MAX:
                self.dropped += 1
                return
            if self._list is None:
                _, self._list = self._log.open("live")
            if answer is not None:
                value, kind = answer
                meta["kind"] = kind
                if len(value) <= _VALUE_BYTES_MAX:
                    content += value
                else:
                    kept = self._log.keep_value(value, kind)
                    if kept is None:
                        del meta["kind"]
                    else:
                        meta["value"] = kept
            if self._list.put(self._count, Entry(content, KIND_BYTES, meta, stored=time.time())):
                self._count += 1
            else:
                self.dropped += 1


class RecordedError(RuntimeError):
    """A call of a run that is replayed failed when it was recorded; the message says how."""


class Replayer(Recorder):
    """Answers the calls of a run from the log of one opening, in order; never makes one, and leaves no trace."""

    def __init__(
        self, log: RunLog, at: Callable[[], tuple[str, int]], is_on_path: Callable[[str, int], bool], opening: int
    ) -> None:
        super().__init__(log, at, is_on_path)
        self._recorded = _Recorded(log, list(range(opening + 1)), is_on_path)

    def answered(self, layer: str, call: str, asked: Any) -> Event | None:
        recorded = self._recorded
        assert recorded is not None
        where = recorded.numbered.get(_numbered(call))
        line = recorded.event(*where) if where else None
        if line is not None and line.call == call and line.outcome == "failed" and _digest(line.asked) == _digest(asked):
            raise _error_of(line.reason)
        with self._lock:
            event = recorded.take(call, _digest(asked))
        if event is not None:
            return event
        if line is None:
            raise DivergenceError(call, "the call", "no call", {"layer": layer, "asked": asked})
        found = first_difference(line.asked, json.loads(_text(asked))) if line.asked is not None else None
        raise DivergenceError(call, *(found or ("the answer", "absent", asked)))

    def note(self, layer: str, outcome: str, name: str, **rest: Any) -> None:
        """A replay leaves no trace."""


def _error_of(reason: str) -> Exception:
    """The error that was recorded, where it is one of Python's own."""
    import builtins

    name, _, message = reason.partition(": ")
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, (UnicodeError, BaseExceptionGroup)):
        return kind(message)
    return RecordedError(reason)


def _digest(asked: Any) -> str:
    return hashlib.sha256(_text(asked)).hexdigest()


def _place(call: str) -> str:
    """Where a call is made, and what it calls, without its number."""
    before, _, last = call.rpartition("/")
    return f"{before}:{last.partition(':')[2]}"


def _numbered(call: str) -> str:
    """A call's place and number without what it calls: where something else was called, that is the difference."""
    before, _, last = call.rpartition("/")
    return f"{before}/{last.partition(':')[0]}"


__all__ = [
    "DivergenceError",
    "Event",
    "Opening",
    "Place",
    "RecordedError",
    "Recorder",
    "Replayer",
    "RunLog",
    "first_difference",
    "place",
]
