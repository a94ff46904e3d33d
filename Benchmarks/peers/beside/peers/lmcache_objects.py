"""What LMCache's peers share: its memory objects over the engine's memory, and its waiting for events."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

from ..workload import Blocks

WAIT_SECONDS = 120.0


def memory_object(block: Blocks) -> Any:
    """A memory object of LMCache that is the block, without a copy: as LMCache's own benchmark of its adapters makes them."""
    import torch
    from lmcache.v1.memory_management import MemoryFormat, MemoryObjMetadata, TensorMemoryObj

    metadata = MemoryObjMetadata(
        shape=torch.Size([block.size]),
        dtype=torch.uint8,
        address=block.ctypes.data,
        phy_size=block.size,
        fmt=MemoryFormat.KV_2LTD,
        ref_count=1,
    )
    return TensorMemoryObj(raw_data=torch.from_numpy(block), metadata=metadata, parent_allocator=None)


class Loop:
    """An asyncio loop on a thread of its own, as LMCache's storage manager has one."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()


class Countdown:
    """Waits until as many callbacks came as things were submitted."""

    def __init__(self) -> None:
        self.left = 0
        self.changed = threading.Condition()

    def submitted(self, count: int) -> None:
        with self.changed:
            self.left += count

    def done(self, _: object) -> None:
        with self.changed:
            self.left -= 1
            self.changed.notify_all()

    def wait(self) -> None:
        end = time.monotonic() + WAIT_SECONDS
        with self.changed:
            if not self.changed.wait_for(lambda: self.left <= 0, end - time.monotonic()):
                raise TimeoutError(f"{self.left} blocks were not written")
