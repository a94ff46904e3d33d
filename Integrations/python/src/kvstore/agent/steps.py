"""What a step of a run is: what it was called with, what is stored of it, and what may go wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import Prompt
from .blocks import Entry
from .canonical import NotCanonicalError, digest


class LostStepError(RuntimeError):
    """A step that was confirmed has left the store: evicted, expired or damaged."""


class UnconfirmedStepError(RuntimeError):
    """A step that is to happen once was begun, and nothing tells whether it happened."""


class RunChangedError(RuntimeError):
    """The run was rewound by somebody else; open it again."""


class RunBusyError(RuntimeError):
    """Another thread or process has been in the same step for too long."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step that is confirmed."""

    number: int
    """From 1 on."""
    name: str
    kind: str
    """"step", "tool", "state" or "checkpoint"."""
    key: str
    """SHA-256 of the canonical JSON of what it was called with and of the key before it."""
    stored: float
    seconds: float
    """How long it took."""
    asked: Any
    value: Any


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A named place in a run, and in the model's KV."""

    name: str
    number: int
    """The step that it is."""
    tokens: tuple[int, ...]
    """The prompt's tokens at that place."""
    kv_tokens: int
    """So many of them have their KV in the store, and pinned."""
    state: Any
    until: float | None
    """When its pins end, in seconds of Unix time."""

    def prompt(self) -> Prompt:
        """The tokens, to match and restore."""
        return Prompt(self.tokens)


@dataclass(frozen=True, slots=True)
class StepCall:
    """A step that is asked for."""

    kind: str
    name: str
    asked: dict[str, Any]
    version: str
    once: bool
    encode: Callable[[Any], Any] | None
    decode: Callable[[Any], Any] | None


def asked_of(name: str, arguments: tuple[Any, ...], named: dict[str, Any], key: Any, version: str) -> dict[str, Any]:
    """What stands for the call of a step; raises TypeError where that is no JSON."""
    asked: dict[str, Any] = {"name": name}
    if version:
        asked["version"] = version
    if key is not None:
        asked["key"] = key
    else:
        if arguments:
            asked["arguments"] = list(arguments)
        if named:
            asked["named"] = named
    try:
        digest(asked)
    except NotCanonicalError as reason:
        raise TypeError(f"the arguments of step {name!r} are no JSON ({reason}): give a key that stands for them") from None
    return asked


def step_of(number: int, entry: Entry) -> Step:
    """The step that was stored as this entry."""
    meta = entry.meta
    return Step(
        number,
        meta.get("name", ""),
        meta.get("kind", ""),
        meta.get("step", ""),
        entry.stored,
        meta.get("seconds", 0.0),
        meta.get("asked"),
        entry.value,
    )
