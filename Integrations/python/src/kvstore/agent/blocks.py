"""Where agents' records lie: the two namespaces of a user, and how a value of any size becomes blocks."""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .. import (
    BadHandleError,
    CorruptError,
    ForkedError,
    Identity,
    InternalError,
    KVStoreError,
    Namespace,
    OutOfMemoryError,
    Prompt,
    ReadOnlyError,
    Spans,
    Status,
    StorageError,
    Store,
    UnavailableError,
    _abi,
)
from ..library import check, library
from .calls import DIGEST_BYTES, HEAD_BYTES_MAX, Calls
from .pieces import LARGE_PIECE_BYTES, SMALL_PIECE_BYTES, Recent, digests_of, packed, unpacked

# Values up to here, compressed, lie in their head. Larger ones are cut: up to 512 KiB into pieces of 8 KiB, each compressed after those
# before it, so that values that begin alike have the same pieces; from there on what comes out of that into pieces of 64 KiB.
_INLINE_BYTES_MAX = 4_096
_SMALL_PIECES_MAX = 64
_LARGE_PIECES_MAX = 256
STORED_BYTES_MAX = LARGE_PIECE_BYTES * _LARGE_PIECES_MAX
"""The largest value, as it is stored (compressed where that makes it smaller): 16 MiB."""
CONTENT_BYTES_MAX = 256 << 20
"""The largest value before it is compressed: 256 MiB."""
_META_BYTES_MAX = 4_096
_LEFT = ("expired", "evicted", "over quota", "forgotten", "damaged")
# What shares no beginning with others, such as a vector, lies in its head as long as it fits.
_PLAIN_BYTES_MAX = 12_000
_COMPRESS_BYTES_MIN = 256

KIND_BYTES, KIND_JSON, KIND_ARRAY = 0, 1, 2
_INLINE, _SMALL, _LARGE = 0, 1, 2
_COMPRESSED = 16
_MAGIC = b"kva1"
# Magic, kind, storage, length of the meta data, stored, fresh until (0: no end), length and digest of the content.
_HEAD = struct.Struct("<4sBBHQQQ32s")


UNAVAILABLE = (StorageError, UnavailableError, CorruptError, OutOfMemoryError, InternalError, ReadOnlyError)
"""What of a store costs a cache a call, and its caller no error."""


class TooLargeError(ValueError):
    """A value, or what is noted with it, is larger than a store of records takes."""


class NotStoredError(RuntimeError):
    """The store did not take a record that must not be lost."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A value as it is stored, with what is known about it."""

    content: bytes
    kind: int = KIND_BYTES
    meta: dict[str, Any] = field(default_factory=dict)
    stored: float = 0.0
    """When, in seconds of Unix time."""
    fresh_until: float | None = None
    """From then on it is stale: it is kept for those who can do with that."""

    @property
    def value(self) -> Any:
        """The value: bytes, or what JSON or an array holds."""
        return decoded(self.content, self.kind)


