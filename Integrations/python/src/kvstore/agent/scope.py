"""Whose a record is: nothing of one scope is found in another."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["run", "session", "user", "global"]
LEVELS: tuple[Level, ...] = ("run", "session", "user", "global")

_TIME = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d|w)\s*")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}


def seconds(time: float | str | None) -> float | None:
    """A time in seconds, or as text: "60s", "30m", "6h", "1d", "1w"; None is no end."""
    if time is None:
        return None
    if isinstance(time, bool) or not isinstance(time, (int, float, str)):
        raise TypeError(f"a time is a number of seconds or text such as '30m', not {time!r}")
    if isinstance(time, str):
        parsed = _TIME.fullmatch(time)
        if parsed is None:
            raise ValueError(f"not a time: {time!r}; write for example '60s', '30m', '1d', '1w'")
        return float(parsed[1]) * _UNITS[parsed[2]]
    if not time > 0:
        raise ValueError(f"a time of {time} seconds")
    return float(time)


@dataclass(frozen=True, slots=True)
class Scope:
    """A user, a session, a run: whose calls these are."""

    user: str | None = None
    session: str | None = None
    run: str | None = None

    def owner(self, level: Level) -> str | None:
        """The user whose records these are; None: nobody's in particular."""
        return None if level == "global" else self.user

    def key(self, level: Level) -> dict[str, Any]:
        """What stands for the scope in a key. Raises ValueError where it is not known: a wider one would cross it."""
        if level == "global":
            return {"level": "global"}
        if level == "user":
            if self.user is None:
                raise ValueError("scope 'user' needs a user: agents.run(…, user=…) or agents.scope(user=…)")
            return {"level": "user", "user": self.user}
        if level == "session":
            if self.session is None:
                raise ValueError("scope 'session' needs a session: agents.run(…, session=…)")
            return {"level": "session", "user": self.user, "session": self.session}
        if level == "run":
            if self.run is None:
                raise ValueError("scope 'run' needs a run: agents.run(…)")
            return {"level": "run", "user": self.user, "session": self.session, "run": self.run}
        raise ValueError(f"a scope is one of {', '.join(LEVELS)}, not {level!r}")

    def known(self) -> tuple[Level, ...]:
        """The levels that this scope has, narrow ones first."""
        return tuple(
            level
            for level in LEVELS
            if level == "global"
            or (level == "user" and self.user is not None)
            or (level == "session" and self.session is not None)
            or (level == "run" and self.run is not None)
        )
