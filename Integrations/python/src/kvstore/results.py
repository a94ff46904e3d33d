"""What calls answer. Outcomes (miss, busy, full) are in `status`; errors are exceptions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

from .errors import Status


@dataclass(frozen=True, slots=True)
class Match:
    """The longest stored prefix of a prompt. True if anything is stored; a `with` block releases its lease at the end."""

    status: Status
    """OK, MISS, or FULL: found, but no lease was free."""
    tokens: int
    blocks: int
    blocks_host: int
    """Of `blocks`: those with a copy in RAM."""
    blocks_disk: int
    """Of `blocks`: those on disk only."""
    lease: int
    """Id of the lease on the prefix, 0 if none was taken."""
    estimated_restore_seconds: float
    """How long restoring it is expected to take; 0 before this process has measured it."""
    blocks_archive: int = 0
    """Of `blocks`: those in the archive only."""
    being_fetched: bool = False
    """More is being looked up or fetched from the remote tier: match again until it is not, or go on with what there is."""
    blocks_remote: int = 0
    """Blocks that are on their way from there; 0 while that is not known."""
    estimated_fetch_seconds: float = 0
    """How long those are expected to take; 0 while that is not known."""
    _release: Callable[[int], object] | None = field(default=None, repr=False, compare=False)

    def __bool__(self) -> bool:
        return self.blocks > 0

    def release(self) -> None:
        """Ends the lease; once more, without one, or once the store is closed, it does nothing."""
        if self.lease and self._release is not None:
            self._release(self.lease)

    def __enter__(self) -> Match:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a prompt is stored only so far; fields and their meaning are those of kvstore_explanation_t."""

    cause: str
    """For example "edited", "evicted", "other namespace"; "stored" if nothing is missing."""
    message: str
    """Cause and remedy in plain English, without tokens."""
    blocks_asked: int
    blocks_matched: int
    tokens_matched: int
    divergence_token: int
    """Leading tokens in common with the nearest stored prompt, not only whole blocks."""
    tokens_lost: int
    """Stored, but behind the divergence: what the change costs."""
    left_time: float | None
    """When the missing block was removed or expired, in seconds of Unix time."""
    branch_count: int
    """Stored continuations at that point."""
    nearest_tokens: tuple[int, ...]
    """How the nearest one goes on."""
    other_namespace: int | None
    """The number of the namespace that has it, where the cause is "other namespace"."""

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True)
class Pin:
    """A prefix that nothing evicts."""

    id: int
    """What `Store.unpin` takes."""
    blocks: int


@dataclass(frozen=True, slots=True)
class Transfer:
    """How far a restore or an offload came."""

    status: Status
    """OK or BUSY (the timeout); restore: MISS; offload: FULL, PARENT_MISSING."""
    blocks_done: int
    """Restore: leading blocks that are complete. Offload: blocks that were taken or are there already."""
    blocks_host: int
    """Of those, restored from RAM, or taken now."""
    blocks_disk: int
    """Of those, restored from disk, or already stored."""
    byte_count: int
    """Bytes copied to or from the caller."""
    block_status: tuple[int, ...] = field(default=())
    """The status of each block, where it was asked for."""


@dataclass(frozen=True, slots=True)
class Flush:
    """What became of the blocks that were offloaded through this handle since its last flush."""

    status: Status
    """OK, or BUSY: the deadline passed first."""
    blocks_durable: int
    blocks_dropped_full: int
    blocks_dropped_parent: int
    blocks_dropped_error: int
    blocks_dropped_quota: int
    blocks_dropped_evicted: int
    blocks_dropped_incomplete: int


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to blocks first_position ... first_position + block_count - 1 of one run."""

    sequence: int
    time: float
    """Seconds of Unix time."""
    kind: str
    """"stored", "removed", "quarantined" or "moved"."""
    reason: str
    """"" or "evicted", "forgotten", "corrupt", "expired", "quota"."""
    tier: int
    namespace_id: int
    run: int
    first_position: int
    block_count: int
    owner: int
    """Number of the process that did it."""


@dataclass(frozen=True, slots=True)
class Events:
    """Events behind a cursor."""

    lapped: bool
    """Some were lost: what is known from earlier ones is void."""
    cursor: int
    """Where to read on."""
    events: tuple[Event, ...]
