"""Moves that do not wait, and moves without a copy."""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Generator
from typing import Any

from . import _abi
from .closing import Closing
from .errors import Status
from .library import check, library
from .matching import transfer_of
from .results import Transfer
from .sizes import nanoseconds

_RUNNING = 6
# How long one look of a waiting thread takes: so long a loop that is closed meanwhile waits for it.
_LOOK_SECONDS = 0.1


class Operation:
    """A restore or an offload that runs in the library: `await` it, `wait` for it, or `poll` it.

    Its memory belongs to the library until it has ended. Awaiting blocks no event loop. Where the awaiting task is cancelled
    the operation goes on; `cancel` asks it to end early, and so does forgetting it.
    """

    def __init__(self, start: Any, namespace: int, prompt: Any, moved: tuple[_abi.Transfer, Any], kept: Any) -> None:
        self._handle: int | None = None
        self._result: Transfer | None = None
        self._transfer, self._per_block = moved
        self._kept = kept
        handle = _abi.OPERATION()
        status = check(start(namespace, prompt, ctypes.byref(self._transfer), ctypes.byref(handle)))
        self._handle = handle.value
        if self._handle is None:
            # Too many are queued: an outcome.
            self._result = Transfer(Status(status), 0, 0, 0, 0)

    def _look(self, function: Any, *arguments: int) -> Transfer | None:
        if self._result is None and self._handle is not None:
            result = _abi.TransferResult(struct_size=ctypes.sizeof(_abi.TransferResult))
            status = function(self._handle, *arguments, ctypes.byref(result))
            if status == _RUNNING:
                return None
            self._handle, self._kept = None, None
            self._result = transfer_of(check(status), result, self._per_block)
        return self._result

    def poll(self) -> Transfer | None:
        """How far it came, once it has ended; None while it runs. Never blocks."""
        return self._look(library().kvstore_poll)

    def wait(self, timeout_seconds: float = 0) -> Transfer | None:
        """As `poll`, but waits; 0: as long as it takes. Other threads run meanwhile."""
        return self._look(library().kvstore_wait, nanoseconds(timeout_seconds))

    def cancel(self) -> None:
        """Asks it to end early; blocks that are not done by then get BUSY. Its memory stays lent until it has ended."""
        if self._handle is not None:
            library().kvstore_cancel(self._handle)

    def __await__(self) -> Generator[Any, None, Transfer]:
        loop = asyncio.get_running_loop()
        while True:
            done = self.poll()
            if done is None:
                done = yield from loop.run_in_executor(None, self.wait, _LOOK_SECONDS).__await__()
            if done is not None:
                return done

    def __del__(self) -> None:
        # The memory may go with this object, and so not before the library is done with it.
        if getattr(self, "_handle", None) is not None:
            self.cancel()
            library().kvstore_wait(self._handle, 0, None)


class View(Closing):
    """Blocks in the store's own memory, to be read until `close` or the end of a `with` block."""

    def __init__(self, handle: int | None, lent: list[tuple[int, int]], regions: int, status: Status) -> None:
        self._handle = handle
        self._lent = lent
        self._regions = regions
        self.status = status
        """OK, or why there are fewer blocks than asked for: MISS, FULL, BUSY."""

    def __len__(self) -> int:
        return len(self._lent) // self._regions if self._regions else 0

    def region(self, block: int, region: int = 0) -> memoryview:
        """The bytes of a region, read-only, without a copy. They must not be used after the view is closed."""
        if self._handle is None:
            raise ValueError("the view is closed, or empty")
        if not (0 <= block < len(self) and 0 <= region < self._regions):
            raise IndexError(f"block {block}, region {region} of {len(self)} blocks with {self._regions} regions")
        address, size = self._lent[block * self._regions + region]
        return memoryview((ctypes.c_char * size).from_address(address)).cast("B").toreadonly()

    def close(self) -> None:
        """Gives the memory back; a second close does nothing."""
        handle, self._handle = self._handle, None
        if handle is not None:
            check(library().kvstore_view_release(handle))

    def __del__(self) -> None:
        handle, self._handle = getattr(self, "_handle", None), None
        if handle is not None:
            library().kvstore_view_release(handle)
