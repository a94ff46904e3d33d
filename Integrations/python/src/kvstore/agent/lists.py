"""Lists in a store that are only ever appended to: histories, logs, registers."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator

from .blocks import Blocks, Entry, NotStoredError
from .calls import DIGEST_BYTES
from .claims import Claims

# Each so many records begin a path of their own, so that no call has to name more than these.
_PAGE = 256
_PLAIN_BYTES_MAX = 1_024
# How often reading a list counts as a use of it, which wakes a thread: recency is for evictions alone.
_USE_SECONDS = 10


class AppendList:
    """Records 0, 1, 2 … under one key. Their digests follow from the key and the number, so that the end is found by a match."""

    def __init__(
        self,
        blocks: Blocks,
        claims: Claims,
        key: bytes,
        *,
        ttl_seconds: float | None = None,
        priority: int = 100,
        claim_seconds: float = 60,
    ) -> None:
        self._blocks, self._claims, self._key = blocks, claims, key
        self._ttl_seconds, self._priority, self._claim_seconds = ttl_seconds, priority, claim_seconds
        # Where to look first: a page, how many records it had, and its first digests, as far as somebody asked for them.
        self._last = (0, 0, b"")
        self._used = -math.inf

    def _digests(self, page: int, count: int) -> bytes:
        """The first digests of a page."""
        last, known, path = self._last
        if page != last:
            known, path = 0, b""
        have = len(path) // DIGEST_BYTES
        if have < count:
            chained = path[-DIGEST_BYTES:]
            digests = [path]
            for index in range(have, count):
                seed = chained if index else b"list" + self._key + page.to_bytes(8, "big")
                chained = hashlib.sha256(seed).digest()
                digests.append(chained)
            path = b"".join(digests)
            if page == last:
                self._last = (page, known, path)
        return path[: count * DIGEST_BYTES]

    def path(self, index: int) -> bytes:
        """The digests down to a record."""
        page, place = divmod(index, _PAGE)
        return self._digests(page, place + 1)

    def count(self) -> int:
        """How many records there are, as far as all processes have stored them by now."""
        page, known, _ = self._last
        if page and self._blocks.peek(self._digests(page, 1)) == 0 and self._blocks.peek(self._digests(page - 1, _PAGE)) < _PAGE:
            # It was purged meanwhile.
            page = known = 0
        now = time.monotonic()
        look = self._blocks.peek
        if now - self._used > _USE_SECONDS:
            self._used, look = now, self._blocks.count
        while True:
            # As a rule it is as long as it was, or longer by one.
            asked = min(known + 2, _PAGE)
            path = self._digests(page, asked)
            found = look(path)
            while found == asked < _PAGE:
                asked = min(2 * asked, _PAGE)
                path = self._digests(page, asked)
                found = look(path)
            if found < _PAGE:
                break
            page, known = page + 1, 0
        self._last = (page, found, path)
        return page * _PAGE + found

    def get(self, index: int, *, content: bool = True) -> Entry | None:
        """A record by its number."""
        return self._blocks.get(self.path(index), content=content)

    def entries(self, first: int = 0) -> Iterator[Entry]:
        """The records from one on, in order."""
        count = self.count()
        page, path = -1, b""
        for index in range(first, count):
            if index // _PAGE != page:
                page = index // _PAGE
                path = self._digests(page, min(_PAGE, count - page * _PAGE))
            entry = self._blocks.get(path[: (index % _PAGE + 1) * DIGEST_BYTES])
            if entry is not None:
                yield entry

    def put(self, index: int, entry: Entry) -> bool:
        """Stores the record behind the last one: for lists that one thread at a time writes to. Not durable yet."""
        # What is small is not compressed, so that `kvstore inspect` can read it.
        compress = len(entry.content) > _PLAIN_BYTES_MAX
        return self._blocks.put(
            self.path(index), entry, ttl_seconds=self._ttl_seconds, priority=self._priority, compress=compress
        )

    def append(self, entry: Entry) -> int:
        """Stores one more record, durably, whoever else does so at the same time; returns its number."""
        index = self.append_made(lambda _: entry)
        assert index is not None
        return index

    def append_at(self, index: int, entry: Entry) -> bool:
        """`append`, unless the list has another length by then."""
        return self.append_made(lambda count: entry if count == index else None) is not None

    def append_made(self, make: Callable[[int], Entry | None]) -> int | None:
        """`append` of what is made once the record's number is known, while nobody else appends; None: nothing was."""
        with self._claims.hold(hashlib.sha256(b"append" + self._key).digest(), self._claim_seconds) as mine:
            if not mine:
                raise NotStoredError("another process has been writing the same list for too long")
            index = self.count()
            entry = make(index)
            if entry is None:
                return None
            if not self.put(index, entry):
                raise NotStoredError("the store has no place for a record")
            self._blocks.flush(self.path(index))
            return index
