"""What calls answer. Outcomes (miss, busy, full) are in `status`; errors are exceptions."""

from __future__ import annotations

from dataclasses import dataclass, field

from .errors import Status


@dataclass(frozen=True, slots=True)
class Match:
    """The longest stored prefix of a prompt."""

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
