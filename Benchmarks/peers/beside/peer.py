"""What the measures ask of a store."""

from __future__ import annotations

import hashlib
import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from . import machine
from .workload import Blocks, Tokens

THREADS = 4
"""Of stores that leave threads to their caller; the others have their own."""

Hits = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class Place:
    """Where a store is, and how much it will hold."""

    folder: Path
    block_bytes: int
    block_count: int

    @property
    def byte_count(self) -> int:
        return self.block_bytes * self.block_count


class Peer(ABC):
    """One store in one configuration, driven by its published interface.

    Each measure makes an object of its own in a process of its own. `prepare` and `missing` are called without one.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    environment: ClassVar[str] = "stores"
    """Which Python it needs: see environments.py."""
    durability: ClassVar[str]
    """What is promised when `finish` returns: the words that the report prints."""
    persistent: ClassVar[bool] = True
    """False: it keeps blocks in memory only, and is asked for them in the process that put them there."""
    on_disk: ClassVar[bool] = False
    """Of one that is not persistent: it has files nevertheless, and is asked with the page cache dropped, in the same process."""
    holds_data: ClassVar[bool] = True
    """False: an index, which is only asked for look-ups."""
    tokens_per_block: ClassVar[int] = 16
    scale: ClassVar[bool] = True
    """False: it is left out where many small blocks are stored, since another row has the same layout."""
    note: ClassVar[str] = ""

    def __init__(self, place: Place) -> None:
        self.place = place

    @classmethod
    def missing(cls) -> str | None:
        """Why it cannot run here, or None."""
        return None

    @classmethod
    def prepare(cls) -> None:
        """Imports what `open` needs, so that no measure contains it. Starts no thread: measures run in forks of the process."""

    @abstractmethod
    def open(self, memory: Blocks) -> None:
        """memory: the engine's; blocks to put lie in it, and those to get go there."""

    def close(self) -> None:
        """Leaves everything as a clean end of the engine would."""

    def servers(self) -> list[int]:
        """Processes that work for this store beside the caller's."""
        return []

    def prompt(self, tokens: Tokens) -> Any:
        """Tokens in the form in which the engine has them already."""
        return tokens

    def keys(self, prompt: Any) -> Any:
        """What names the prompt's whole blocks, by the store's own hashing; for stores without one, a SHA-256 chain."""
        width = self.tokens_per_block
        data = np.ascontiguousarray(prompt[: len(prompt) // width * width], dtype=np.uint32).tobytes()
        found, parent = [], b""
        for start in range(0, len(data), 4 * width):
            parent = hashlib.sha256(parent + data[start : start + 4 * width]).digest()
            found.append(parent[:16])
        return found

    def put(self, keys: Any, first: int, blocks: Blocks) -> None:
        """Blocks first, first + 1 ... of a chain; done when `finish` has returned."""
        raise NotImplementedError

    def finish(self) -> None:
        """Waits until everything that was put is as safe as this store makes it."""

    def get(self, keys: Any, first: int, target: Blocks) -> Hits:
        """Copies blocks first, first + 1 ... of a chain into the engine's memory; which of them it had."""
        raise NotImplementedError

    def lookup(self, prompt: Any) -> int:
        """How many leading tokens are stored, from tokens: hashing is part of it."""
        raise NotImplementedError


class ServerPeer(Peer):
    """A store that is a process of its own."""

    process: subprocess.Popen[bytes] | None = None

    def start(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        self.process = subprocess.Popen(arguments, preexec_fn=machine.die_with_parent)
        return self.process

    def servers(self) -> list[int]:
        return [self.process.pid] if self.process is not None else []

    def stop(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def written(target: Blocks, poison: int) -> Hits:
    """Which blocks are no longer what memory held before, where a store does not say which it had."""
    return np.asarray((target[:, :16] != poison).any(axis=1) | (target[:, -16:] != poison).any(axis=1))
