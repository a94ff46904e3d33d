"""A run as a file, to go on or be replayed in another store."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from .blocks import Blocks, NotStoredError, pieces_of
from .calls import DIGEST_BYTES
from .canonical import digest
from .lane import Lane
from .lists import AppendList
from .run import Run
from .scope import Scope

if TYPE_CHECKING:
    from .store import AgentStore

_MAGIC = b"kvstore run 1\n"
_LENGTHS = struct.Struct("<I")
_RECORD_BYTES_MAX = 1 << 20


def export_run(run: Run, path: str | os.PathLike[str]) -> int:
    """Writes all records of a run into a file, which appears once it is whole; returns how many blocks. Pins stay behind, and what
    the run shares with others (tool results) is in its log. `kvstore export --run` writes the same."""
    target = Path(path).expanduser()
    unfinished = target.with_name(f".{target.name}.{os.getpid()}")
    count = 0
    try:
        # It has what was said: its owner's alone.
        with open(unfinished, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as opened:
            file = _Hashed(opened)
            file.write(_MAGIC)
            # How long is left of its life counts, not when it was to end: clocks differ.
            record = run._blocks.get(run._record_path)
            if record is None:
                raise LookupError(f"run {run.id} has left the store")
            _put(file, {"run": run.id, "session": run.scope.session, "rest": run._rest(), "record": record.value})
            seen: set[tuple[bytes, bool]] = set()
            for digests, large in _paths(run):
                count += _export(run._blocks, file, digests, large, seen)
            _put(file, {"end": count, "sha256": file.digest.hexdigest()})
            opened.flush()
            os.fsync(opened.fileno())
        unfinished.rename(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return count


class _Hashed:
    """A file with the digest of what was written or read so far."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self.digest.update(data)
        self._file.write(data)

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        return data


def _put(file: _Hashed, head: dict[str, Any], payloads: list[bytes] | None = None) -> None:
    text = json.dumps({**head, "sizes": [len(payload) for payload in payloads or ()]}).encode()
    file.write(_LENGTHS.pack(len(text)) + text)
    for payload in payloads or ():
        file.write(payload)


def _export(blocks: Blocks, file: _Hashed, path: bytes, large: bool, seen: set[tuple[bytes, bool]]) -> int:
    if not path or (path, large) in seen:
        return 0
    seen.add((path, large))
    payloads = blocks.raw(path, large=large)
    if len(payloads) * DIGEST_BYTES != len(path):
        raise LookupError("a part of the run has left the store, so it cannot be exported whole")
    _put(file, {"path": path.hex(), "large": large}, payloads)
    count = len(payloads)
    for payload in payloads:
        # Pieces have no heads: what follows them is not a record's.
        if not large and payload[:4] == b"kva1":
            pieces = pieces_of(payload)
            if pieces is not None:
                count += _export(blocks, file, *pieces, seen)
    return count


def _paths(run: Run) -> Iterator[tuple[bytes, bool]]:
    blocks = run._blocks
    yield run._record_path, False
    yield from _list_paths(run._branches)
    record = blocks.get(run._record_path)
    ways = [record.value["segments"]] if record else []
    ways += [entry.value["segments"] for entry in run._branches.entries()]
    for segments in ways:
        # What `Memory` noted of the prompts.
        yield from _list_paths(run._list(f"growth {segments[0][0]}"))
        lane = Lane(run, run._blocks, [(label, end) for label, end in segments], "run")
        count = lane.count()
        yield lane.path_to(count)[: count * DIGEST_BYTES], False
        for number in range(1, count + 1):
            here = lane.path_to(number)[-DIGEST_BYTES:]
            tokens = digest({"kvstore.agent": "tokens", "at": here.hex()})
            if blocks.peek(tokens):
                yield tokens, False
    yield from _list_paths(run.log._openings)
    lanes: dict[str, None] = {}
    for opening in run.log.openings():
        events = run.log.list_of(opening.index)
        if events is None:
            continue
        yield from _list_paths(events)
        for index in range(events.count()):
            entry = events.get(index, content=False)
            if entry is None:
                continue
            if "value" in entry.meta:
                yield bytes.fromhex(entry.meta["value"]), False
            if "lane" in entry.meta:
                lanes[entry.meta["lane"]] = None
    for label in lanes:
        inner = Lane(run, run._blocks, [(label, None)], "")
        yield inner.path_to(inner.count()), False


def _list_paths(found: AppendList) -> Iterator[tuple[bytes, bool]]:
    count = found.count()
    for first in range(0, count, 256):
        yield found.path(min(first + 256, count) - 1), False


def import_run(agents: AgentStore, path: str | os.PathLike[str], *, user: str | None = None) -> Run:
    """Puts an exported run into a store, as that user's; returns it. Raises ValueError where the store has a run of that name."""
    with Path(path).expanduser().open("rb") as opened:
        file = _Hashed(opened)
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError(f"{path} is no exported run")
        head, _ = _next(file)
        scope = Scope(user, head["session"], head["run"])
        blocks = agents.blocks(user)
        key = {"kvstore.agent": "run", "session": scope.session, "run": scope.run}
        record_path = digest({**key, "record": 1})
        if blocks.peek(record_path):
            raise ValueError(f"there is a run {scope.run} already")
        rest = head["rest"]
        count = 0
        record: tuple[bytes, list[bytes]] | None = None
        while True:
            before = file.digest.hexdigest()
            part, payloads = _next(file)
            if "end" in part:
                if part.get("sha256") != before:
                    raise ValueError(f"{path} is damaged")
                break
            digests = bytes.fromhex(part["path"])
            count += len(payloads)
            if digests == record_path:
                # Last: until then there is no run.
                record = (digests, payloads)
                continue
            if not blocks.put_raw(digests, payloads, large=part["large"], ttl_seconds=rest, priority=90):
                raise NotStoredError("the store has no place for the run")
        if count != part["end"] or record is None:
            raise ValueError(f"{path} is not whole")
        agents.store.flush()
        if not blocks.put_raw(*record, ttl_seconds=rest, priority=90):
            raise NotStoredError("the store has no place for the run")
        blocks.flush(record_path)
        agents.register_run(scope, {**head["record"], "created": head["record"].get("created", time.time())})
    return agents.run(head["run"], user=user, session=head["session"])


def _next(file: _Hashed) -> tuple[dict[str, Any], list[bytes]]:
    def read(size: int) -> bytes:
        found = file.read(size)
        if len(found) != size:
            raise ValueError("the file ends too early")
        return found

    (size,) = _LENGTHS.unpack(read(_LENGTHS.size))
    if size > 64 * _RECORD_BYTES_MAX:
        raise ValueError("not an exported run")
    head = json.loads(read(size))
    sizes = head["sizes"]
    if not all(isinstance(length, int) and 0 <= length <= _RECORD_BYTES_MAX for length in sizes):
        raise ValueError("not an exported run")
    return head, [read(length) for length in sizes]
