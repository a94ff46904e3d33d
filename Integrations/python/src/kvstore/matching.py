"""What namespaces and sessions have in common when they look a prompt up."""

from __future__ import annotations

from typing import Any

from . import _abi
from .errors import Status
from .library import library
from .results import Explanation, Match, Transfer

_MATCH_PEEK = 1
_MATCH_LEAVE_ONE_TOKEN = 2
_MATCH_REMOTE = 4


def match_flags(peek: bool, leave_one_token: bool, remote: bool = False) -> int:
    """The flags of kvstore_match."""
    return (
        (_MATCH_PEEK if peek else 0)
        | (_MATCH_LEAVE_ONE_TOKEN if leave_one_token else 0)
        | (_MATCH_REMOTE if remote else 0)
    )


def match_of(status: int, found: _abi.Match, store: int) -> Match:
    """What the library answered."""
    return Match(
        status=Status(status),
        tokens=found.tokens_matched,
        blocks=found.blocks_matched,
        blocks_host=found.blocks_host,
        blocks_disk=found.blocks_disk,
        lease=found.lease,
        estimated_restore_seconds=found.estimated_restore_nanoseconds / 1e9,
        blocks_archive=found.blocks_archive,
        being_fetched=bool(found.being_fetched),
        blocks_remote=found.blocks_remote,
        estimated_fetch_seconds=found.estimated_fetch_nanoseconds / 1e9,
        _release=lambda lease: library().kvstore_lease_release(store, lease),
    )


def transfer_of(status: int, result: _abi.TransferResult, per_block: Any) -> Transfer:
    """How far a transfer came."""
    return Transfer(
        status=Status(status),
        blocks_done=result.blocks_done,
        blocks_host=result.blocks_host,
        blocks_disk=result.blocks_disk,
        byte_count=result.bytes,
        block_status=tuple(per_block),
    )


# In the order of KVSTORE_CAUSE_*.
CAUSES = (
    "stored",
    "nothing stored",
    "appended",
    "forked",
    "edited",
    "inserted",
    "deleted",
    "reordered",
    "volatile value",
    "elsewhere",
    "other namespace",
    "evicted",
    "over quota",
    "expired",
    "forgotten",
    "damaged",
    "partial block",
)


def explanation_of(found: _abi.Explanation) -> Explanation:
    """What the library says of a miss."""
    return Explanation(
        cause=CAUSES[found.cause] if found.cause < len(CAUSES) else str(found.cause),
        message=found.message.decode("utf-8", "replace"),
        blocks_asked=found.blocks_asked,
        blocks_matched=found.blocks_matched,
        tokens_matched=found.tokens_matched,
        divergence_token=found.divergence_token,
        tokens_lost=found.tokens_lost,
        left_time=found.left_nanoseconds / 1e9 if found.left_nanoseconds else None,
        branch_count=found.branch_count,
        nearest_tokens=tuple(found.nearest_tokens[: min(found.nearest_token_count, len(found.nearest_tokens))]),
        other_namespace=found.other_namespace or None,
    )
