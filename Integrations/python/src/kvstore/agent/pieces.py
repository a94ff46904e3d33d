"""How a value is cut into pieces, which values that begin alike share, and what was cut or put together lately."""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections import OrderedDict

SMALL_PIECE_BYTES = 8_192
LARGE_PIECE_BYTES = 65_536
# As far as deflate looks back.
_HISTORY_BYTES = 32_768
_RECENT_BYTES_MAX = 16 << 20


class Recent:
    """Bytes by whose they are and the digest that they follow from: a value that grows is not compressed anew, and one that was stored
    or read lately not put together again. 16 MiB; threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: OrderedDict[tuple[str, bytes], bytes] = OrderedDict()
        self._byte_count = 0

    def get(self, kind: str, key: bytes) -> bytes | None:
        """What was put; None: it was not, or long ago."""
        with self._lock:
            found = self._items.get((kind, key))
            if found is not None:
                self._items.move_to_end((kind, key))
            return found

    def put(self, kind: str, key: bytes, content: bytes) -> None:
        """Keeps it for a while."""
        if len(content) > _RECENT_BYTES_MAX // 4:
            return
        with self._lock:
            if (kind, key) in self._items:
                return
            self._items[kind, key] = content
            self._byte_count += len(content)
            while self._byte_count > _RECENT_BYTES_MAX:
                self._byte_count -= len(self._items.popitem(last=False)[1])

    def clear(self) -> None:
        """Forgets all: something was removed for good."""
        with self._lock:
            self._items.clear()
            self._byte_count = 0


def digests_of(content: bytes, domain: bytes = b"packed", size: int = SMALL_PIECE_BYTES) -> list[bytes]:
    """The digest of each piece: SHA-256 of all down to its end, so that it stands for what comes before as well.

    The last one is the value's; that of no bytes has one too. domain: what is stored under these digests.
    """
    running = hashlib.sha256(b"kvstore.agent " + domain + b"\0")
    if not content:
        return [running.digest()]
    view = memoryview(content)
    found = []
    for start in range(0, len(content), size):
        running.update(view[start : start + size])
        found.append(running.copy().digest())
    return found


def packed(content: bytes, digests: list[bytes], recent: Recent, owner: bytes) -> list[bytes]:
    """The pieces of a value, each compressed with what stands before it at hand: the same for all values that begin with them.

    Together they are one stream of deflate without an end.
    """
    pieces = []
    is_kept = len(content) <= _RECENT_BYTES_MAX // 4
    for index, digest in enumerate(digests):
        piece = recent.get("packed", owner + digest) if is_kept else None
        if piece is None:
            start = index * SMALL_PIECE_BYTES
            before = content[max(0, start - _HISTORY_BYTES) : start]
            packer = zlib.compressobj(1, zlib.DEFLATED, -15, 8, zlib.Z_DEFAULT_STRATEGY, before)
            piece = packer.compress(content[start : start + SMALL_PIECE_BYTES]) + packer.flush(zlib.Z_SYNC_FLUSH)
            if is_kept:
                recent.put("packed", owner + digest, piece)
        pieces.append(piece)
    return pieces


def unpacked(stream: bytes, size: int) -> bytes | None:
    """What `packed` was given; None: these are no such pieces, or of a value of another size."""
    try:
        content = zlib.decompressobj(-15).decompress(stream, size + 1)
    except zlib.error:
        return None
    return content if len(content) == size else None
