"""Finds and loads libkvstore."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from . import _abi
from .errors import Status, error

# The header that this package was written against, as KVSTORE_VERSION counts: major × 10^6 + minor × 10^3 + patch.
HEADER_VERSION = 1000


class LibraryNotFoundError(ImportError):
    """There is no libkvstore that could be loaded."""


def candidates() -> Iterator[str]:
    """Where the library is looked for, in this order: $KVSTORE_LIBRARY, the package, the system."""
    chosen = os.environ.get("KVSTORE_LIBRARY")
    if chosen:
        # Who names a library wants that one and no other.
        yield chosen
        return
    yield str(Path(__file__).parent / "lib" / "libkvstore.so.0")
    yield "libkvstore.so.0"
    # Runs the system's tools, which write temporary files: last.
    system = ctypes.util.find_library("kvstore")
    if system:
        yield system


def _load(candidate: str) -> ctypes.CDLL:
    """Loads one candidate. What the packaged library links lies beside it, and is found by its soname once loaded."""
    folder = Path(candidate).parent
    if folder.name == "lib" and folder.parent == Path(__file__).parent:
        for linked in sorted(folder.glob("lib*.so*")):
            if linked.name != Path(candidate).name:
                ctypes.CDLL(str(linked))
    loaded = ctypes.CDLL(candidate)
    _abi.declare(loaded)
    return loaded


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL:
    """The loaded library; the first call loads it."""
    failures = []
    for candidate in candidates():
        try:
            loaded = _load(candidate)
        except (OSError, AttributeError) as reason:
            failures.append(f"{candidate}: {reason}")
            continue
        version = loaded.kvstore_version()
        # Before 1.0 a minor version may change the interface; from then on a major one.
        if version // 1_000_000 != HEADER_VERSION // 1_000_000 or version < HEADER_VERSION:
            failures.append(f"{candidate}: is version {version}, and this package needs {HEADER_VERSION}")
            continue
        return loaded
    raise LibraryNotFoundError(
        "libkvstore was not found; install the wheel that carries it, or set KVSTORE_LIBRARY.\n  "
        + "\n  ".join(failures)
    )


def version() -> str:
    """The version of the loaded library, for example "0.1.0"."""
    number = library().kvstore_version()
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def last_error_message() -> str:
    """What the library says of the last failed call of this thread."""
    return str(library().kvstore_last_error_message().decode("utf-8", "replace"))


def check(status: int) -> int:
    """Returns a success or an outcome; raises an error with the library's message."""
    if status < 0:
        raise error(status, last_error_message())
    return status


def check_done(status: int) -> int:
    """For calls that have no answer unless they succeed: raises what is neither success nor a miss."""
    if status not in (Status.OK, Status.MISS):
        raise error(status, last_error_message() if status < 0 else Status(status).name)
    return status
