"""What namespaces and sessions have in common when they look a prompt up."""

from __future__ import annotations

from . import _abi
from .errors import Status
from .results import Match

_MATCH_PEEK = 1
_MATCH_LEAVE_ONE_TOKEN = 2


def match_flags(peek: bool, leave_one_token: bool) -> int:
    """The flags of kvstore_match."""
    return (_MATCH_PEEK if peek else 0) | (_MATCH_LEAVE_ONE_TOKEN if leave_one_token else 0)


def match_of(status: int, found: _abi.Match) -> Match:
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
    )
