"""What a run's calls asked and what they were answered: kept in the store, so that they can be audited and answered again."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from .blocks import DIGEST_BYTES, KIND_BYTES, KIND_JSON, Blocks, Entry, decoded
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
    return json.dumps(asked, ensure_ascii=False, separators=(",", ":"), default=str).encode("utf-8", "surrogatepass")


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


class Recorder:
    """Writes the events of one opening of a run; or, of a run that is replayed, reads them."""

    def __init__(self, log: RunLog, scope_run: str) -> None:
        self._log, self.run = log, scope_run
        self._lock = threading.Lock()
        self._list: AppendList | None = None
        self._count = 0
        self.dropped = 0
        self.root = Place("run")

    def call(self, what: str) -> str:
        """The name of the call that is made now."""
        return (place.get() or self.root).next(what)

    def replayed(self, layer: str, call: str, asked: Any) -> Event | None:
        """The answer of a run that is replayed; None: it is not, so make the call."""
        return None

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
        error: str = "",
        step: tuple[int, str] | None = None,
    ) -> None:
        """One more event. It is durable with the next step, or at `Store.flush`."""
        meta: dict[str, Any] = {"layer": layer, "outcome": outcome, "name": name[:200]}
        for field, text in (("call", call[:400]), ("key", key.hex()), ("version", version[:100]), ("source", source[:200])):
            if text:
                meta[field] = text
        if reason or error:
            meta["reason"] = (reason or error)[:400]
        if age is not None:
            meta["age"] = round(age, 6)
        if step is not None:
            meta["step"], meta["branch"] = step
        content = b""
        if asked is not None:
            written = _text(asked)
            if len(written) <= _ASKED_BYTES_MAX:
                content, meta["asked"] = written, len(written)
            else:
                meta["digest"] = hashlib.sha256(written).hexdigest()
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


class Replayer(Recorder):
    """Answers the calls of a run from the log of one opening; never makes one."""

    def __init__(self, log: RunLog, scope_run: str, opening: int) -> None:
        super().__init__(log, scope_run)
        found = log.list_of(opening)
        if found is None:
            raise LookupError(f"the run has no record {opening}")
        self._events = found
        # Where in the log each call is: names alone, the answers stay where they are.
        self._places: dict[str, int] = {}
        for index in range(found.count()):
            entry = found.get(index, content=False)
            if entry is not None and entry.meta.get("call") and entry.meta.get("layer") != "step":
                self._places[_numbered(entry.meta["call"])] = index

    def replayed(self, layer: str, call: str, asked: Any) -> Event | None:
        index = self._places.get(_numbered(call))
        if index is None:
            raise DivergenceError(call, "the call", "no call", {"layer": layer, "asked": asked})
        entry = self._events.get(index)
        if entry is None:
            raise DivergenceError(call, "the record", "absent", asked)
        event = self._log.event(entry, values=True)
        if event.call != call:
            raise DivergenceError(call, "the call", event.call, call)
        if event.asked is not None:
            found = first_difference(event.asked, json.loads(_text(asked)))
            if found:
                raise DivergenceError(call, *found)
        elif "digest" in entry.meta and entry.meta["digest"] != hashlib.sha256(_text(asked)).hexdigest():
            raise DivergenceError(call, "what it asks", "of another digest", hashlib.sha256(_text(asked)).hexdigest())
        return event

    def note(self, layer: str, outcome: str, name: str, **rest: Any) -> None:
        """A replay leaves no trace."""


def _numbered(call: str) -> str:
    """A call's place without what it calls: where something else was called, that is the difference."""
    return call[: call.rfind(":")] if ":" in call else call


__all__ = ["DIGEST_BYTES", "DivergenceError", "Event", "Opening", "Recorder", "Replayer", "RunLog", "first_difference"]
