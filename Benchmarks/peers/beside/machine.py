"""The kernel's side of a measurement: page cache, syncs, processor time, bytes of I/O."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)


def files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if path.is_file() and not path.is_symlink():
                yield path


def drop_page_cache(folder: Path) -> None:
    """Lets the kernel forget the pages of every file in the folder, not those of others; names and inodes stay."""
    # Pages that are not written yet stay; a sync of each file would take minutes where there are many.
    sync_file_system(folder)
    for path in files(folder):
        try:
            file = os.open(path, os.O_RDONLY)
        except OSError:
            continue
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(file)


def sync_file_system(folder: Path) -> None:
    """Everything on the folder's file system is on its disk afterwards."""
    file = os.open(folder, os.O_RDONLY)
    try:
        if _libc.syncfs(file):
            raise OSError(ctypes.get_errno(), "syncfs", str(folder))
    finally:
        os.close(file)


def allocated_bytes(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in files(folder))


@dataclass(frozen=True)
class Usage:
    """What this process and a store's servers have used so far."""

    cpu_seconds: float
    read_bytes: int
    """From the disk, not from the page cache."""
    written_bytes: int

    def since(self, before: Usage) -> dict[str, float]:
        return {
            "cpu_seconds": self.cpu_seconds - before.cpu_seconds,
            "read_bytes": self.read_bytes - before.read_bytes,
            "written_bytes": self.written_bytes - before.written_bytes,
        }


def _io(process: str) -> tuple[int, int]:
    values = dict(line.split(": ") for line in Path(f"/proc/{process}/io").read_text().splitlines())
    return int(values["read_bytes"]), int(values["write_bytes"])


def usage(servers: Sequence[int] = ()) -> Usage:
    own = resource.getrusage(resource.RUSAGE_SELF)
    cpu = own.ru_utime + own.ru_stime
    read, written = _io("self")
    for server in servers:
        fields = Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()
        cpu += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        more_read, more_written = _io(str(server))
        read, written = read + more_read, written + more_written
    return Usage(cpu, read, written)


def describe(folder: Path) -> dict[str, str]:
    """What figures depend on."""
    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    system = subprocess.run(["stat", "-f", "-c", "%T", str(folder)], capture_output=True, text=True, check=False)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": f"{model}, {os.cpu_count()} cores",
        "memory": f"{total / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "file_system": system.stdout.strip(),
    }


def die_with_parent() -> None:
    """However the parent ends, this process is killed then."""
    _libc.prctl(1, signal.SIGKILL)


def load() -> float:
    return os.getloadavg()[0]
