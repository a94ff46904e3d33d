"""A file per block: written under a temporary name and renamed, as the file tiers of engines do."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ..peer import THREADS, Hits, Peer
from ..workload import Blocks, Tokens


class Files(Peer):
    name = "files"
    title = "a file per block"
    durability = "page cache: no sync"
    syncs = False

    def open(self, memory: Blocks) -> None:
        self.directory = os.open(self.place.folder, os.O_RDONLY | os.O_DIRECTORY)
        self.pool = ThreadPoolExecutor(THREADS)

    def close(self) -> None:
        self.pool.shutdown()
        os.close(self.directory)

    def _write(self, key: bytes, block: Blocks) -> None:
        name = key.hex()
        temporary = f"{name}.tmp"
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600, dir_fd=self.directory)
        try:
            if os.write(file, block.data) != len(block):
                raise OSError(f"a short write of {name}")
            if self.syncs:
                os.fsync(file)
        finally:
            os.close(file)
        os.rename(temporary, name, src_dir_fd=self.directory, dst_dir_fd=self.directory)

    def put(self, keys: list[bytes], first: int, blocks: Blocks) -> None:
        list(self.pool.map(self._write, keys[first : first + len(blocks)], blocks))
        if self.syncs:
            os.fsync(self.directory)

    def _read(self, key: bytes, target: Blocks) -> bool:
        try:
            file = os.open(key.hex(), os.O_RDONLY, dir_fd=self.directory)
        except FileNotFoundError:
            return False
        try:
            return os.readv(file, [target.data]) == len(target)
        finally:
            os.close(file)

    def get(self, keys: list[bytes], first: int, target: Blocks) -> Hits:
        return np.fromiter(self.pool.map(self._read, keys[first : first + len(target)], target), bool, len(target))

    def lookup(self, prompt: Tokens) -> int:
        found = 0
        for key in self.keys(prompt):
            if not os.access(key.hex(), os.F_OK, dir_fd=self.directory):
                break
            found += self.tokens_per_block
        return found


class SyncedFiles(Files):
    name = "files-fsync"
    title = "a file per block, with fsync"
    durability = "synced, survives power loss"
    syncs = True
    scale = False
