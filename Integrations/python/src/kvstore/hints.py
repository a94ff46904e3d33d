"""What a client knows of a conversation and the engine does not: how long it goes on, and when it is over.

    {"session": "run 17", "ttl_seconds": 3600, "priority": 80}

vLLM takes them in a request's `kv_transfer_params`, under "kvstore"; SGLang in an action of its `kv_hints`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

logger = logging.getLogger(__name__)

_PIN_SECONDS_MAX = 90 * 86_400.0


@dataclass(frozen=True, slots=True)
class Hints:
    """The hints of a request; each field is a key of what the client gives."""

    session: str = ""
    """The name of a conversation, whose steps `kvstore inspect sessions` shows."""
    ttl_seconds: float | None = None
    """How long what the request stores is kept after its last use."""
    priority: int | None = None
    """0 to 100: what is evicted first has the lowest one; 50 without."""
    pin_seconds: float = 0.0
    """For how long nothing evicts what is stored of the request."""
    end: bool = False
    """The conversation is over with this request: what of it no other prompt shares is removed."""
    compacted: bool = False
    """The request goes on from a summary: what of the session's last prompt no other one shares is removed."""

    @classmethod
    def of(cls, params: Any) -> Hints:
        """Reads vLLM's kv_transfer_params of a request."""
        given = params.get("kvstore") if isinstance(params, dict) else None
        return _NONE if given is None else cls.read(given)

    @classmethod
    def read(cls, given: Any) -> Hints:
        """Reads what a client gave. A hint that makes no sense is ignored, and said so once."""
        if not isinstance(given, dict):
            _ignored("kvstore", given)
            return _NONE
        known = {field.name for field in fields(cls)}
        good: dict[str, Any] = {}
        for name, value in given.items():
            if name not in known or not _CHECKS[name](value):
                _ignored(name, value)
            else:
                good[name] = value
        return cls(**good)

    @property
    def of_blocks(self) -> dict[str, Any]:
        """What an offload is told."""
        told = {"ttl_seconds": self.ttl_seconds, "priority": self.priority}
        return {name: value for name, value in told.items() if value is not None}


def _is_number(value: Any, most: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= most and math.isfinite(value)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "session": lambda value: isinstance(value, str) and 0 < len(value.encode()) <= 128 and "\0" not in value,
    "ttl_seconds": lambda value: _is_number(value, 1e9),
    "priority": lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 100,
    "pin_seconds": lambda value: _is_number(value, _PIN_SECONDS_MAX),
    "end": lambda value: isinstance(value, bool),
    "compacted": lambda value: isinstance(value, bool),
}
_NONE = Hints()
_said: set[str] = set()


def _ignored(name: str, value: Any) -> None:
    if name not in _said and len(_said) < 100:
        _said.add(name)
        logger.warning("kvstore: the hint %s of a request is %.100r, and is ignored", name, value)
