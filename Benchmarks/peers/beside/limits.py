"""What the machine itself does with the same bytes: memory copies, raw writes and reads past the page cache."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from . import machine, workload


def _parallel(count: int, threads: int, work: Any) -> None:
    """work(index) for each index; thread t takes t, t + threads ..."""

    def some(first: int) -> None:
        for index in range(first, count, threads):
            work(index)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(some, range(threads)))


def _best(work: Any) -> tuple[float, float]:
    """The shortest of 1, 2 and 4 threads, with its processor time."""
    found = []
    for threads in (1, 2, 4):
        before, start = machine.usage(), time.perf_counter()
        work(threads)
        seconds = time.perf_counter() - start
        found.append((seconds, machine.usage().since(before)["cpu_seconds"]))
    return min(found)


def measure(request: dict[str, Any]) -> dict[str, Any]:
    folder, size, count = Path(request["folder"]), request["block_bytes"], request["blocks"]
    blocks = workload.payload(count, size, request["seed"])
    target = workload.memory(count, size)
    copied = _best(lambda threads: _parallel(count, threads, lambda index: np.copyto(target[index], blocks[index])))
    path = folder / "limits"

    def write(threads: int) -> None:
        path.unlink(missing_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o600)
        try:
            os.posix_fallocate(file, 0, size * count)
            _parallel(count, threads, lambda index: os.pwrite(file, blocks[index].data, index * size))
            os.fdatasync(file)
        finally:
            os.close(file)

    machine.sync_file_system(folder)
    wrote = _best(write)
    target.fill(workload.POISON)
    file = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        read = _best(
            lambda threads: _parallel(count, threads, lambda index: os.preadv(file, [target[index].data], index * size))
        )
    finally:
        os.close(file)
    path.unlink()
    if not np.array_equal(blocks, target):
        raise AssertionError("the file system returned other bytes than were written")
    return {
        name: {"seconds": seconds, "cpu_seconds": cpu}
        for name, (seconds, cpu) in (("memcpy", copied), ("raw_write", wrote), ("raw_read", read))
    }
