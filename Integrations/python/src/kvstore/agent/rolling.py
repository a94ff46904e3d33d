"""Lists that do not grow without end: what is over is left behind, a generation at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .. import KVStoreError, Prompt
from .blocks import KIND_BYTES, Blocks, Entry, NotStoredError
from .calls import DIGEST_BYTES
from .claims import Claims
from .lists import _PAGE, AppendList

GENERATION_ENTRIES = 256
"""So many records end a generation, or where most of them are kept the next power of two."""
_PIN_SECONDS = 90 * 86_400.0


class Generations:
    """Which generation is the current one: all processes agree on it, whatever was cached and whoever died.

    Generation n begins with a mark of its own, which others find as soon as it is stored. Mark 0 says for ever that there are others than
    the first; those of generations that are over leave. Where to look is noted in two places by turns, so that one is always there.
    """

    def __init__(self, blocks: Blocks, claims: Claims, key: bytes, *, claim_seconds: float, pinned: bool = False) -> None:
        self._blocks, self._claims, self._key = blocks, claims, key
        self._claim_seconds, self._pinned = claim_seconds, pinned
        self._number = 0

    def key(self, number: int) -> bytes:
        """What the lists of a generation are found by; of the first one, that of a list without generations."""
        return self._key if number == 0 else hashlib.sha256(b"generation" + self._key + number.to_bytes(8, "big")).digest()

    def _mark(self, number: int) -> bytes:
        return hashlib.sha256(b"begins" + self._key + number.to_bytes(8, "big")).digest()

    def _place(self, number: int) -> bytes:
        return hashlib.sha256(b"place" + self._key + bytes([number % 2])).digest()

    def number(self) -> int:
        """The current one, as of the beginning of this call or later."""
        number = self._number
        if number and not self._blocks.peek(self._mark(number)):
            # Others have come since, or all of it was purged.
            number = 0
        if number == 0:
            if not self._blocks.peek(self._mark(0)):
                self._number = 0
                return 0
            entries = [self._blocks.get(self._place(place)) for place in (0, 1)]
            number = max([0, *(int.from_bytes(entry.content, "big") for entry in entries if entry is not None)])
        while self._blocks.peek(self._mark(number + 1)):
            number += 1
        self._number = number
        return number

    @staticmethod
    def is_long(count: int) -> bool:
        """Whether a list of so many records may begin anew."""
        return count >= GENERATION_ENTRIES

    @contextmanager
    def alone(self) -> Iterator[int]:
        """Nobody else begins a generation, or appends to the current one by `alone`; gives its number."""
        with self._claims.hold(hashlib.sha256(b"generations" + self._key).digest(), self._claim_seconds) as mine:
            if not mine:
                raise NotStoredError("another process has been writing the same list for too long")
            yield self.number()

    def begin(self, number: int) -> None:
        """Generation `number` is the current one from now on, durably; within `alone`, its predecessor's lists not removed yet."""
        if number == 1:
            self._store(self._mark(0), b"")
        self._store(self._mark(number), b"")
        place = self._place(number)
        self._blocks.forget(place)
        self._store(place, number.to_bytes(8, "big"))
        for old in range(max(1, number - 2), number):
            self._blocks.forget(self._mark(old))
        self._number = number

    def _store(self, path: bytes, content: bytes) -> None:
        if not self._blocks.put(path, Entry(content, KIND_BYTES), priority=100):
            raise NotStoredError("the store has no place for a record")
        self._blocks.flush(path)
        if self._pinned:
            try:
                self._blocks.small.pin(Prompt.of_digests(path, DIGEST_BYTES), _PIN_SECONDS)
            except KVStoreError:
                # Too many pins: what is left is the priority, above all else.
                pass


def forget_list(blocks: Blocks, found: AppendList) -> None:
    """Removes a list."""
    # Each page is a path of its own.
    for first in range(0, found.count() + 1, _PAGE):
        path = found.path(first)
        if blocks.peek(path):
            blocks.forget(path)


class RollingList:
    """Records that are appended, and leave once they are over.

    is_kept: whether a record still says something; asked when a generation ends. entries_max: of those that do, the newest so many.
    """

    def __init__(
        self,
        blocks: Blocks,
        claims: Claims,
        key: bytes,
        *,
        is_kept: Callable[[Entry], bool],
        entries_max: int | None = None,
        claim_seconds: float = 60,
    ) -> None:
        self._blocks, self._claims, self._claim_seconds = blocks, claims, claim_seconds
        self._is_kept, self._entries_max = is_kept, entries_max
        self._generations = Generations(blocks, claims, key, claim_seconds=claim_seconds)

    def _list(self, number: int) -> AppendList:
        return AppendList(self._blocks, self._claims, self._generations.key(number), claim_seconds=self._claim_seconds)

    def append(self, entry: Entry) -> None:
        """Stores one more record, durably, whoever else does so at the same time."""
        with self._generations.alone() as number:
            found = self._list(number)
            index = found.append(entry)
            # Where few are over it is asked again when there are twice as many.
            if Generations.is_long(index + 1) and (index + 1) & index == 0:
                self._renew(number, found)

    def _renew(self, number: int, found: AppendList) -> None:
        every = list(found.entries())
        kept = [entry for entry in every if self._is_kept(entry)][-(self._entries_max or len(every)) :]
        if len(kept) * 2 > len(every):
            return
        # A process that died here has left some of them: they are there already, in the same order.
        renewed = self._list(number + 1)
        forget_list(self._blocks, renewed)
        for index, entry in enumerate(kept):
            if not renewed.put(index, entry):
                # It goes on as it is.
                return
        if kept:
            self._blocks.flush(renewed.path(len(kept) - 1))
        self._generations.begin(number + 1)
        forget_list(self._blocks, found)

    def entries(self) -> list[Entry]:
        """All that are there, in order."""
        while True:
            number = self._generations.number()
            found = list(self._list(number).entries())
            if self._generations.number() == number:
                return found


__all__ = ["GENERATION_ENTRIES", "Generations", "RollingList", "forget_list"]
