"""What requests wait for from the remote tier, on the scheduler's side.

Blocks come in through the scheduler's own process, and the workers see them once they are committed. So a request waits until what
was fetched is durable, and never longer than it may: then it goes on with what the workers can load.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from ..errors import Status
from ..results import Match
from ..store import Store

# Requests are asked for in every step, all that wait; a look at a fetch costs a walk of the prompt for each rank. So one of them is
# looked at in this time.
_LOOK_SECONDS = 0.002


@dataclass
class _Fetch:
    """What is known of a request's prompt."""

    deadline: float
    visible: int
    """Leading tokens that the workers can load."""
    looked: float = 0.0
    flush: Future[bool] | None = None
    """Under way, for `flushed` tokens."""
    flushed: int = 0
    over: bool = False
    in_time: bool = True
    """False: what came after the deadline may not be visible yet."""


class Fetches:
    """The fetches of requests that wait. One thread calls it."""

    def __init__(self, store: Store, wait_seconds: float) -> None:
        self._store = store
        self._wait_seconds = wait_seconds
        self._requests: dict[str, _Fetch] = {}
        self._flushes = ThreadPoolExecutor(1, thread_name_prefix="kvstore-fetch")
        self._all_visible = True
        """False: some blocks that a look-up here finds may not be committed."""

    def is_early(self, request_id: str) -> bool:
        """Whether the request waits and was looked at just now: there is nothing new to say of it."""
        fetch = self._requests.get(request_id)
        if fetch is None or fetch.over:
            return False
        now = time.monotonic()
        waiting = sum(not other.over for other in self._requests.values())
        return now < min(fetch.deadline, fetch.looked + waiting * _LOOK_SECONDS)

    def tokens(self, request_id: str, look: Callable[[], Sequence[Match]], stored: int) -> int | None:
        """How many of the prompt's `stored` tokens can be loaded now; None: ask again, more is on its way. Raises KVStoreError.

        `look` matches with `peek` and `remote` in the namespaces of all ranks.
        """
        now = time.monotonic()
        fetch = self._requests.get(request_id)
        if fetch is None:
            visible = stored if self._all_visible else 0
            fetch = self._requests[request_id] = _Fetch(now + self._wait_seconds, visible)
        if fetch.over:
            return stored if fetch.in_time else min(stored, fetch.visible)
        fetch.looked = now
        if fetch.flush is not None and fetch.flush.done():
            if not fetch.flush.result():
                fetch.deadline = now
            else:
                fetch.visible = fetch.flushed
            fetch.flush = None
        if now >= fetch.deadline:
            fetch.over, fetch.in_time = True, False
            return min(stored, fetch.visible)
        found = look()
        tokens, is_coming = min(match.tokens for match in found), any(match.being_fetched for match in found)
        if is_coming:
            self._all_visible = False
        if fetch.flush is None and tokens > fetch.visible:
            fetch.flushed = tokens
            fetch.flush = self._flushes.submit(self._flush, fetch.deadline)
        if is_coming or fetch.flush is not None:
            return None
        fetch.over = True
        if all(other.over and other.in_time for other in self._requests.values()):
            self._all_visible = True
        return min(stored, tokens)

    def forget(self, request_id: str) -> None:
        """The request is over."""
        self._requests.pop(request_id, None)

    def close(self) -> None:
        """Ends; before the store is closed."""
        self._flushes.shutdown(wait=True, cancel_futures=True)

    def _flush(self, deadline: float) -> bool:
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        try:
            return self._store.flush(left).status is Status.OK
        except Exception:
            # A disk that fails: the request goes on with what there is.
            return False
