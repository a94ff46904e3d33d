"""Statuses of the library, and the exceptions that its errors become."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """What a call of the library answered: 0 success, above it outcomes, below it errors. True is success."""

    def __bool__(self) -> bool:
        return self is Status.OK

    OK = 0
    MISS = 1
    BUSY = 2
    FULL = 3
    PARENT_MISSING = 4
    LAPPED = 5
    DECLINED = 7
    INVALID_ARGUMENT = -1
    BAD_HANDLE = -2
    BUFFER_TOO_SMALL = -3
    IO = -4
    NO_SPACE = -5
    CORRUPT = -6
    VERSION = -7
    LOCKED = -8
    OUT_OF_MEMORY = -9
    FORKED = -10
    INTERNAL = -11
    READ_ONLY = -12
    IDENTITY = -13
    NOT_A_STORE = -14


class KVStoreError(Exception):
    """The library answered an error; the message is the library's own and says what to do."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class InvalidArgumentError(KVStoreError):
    """An argument, or a combination of them, that the library refuses."""


class BadHandleError(KVStoreError):
    """A store or namespace that is closed."""


class BufferTooSmallError(KVStoreError):
    """A region does not fit into the memory that was given for it."""


class StorageError(KVStoreError):
    """The operating system refused a read or a write."""


class NoSpaceError(StorageError):
    """The file system is full, or a disk quota is used up."""


class CorruptError(KVStoreError):
    """The store's own files are damaged."""


class VersionError(KVStoreError):
    """The store has another format version."""


class LockedError(KVStoreError):
    """Another PID namespace (container) has the store open, or its reader table is full."""


class OutOfMemoryError(KVStoreError):
    """There is no memory for the host tier or the index."""


class ForkedError(KVStoreError):
    """The store was opened before fork(); open it in the child."""


class InternalError(KVStoreError):
    """An invariant failed; the store answers misses only until it is opened again."""


class ReadOnlyError(KVStoreError):
    """The store was opened read-only."""


class IdentityError(KVStoreError):
    """Two identity records have one hash."""


class NotAStoreError(KVStoreError):
    """The path holds something else."""


class UnavailableError(KVStoreError):
    """A namespace could not be opened, or blocks not be forgotten or pinned, now: another process keeps the writer waiting, or
    the catalog has no room."""


_CLASSES: dict[int, type[KVStoreError]] = {
    Status.BUSY: UnavailableError,
    Status.FULL: UnavailableError,
    Status.INVALID_ARGUMENT: InvalidArgumentError,
    Status.BAD_HANDLE: BadHandleError,
    Status.BUFFER_TOO_SMALL: BufferTooSmallError,
    Status.IO: StorageError,
    Status.NO_SPACE: NoSpaceError,
    Status.CORRUPT: CorruptError,
    Status.VERSION: VersionError,
    Status.LOCKED: LockedError,
    Status.OUT_OF_MEMORY: OutOfMemoryError,
    Status.FORKED: ForkedError,
    Status.INTERNAL: InternalError,
    Status.READ_ONLY: ReadOnlyError,
    Status.IDENTITY: IdentityError,
    Status.NOT_A_STORE: NotAStoreError,
}


def error(status: int, message: str) -> KVStoreError:
    """The exception of an error status."""
    return _CLASSES.get(status, KVStoreError)(status, message)
