"""LMDB values and RocksDB with blob files: the C programs beside this folder, as shared libraries."""

from __future__ import annotations

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

from ..peer import THREADS, Hits, Peer, Place, written
from ..workload import POISON, Blocks, Tokens

KEY_BYTES = 16
BATCH = 16


class _Blocks(ctypes.Structure):
    """blocks_t of peer.h."""

    _fields_ = (
        ("folder", ctypes.c_char_p),
        ("block_bytes", ctypes.c_size_t),
        ("block_count", ctypes.c_size_t),
        ("batch_count", ctypes.c_size_t),
        ("keys", ctypes.c_void_p),
        ("payload", ctypes.c_void_p),
        ("target", ctypes.c_void_p),
    )


_BLOCKS = ctypes.POINTER(_Blocks)


class _Calls(ctypes.Structure):
    """peer_t of peer.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("open", ctypes.CFUNCTYPE(None, _BLOCKS)),
        ("write", ctypes.CFUNCTYPE(None, _BLOCKS)),
        ("settle", ctypes.CFUNCTYPE(None)),
        ("read", ctypes.CFUNCTYPE(None, _BLOCKS, ctypes.c_size_t, ctypes.c_size_t)),
        ("count", ctypes.CFUNCTYPE(ctypes.c_size_t, _BLOCKS)),
        ("close", ctypes.CFUNCTYPE(None)),
    )


class NativePeer(Peer):
    """Its library is $KVSTORE_PEERS_NATIVE/NAME_peer.so, which the set-up compiles."""

    symbol: ClassVar[str]
    durability = "synced, survives power loss"

    @classmethod
    def library(cls) -> Path:
        return Path(os.environ.get("KVSTORE_PEERS_NATIVE", "")) / f"{cls.symbol}.so"

    @classmethod
    def missing(cls) -> str | None:
        return None if cls.library().is_file() else f"{cls.library().name} could not be compiled: is the -dev package there?"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.calls = _Calls.in_dll(ctypes.CDLL(str(self.library())), self.symbol)
        self.path = os.fsencode(place.folder)

    def _blocks(self, keys: bytes, blocks: Blocks | None, target: Blocks | None, count: int) -> Any:
        return ctypes.byref(
            _Blocks(
                self.path,
                self.place.block_bytes,
                count,
                BATCH,
                ctypes.cast(ctypes.c_char_p(keys), ctypes.c_void_p),
                None if blocks is None else blocks.ctypes.data,
                None if target is None else target.ctypes.data,
            )
        )

    def open(self, memory: Blocks) -> None:
        self.calls.open(self._blocks(b"", None, None, self.place.block_count))
        self.pool = ThreadPoolExecutor(THREADS)

    def close(self) -> None:
        self.pool.shutdown()
        self.calls.settle()
        self.calls.close()

    def put(self, keys: list[bytes], first: int, blocks: Blocks) -> None:
        self.calls.write(self._blocks(b"".join(keys[first : first + len(blocks)]), blocks, None, len(blocks)))

    def get(self, keys: list[bytes], first: int, target: Blocks) -> Hits:
        chosen = self._blocks(b"".join(keys[first : first + len(target)]), None, target, len(target))
        threads = min(THREADS, len(target))
        list(self.pool.map(lambda start: self.calls.read(chosen, start, threads), range(threads)))
        return written(target, POISON)

    def lookup(self, prompt: Tokens) -> int:
        keys = self.keys(prompt)
        return int(self.calls.count(self._blocks(b"".join(keys), None, None, len(keys)))) * self.tokens_per_block


class LMDB(NativePeer):
    name = "lmdb"
    title = "LMDB values"
    symbol = "lmdb_peer"


class BlobDB(NativePeer):
    name = "blobdb"
    title = "RocksDB BlobDB"
    symbol = "blobdb_peer"
    note = "a look-up may answer yes falsely"