def encoded(value: Any) -> tuple[bytes, int]:
    """A value as bytes, and of which kind it is; raises TypeError for what would not come back as it was."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value), KIND_BYTES
    if hasattr(value, "__array_interface__"):
        return _array_bytes(value), KIND_ARRAY
    _check_plain(value, 0)
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"), KIND_JSON
    except ValueError as reason:
        raise TypeError(f"the value cannot be stored: {reason}") from None


def decoded(content: bytes, kind: int) -> Any:
    """What `encoded` was given; tuples come back as lists."""
    if kind == KIND_JSON:
        return json.loads(content.decode("utf-8", "surrogatepass"))
    if kind == KIND_ARRAY:
        return _array_of(content)
    return content


def _check_plain(value: Any, depth: int) -> None:
    if value is None or isinstance(value, (str, bool, int, float)):
        return
    if depth > 200:
        raise TypeError("a value nested more than 200 deep, or within itself")
    if isinstance(value, (list, tuple)):
        for item in value:
            _check_plain(item, depth + 1)
    elif isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                raise TypeError(f"the names in a stored object are text, not {type(name).__name__}: {name!r}")
            _check_plain(item, depth + 1)
    else:
        raise TypeError(
            f"a {type(value).__name__} cannot be stored: values are JSON (objects, lists, text, numbers, true, false, null), "
            "bytes or numpy arrays; give an `encode` and a `decode` for others"
        )


def _array_bytes(value: Any) -> bytes:
    import io

    import numpy

    array = numpy.asarray(value)
    if array.dtype.hasobject:
        raise TypeError("an array of Python objects cannot be stored")
    file = io.BytesIO()
    numpy.save(file, array, allow_pickle=False)
    return file.getvalue()


def _array_of(content: bytes) -> Any:
    import io

    import numpy

    return numpy.load(io.BytesIO(content), allow_pickle=False)


class Blocks:
    """The records of one user, or of nobody in particular; nothing is shared between two of these.

    A record is a block found by the digests of its path. Threads may share it.
    """

    def __init__(self, store: Store, salt: bytes, *, quota: int | str | None = None, recent: Recent | None = None) -> None:
        self._store = store
        self._recent = recent or Recent()
        self._salt = salt
        self._quota = quota
        self._lock = threading.Lock()
        self._small: Namespace | None = None
        self._large: Namespace | None = None
        self._calls = Calls()

    def _identity(self, region_bytes: int) -> Identity:
        return Identity(
            model_name="kvstore.agent",
            engine_format="kvstore.agent 1",
            layout="records" if region_bytes == HEAD_BYTES_MAX else "pieces",
            tokens_per_block=1,
            digest_bytes=DIGEST_BYTES,
            region_bytes=(region_bytes,),
            regions_variable=True,
            salt=self._salt,
        )

    @property
    def small(self) -> Namespace:
        """Heads, and pieces of values of middling size: in the catalog."""
        if self._small is None:
            with self._lock:
                if self._small is None:
                    self._small = self._store.namespace(self._identity(HEAD_BYTES_MAX), quota=self._quota)
        return self._small

    @property
    def large(self) -> Namespace:
        """Pieces of large values: in slot files. Made when the first one is stored."""
        if self._large is None:
            with self._lock:
                if self._large is None:
                    self._large = self._store.namespace(self._identity(LARGE_PIECE_BYTES), quota=self._quota)
        return self._large

    # ------------------------------------------------------------ heads

    def count(self, path: bytes) -> int:
        """How many of the path's records are stored, from its beginning on. A use of them."""
        return self._calls.touch(self.small, path)

    def peek(self, path: bytes) -> int:
        """`count` without a trace."""
        return self._calls.peek(self.small, path)

    def put(
        self,
        path: bytes,
        entry: Entry,
        *,
        ttl_seconds: float | None = None,
        priority: int | None = None,
        compress: bool = True,
        digests: list[bytes] | None = None,
    ) -> bool:
        """Stores a record at the end of a path, whose other records are stored; False: the store has no place for it.

        A record that is there stays as it is. Durable after `Store.flush`. compress: False for what does not get smaller. digests:
        `digests_of` its content, if they are known.
        """
        head = self.head_of(entry, ttl_seconds=ttl_seconds, priority=priority, compress=compress, digests=digests)
        return head is not None and self.put_head(path, head, ttl_seconds=ttl_seconds, priority=priority)

    def put_head(self, path: bytes, head: bytes, *, ttl_seconds: float | None = None, priority: int | None = None) -> bool:
        """Stores a record whose head is made."""
        return self._calls.offload(self.small, path, head, [len(head)], ttl_seconds, priority)

    def head_of(
        self,
        entry: Entry,
        *,
        ttl_seconds: float | None = None,
        priority: int | None = None,
        compress: bool = True,
        digests: list[bytes] | None = None,
    ) -> bytes | None:
        """The head of a record, whose pieces are stored, if it has some; None: the store has no place for them."""
        if ttl_seconds is not None and ttl_seconds <= 0:
            return None
        meta = json.dumps(entry.meta, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass") if entry.meta else b""
        if len(meta) > _META_BYTES_MAX:
            raise TooLargeError(f"{len(meta)} bytes are noted with a value, and {_META_BYTES_MAX} is the most")
        content = entry.content
        if len(content) > CONTENT_BYTES_MAX:
            raise TooLargeError(f"a value of {len(content)} bytes, and {CONTENT_BYTES_MAX} is the most")
        storage, stored, sizes = _INLINE, content, [0]
        digests = digests or digests_of(content)
        if compress and len(content) >= _COMPRESS_BYTES_MIN:
            pieces = packed(content, digests, self._recent, self._salt)
            stream = b"".join(pieces)
            if len(stream) < len(content) - len(content) // 8:
                storage, stored, sizes = _COMPRESSED, stream, [len(piece) for piece in pieces]
        if len(stored) > STORED_BYTES_MAX:
            raise TooLargeError(
                f"a value of {len(content)} bytes takes {len(stored)} in the store, and {STORED_BYTES_MAX} is the most; "
                "store it in parts, or keep a reference to it"
            )
        if len(stored) <= (_INLINE_BYTES_MAX if compress else _PLAIN_BYTES_MAX):
            rest = stored
        else:
            is_small = len(digests) <= _SMALL_PIECES_MAX
            if is_small and storage == _COMPRESSED:
                rest = b"".join(digests)
            else:
                size = SMALL_PIECE_BYTES if is_small else LARGE_PIECE_BYTES
                rest = b"".join(digests_of(stored, b"small" if is_small else b"large", size))
                sizes = [min(size, len(stored) - start) for start in range(0, len(stored), size)]
            storage |= _SMALL if is_small else _LARGE
            namespace = self.small if is_small else self.large
            if not self._calls.offload(namespace, rest, stored, sizes, ttl_seconds, priority):
                return None
            self._recent.put("content", self._salt + digests[-1], content)
        head = _HEAD.pack(
            _MAGIC,
            entry.kind,
            storage,
            len(meta),
            _nanoseconds(entry.stored or time.time()),
            _nanoseconds(entry.fresh_until) if entry.fresh_until is not None else 0,
            len(content),
            digests[-1],
        )
        return head + meta + rest

    def get(self, path: bytes, *, content: bool = True) -> Entry | None:
        """The record at the end of a path, checked; None: it is not stored, or not whole."""
        head = self._calls.head(self.small, path)
        return None if head is None else self.entry_of(head, content=content)

    def entry_of(self, head: bytes, *, content: bool = True) -> Entry | None:
        """The record that has this head, checked; None: it is none, or not whole."""
        if len(head) < _HEAD.size:
            return None
        magic, kind, storage, meta_size, stored_at, fresh_until, size, digest = _HEAD.unpack_from(head)
        if magic != _MAGIC or _HEAD.size + meta_size > len(head) or size > CONTENT_BYTES_MAX:
            return None
        try:
            meta = json.loads(head[_HEAD.size : _HEAD.size + meta_size].decode("utf-8", "surrogatepass")) if meta_size else {}
        except ValueError:
            # Of a run that was imported from who knows where.
            return None
        body = self._content(head[_HEAD.size + meta_size :], storage, size, digest) if content else b""
        if body is None:
            return None
        return Entry(body, kind, meta, stored_at / 1e9, fresh_until / 1e9 if fresh_until else None)

    def _content(self, rest: bytes, storage: int, size: int, digest: bytes) -> bytes | None:
        """What a head stands for; None: not all of it is stored."""
        place = storage & ~_COMPRESSED
        if storage == _INLINE:
            # The store has checked it with its key.
            return rest
        found: bytes | None = rest
        if place != _INLINE:
            recent = self._recent.get("content", self._salt + digest)
            if recent is not None:
                # As long as its pieces are stored.
                namespace = self.small if place == _SMALL else self.large
                return recent if self._calls.peek(namespace, rest) * DIGEST_BYTES == len(rest) else None
            found = self._get_pieces(rest, place == _SMALL)
        if found is not None and storage & _COMPRESSED:
            found = unpacked(found, size)
        if found is None or len(found) != size or digests_of(found)[-1] != digest:
            # Its pieces are of another value: it was replaced meanwhile.
            return None
        if place != _INLINE:
            self._recent.put("content", self._salt + digest, found)
        return found

    def is_whole(self, head: bytes) -> bool:
        """Whether the pieces of a record are all stored, by now."""
        pieces = pieces_of(head)
        return pieces is None or self._calls.peek(self.large if pieces[1] else self.small, pieces[0]) * DIGEST_BYTES == len(pieces[0])

    def why_not(self, path: bytes) -> str:
        """Why a record is not there, if it was: "expired", "evicted", "over quota", "forgotten", "damaged"; else ""."""
        try:
            cause = self.small.explain(Prompt.of_digests(path, DIGEST_BYTES)).cause
        except KVStoreError:
            return ""
        return cause if cause in _LEFT else ""

    def get_many(self, keys: bytes, into: Callable[[int, memoryview], None]) -> list[int]:
        """Looks up many records of one digest each; hands the content of those that lie in their heads to `into`, with its place.

        Returns the places of the others: those that are not stored, and those that `get` has to put together. The memory is good
        during the call only.
        """
        call, namespace = library().kvstore_restore, self.small.handle
        memory = bytearray(HEAD_BYTES_MAX)
        view = memoryview(memory)
        spans = Spans.of([memory], writable=True)
        prompt = Prompt.of_digests(keys[:DIGEST_BYTES], DIGEST_BYTES)
        transfer = _abi.Transfer(struct_size=ctypes.sizeof(_abi.Transfer), spans=spans.pointer, span_count=1, block_count=1)
        result = _abi.TransferResult(struct_size=ctypes.sizeof(_abi.TransferResult))
        source = ctypes.create_string_buffer(keys, len(keys))
        address = ctypes.addressof(source)
        struct_, transfer_, result_ = prompt.struct, ctypes.byref(transfer), ctypes.byref(result)
        prompt_ = ctypes.byref(struct_)
        others = []
        for index in range(len(keys) // DIGEST_BYTES):
            struct_.digests = address + index * DIGEST_BYTES
            if check(call(namespace, prompt_, transfer_, result_)) == 0 and result.blocks_done == 1:
                magic, _, storage, meta_size, _, _, size, _ = _HEAD.unpack_from(memory)
                start = _HEAD.size + meta_size
                if magic == _MAGIC and storage == _INLINE and start + size == result.bytes:
                    into(index, view[start : start + size])
                    continue
            others.append(index)
        return others

    def flush(self, path: bytes) -> None:
        """Waits until the record at the end of a path is durable, with all that was stored before it."""
        self._store.flush()
        if self.peek(path) * DIGEST_BYTES != len(path):
            raise NotStoredError("a record was dropped: the store is full of what may not be evicted, or cannot write")

    def forget(self, path: bytes) -> int:
        """Removes the record at the end of a path and all behind it, durably; pieces stay until they are evicted."""
        return self.small.forget(Prompt.of_digests(path, DIGEST_BYTES))

    # ------------------------------------------------------------ pieces

    def _get_pieces(self, path: bytes, is_small: bool) -> bytes | None:
        count, rest = divmod(len(path), DIGEST_BYTES)
        if rest or not 0 < count <= (_SMALL_PIECES_MAX if is_small else _LARGE_PIECES_MAX):
            return None
        size = HEAD_BYTES_MAX if is_small else LARGE_PIECE_BYTES
        memory = bytearray(count * size)
        view = memoryview(memory)
        spans = Spans.of([view[start : start + size] for start in range(0, len(memory), size)], writable=True)
        namespace = self.small if is_small else self.large
        done = namespace.restore(Prompt.of_digests(path, DIGEST_BYTES), spans)
        if done.blocks_done != count:
            return None
        return b"".join(view[index * size : index * size + length] for index, length in enumerate(spans.lengths()))

    def piece_paths(self, path: bytes) -> tuple[bytes, Namespace] | None:
        """The pieces of the record at the end of a path, and where they are; None: it has none."""
        heads = self.raw(path, first=len(path) // DIGEST_BYTES - 1)
        pieces = pieces_of(heads[0]) if heads else None
        return None if pieces is None else (pieces[0], self.large if pieces[1] else self.small)

    # ------------------------------------------------------------ as they are

    def raw(self, path: bytes, *, large: bool = False, first: int = 0) -> list[bytes]:
        """The blocks of a path as they are stored, as far as they are."""
        count = len(path) // DIGEST_BYTES - first
        size = LARGE_PIECE_BYTES if large else HEAD_BYTES_MAX
        found: list[bytes] = []
        while len(found) < count:
            part = min(64, count - len(found))
            memory = [bytearray(size) for _ in range(part)]
            spans = Spans.of(memory, writable=True)
            done = (self.large if large else self.small).restore(
                Prompt.of_digests(path, DIGEST_BYTES), spans, first_block=first + len(found), block_count=part
            )
            lengths = spans.lengths()
            found += [bytes(memory[index][: lengths[index]]) for index in range(done.blocks_done)]
            if done.blocks_done < part:
                break
        return found

    def put_raw(
        self, path: bytes, payloads: list[bytes], *, large: bool = False, ttl_seconds: float | None, priority: int | None
    ) -> bool:
        """Stores what `raw` gave."""
        done = (self.large if large else self.small).offload(
            Prompt.of_digests(path, DIGEST_BYTES),
            payloads,
            ttl_seconds=math.inf if ttl_seconds is None else ttl_seconds,
            ttl_absolute=ttl_seconds is not None,
            priority=priority,
        )
        return done.status == Status.OK

    # ------------------------------------------------------------ all of it

    def purge(self) -> int:
        """Removes all records of this user, durably, and overwrites their slots; returns how many blocks went."""
        self._recent.clear()
        count = 0
        for region_bytes in (HEAD_BYTES_MAX, LARGE_PIECE_BYTES):
            namespace = self._store.existing_namespace(self._identity(region_bytes))
            if namespace is not None:
                with namespace:
                    count += namespace.purge()
        return count

    def close(self) -> None:
        """Closes the namespaces; what is stored stays."""
        for namespace in (self._small, self._large):
            if namespace is not None:
                with contextlib.suppress(BadHandleError, ForkedError):
                    namespace.close()
        self._small = self._large = None

    def __del__(self) -> None:
        # At the end of the interpreter the library may have gone before.
        with contextlib.suppress(Exception):
            self.close()


def pieces_of(head: bytes) -> tuple[bytes, bool] | None:
    """The path of a record's pieces, and whether they are large ones; None: its head has all of it."""
    _, _, storage, meta_size, *_ = _HEAD.unpack_from(head)
    place = storage & ~_COMPRESSED
    return None if place == _INLINE else (head[_HEAD.size + meta_size :], place == _LARGE)


def _nanoseconds(seconds: float) -> int:
    return max(0, min(2**64 - 1, round(seconds * 1e9)))
