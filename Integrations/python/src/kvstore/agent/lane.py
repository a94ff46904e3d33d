"""Steps that come one after the other, as a path in the store's prefix tree."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from typing import TYPE_CHECKING

from .blocks import Blocks, Entry
from .calls import DIGEST_BYTES
from .canonical import digest
from .log import Place

if TYPE_CHECKING:
    from .run import Run

_ROOT = digest({"kvstore.agent": "steps"})
# How many steps behind those that are known are looked for in one match.
_LOOK = 64


class Lane:
    """Steps that come one after the other: those of the run, those within one step, those of a named lane."""

    def __init__(self, run: Run, blocks: Blocks, segments: list[tuple[str, int | None]], name: str) -> None:
        self.run = run
        self._blocks = blocks
        self.name = name
        # Labels of the branches that the path follows, and the step at which each is left.
        self.segments = segments
        self.path = b""
        self.parents: list[str] = []
        self.cursor = 0
        self.place = Place(name)
        self.lock = threading.RLock()
        # A lock is of one event loop.
        self.async_lock: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None

    def label(self, number: int) -> str:
        """Of the branch that a step belongs to."""
        return next(label for label, end in self.segments if end is None or number <= end)

    def path_to(self, count: int) -> bytes:
        """The digests of the first `count` steps."""
        have = len(self.path) // DIGEST_BYTES
        if have < count:
            parts = [self.path]
            last = self.path[-DIGEST_BYTES:] or _ROOT
            for number in range(have + 1, count + 1):
                last = hashlib.sha256(bytes.fromhex(self.label(number)) + last + number.to_bytes(8, "big")).digest()
                parts.append(last)
            self.path = b"".join(parts)
        return self.path[: count * DIGEST_BYTES]

    def count(self) -> int:
        """How many steps are stored."""
        reach = _LOOK
        while True:
            found = self._blocks.count(self.path_to(reach))
            if found < reach:
                return found
            reach *= 2

    def entry(self, number: int, *, content: bool = True) -> Entry | None:
        """What is stored of a step."""
        return self._blocks.get(self.path_to(number), content=content)

    def below(self, name: str) -> list[tuple[str, int | None]]:
        """The segments of a lane that begins where this one stands."""
        here = self.path_to(self.cursor)[-DIGEST_BYTES:] or _ROOT
        # By the branch of the step that comes next: a fork shares the lanes of its front, and not those that begin where it begins.
        label = digest({"kvstore.agent": "lane", "branch": self.label(self.cursor + 1), "at": here.hex(), "lane": name})
        return [(label.hex(), None)]
