"""One at a time, among threads and processes: who does the work that others would do as well.

A claim is a bound name in the kernel (an abstract Unix socket): no file, nothing to clean up, and it ends with its process however
that ends. Who finds it taken connects to it, and is woken by its end. Processes see each other's claims if they share a network
namespace; where they do not, work may be done twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import time
import weakref
from collections.abc import AsyncIterator, Iterator

_held: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def _forget_in_child() -> None:
    """A child that was forked would hold what its parent has claimed for as long as it lives."""
    for held in list(_held):
        with contextlib.suppress(OSError):
            held.close()


os.register_at_fork(after_in_child=_forget_in_child)


class Claims:
    """The claims on the records of one store."""

    def __init__(self, path: os.PathLike[str]) -> None:
        found = os.stat(path)
        self._store = f"{found.st_dev}:{found.st_ino}".encode()

    def _name(self, digest: bytes) -> str:
        return "\0kvstore.agent." + hashlib.sha256(self._store + digest).hexdigest()

    def _take(self, name: str) -> socket.socket | None:
        holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            holder.bind(name)
            holder.listen(1024)
        except OSError:
            holder.close()
            return None
        _held.add(holder)
        return holder

    @contextlib.contextmanager
    def hold(self, digest: bytes, timeout_seconds: float) -> Iterator[bool]:
        """Waits until nobody else has the claim; False: someone still has it at the end of the time."""
        name = self._name(digest)
        end = time.monotonic() + timeout_seconds
        holder = self._take(name)
        while holder is None:
            rest = end - time.monotonic()
            if rest <= 0:
                break
            _wait_for_end(name, rest)
            holder = self._take(name)
        try:
            yield holder is not None
        finally:
            if holder is not None:
                holder.close()

    @contextlib.asynccontextmanager
    async def hold_async(self, digest: bytes, timeout_seconds: float) -> AsyncIterator[bool]:
        """`hold` that lets the event loop run."""
        name = self._name(digest)
        end = time.monotonic() + timeout_seconds
        holder = self._take(name)
        while holder is None:
            rest = end - time.monotonic()
            if rest <= 0:
                break
            await _wait_for_end_async(name, rest)
            holder = self._take(name)
        try:
            yield holder is not None
        finally:
            if holder is not None:
                holder.close()


def _wait_for_end(name: str, seconds: float) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as waiting:
        waiting.settimeout(min(seconds, 3600))
        try:
            waiting.connect(name)
            # Nobody accepts: this returns when the holder's socket is closed.
            waiting.recv(1)
        except ConnectionResetError:
            pass
        except OSError:
            # It has ended already, is not listening yet, or too many wait; or the time is over.
            time.sleep(0.0005)


async def _wait_for_end_async(name: str, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as waiting:
        waiting.setblocking(False)
        try:
            waiting.connect(name)
            await asyncio.wait_for(loop.sock_recv(waiting, 1), seconds)
        except (ConnectionResetError, asyncio.TimeoutError):
            pass
        except OSError:
            await asyncio.sleep(0.001)
