"""Lists in a store that are only ever appended to: histories, logs, registers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from .blocks import DIGEST_BYTES, Blocks, Entry, NotStoredError
from .claims import Claims

# Each so many records begin a path of their own, so that no call has to name more than these.
_PAGE = 256
_PLAIN_BYTES_MAX = 1_024


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
        # Where to look first, and the digests of that page.
        self._last = (0, self._digests(0))

    def _digests(self, page: int) -> bytes:
        digests = []
        chained = hashlib.sha256(b"list" + self._key + page.to_bytes(8, "big")).digest()
        for _ in range(_PAGE):
            digests.append(chained)
            chained = hashlib.sha256(chained).digest()
        return b"".join(digests)

    def _page(self, page: int) -> bytes:
        last, path = self._last
        return path if page == last else self._digests(page)

    def path(self, index: int) -> bytes:
        """The digests down to a record."""
        page, place = divmod(index, _PAGE)
        return self._page(page)[: (place + 1) * DIGEST_BYTES]

    def count(self) -> int:
        """How many records there are, as far as all processes have stored them by now."""
        page, path = self._last
        if page and self._blocks.peek(path[:DIGEST_BYTES]) == 0 and self._blocks.peek(self._digests(page - 1)) < _PAGE:
            # It was purged meanwhile.
            page, path = 0, self._digests(0)
        while True:
            found = self._blocks.count(path)
            if found < _PAGE:
                break
            page += 1
            path = self._digests(page)
        self._last = (page, path)
        return page * _PAGE + found

    def get(self, index: int, *, content: bool = True) -> Entry | None:
        """A record by its number."""
        return self._blocks.get(self.path(index), content=content)

    def entries(self, first: int = 0) -> Iterator[Entry]:
        """The records from one on, in order."""
        for index in range(first, self.count()):
            entry = self.get(index)
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
        index = self._append(entry, None)
        assert index is not None
        return index

    def append_at(self, index: int, entry: Entry) -> bool:
        """`append`, unless the list has another length by then."""
        return self._append(entry, index) is not None

    def _append(self, entry: Entry, expected: int | None) -> int | None:
        with self._claims.hold(hashlib.sha256(b"append" + self._key).digest(), self._claim_seconds) as mine:
            if not mine:
                raise NotStoredError("another process has been writing the same list for too long")
            index = self.count()
            if expected is not None and index != expected:
                return None
            if not self.put(index, entry):
                raise NotStoredError("the store has no place for a record")
            self._blocks.flush(self.path(index))
            return index
