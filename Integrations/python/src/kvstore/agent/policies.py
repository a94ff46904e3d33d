"""How long what is kept, for whom, and what is not: in one file."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .scope import LEVELS, Level, seconds

if TYPE_CHECKING:
    from .tools import ToolRule

_TOOL = ("ttl", "scope", "version", "stale", "errors", "bypass")
_ANSWERS = ("ttl", "scope", "version", "sampled", "bypass")
_EMBEDDINGS = ("ttl", "scope", "bypass")
_STEPS = ("version", "bypass")


@dataclass(frozen=True, slots=True)
class AnswerRule:
    """How answers of models are kept."""

    ttl_seconds: float | None = None
    scope: Level = "user"
    version: str = ""
    sampled: bool = False
    """Those of requests with a temperature above 0 (or none) as well."""
    bypass: bool = False


class PolicyError(ValueError):
    """A policy file that says something which is not understood; the message names the place."""


class Policies:
    """The rules of a TOML file:

        [classes]                  # names for times
        live = "60s"

        [tools.weather]            # what a decorator said is the default of each of these
        ttl = "live"
        scope = "global"           # run, session, user, global
        version = "3"
        stale = "1h"
        errors = "10s"
        bypass = false             # true: always called, never kept

        [answers]                  # of all models; [models."gpt-x"] of one
        ttl = "1w"
        scope = "user"
        sampled = false

        [embeddings]
        ttl = "30d"

        [steps.plan]
        version = "2"              # another one: the step is done again
        bypass = false             # true: done each time; a replay is answered what it returned

    A file is checked when it is read; one that is wrong changes nothing. Threads may share it.
    """

    def __init__(self, source: str | os.PathLike[str] | Mapping[str, Any] | None = None) -> None:
        self._path = Path(source).expanduser() if source is not None and not isinstance(source, Mapping) else None
        self._rules: Mapping[str, Any] = {}
        if isinstance(source, Mapping):
            self._rules = _checked(source, "the policies")
        elif self._path is not None:
            self.reload()

    def reload(self) -> None:
        """Reads the file again; raises PolicyError, and keeps what was, if it is wrong."""
        if self._path is not None:
            self._rules = _checked(_toml(self._path), str(self._path))

    def tool(self, rule: ToolRule) -> ToolRule:
        """The rule of a tool: what its decorator says, and what the file says otherwise."""
        said = self._rules.get("tools", {}).get(rule.name)
        if not said:
            return rule
        changes: dict[str, Any] = {name: said[name] for name in ("scope", "version", "bypass") if name in said}
        for name, own in (("ttl", "ttl_seconds"), ("stale", "stale_seconds"), ("errors", "error_seconds")):
            if name in said:
                changes[own] = said[name]
        return replace(rule, **changes)

    def answers(self, rule: AnswerRule, model: str) -> AnswerRule:
        """The rule of a model's answers."""
        known = {field.name for field in fields(AnswerRule)}
        for said in (self._rules.get("answers", {}), self._rules.get("models", {}).get(model, {})):
            changes = {("ttl_seconds" if name == "ttl" else name): value for name, value in said.items()}
            rule = replace(rule, **{name: value for name, value in changes.items() if name in known})
        return rule

    def embeddings(self) -> Mapping[str, Any]:
        """What is said of embeddings."""
        found: Mapping[str, Any] = self._rules.get("embeddings", {})
        return found

    def step(self, name: str) -> Mapping[str, Any]:
        """What is said of a step."""
        found: Mapping[str, Any] = self._rules.get("steps", {}).get(name, {})
        return found


def _toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError:
            raise PolicyError("a policy file needs Python 3.11, or the package tomli; or give the rules as a dict") from None
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as reason:
        raise PolicyError(f"{path}: {reason}") from None


def _checked(rules: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The rules with times as seconds; raises PolicyError for the first word that is not understood."""
    known = {"classes", "tools", "answers", "models", "embeddings", "steps"}
    for name, table in rules.items():
        if name not in known:
            raise PolicyError(f"{where}: there is no table [{name}]; there are {', '.join(sorted(known))}")
        if not isinstance(table, Mapping):
            raise PolicyError(f"{where}: {name} is a table")
    classes = {name: _time(value, {}, f"{where}: classes.{name}") for name, value in rules.get("classes", {}).items()}
    result: dict[str, Any] = {}
    tables: tuple[tuple[str, tuple[str, ...]], ...] = (("tools", _TOOL), ("models", _ANSWERS), ("steps", _STEPS))
    for name, words in tables:
        result[name] = {
            key: _rule(value, words, classes, f"{where}: {name}.{key}") for key, value in rules.get(name, {}).items()
        }
    for name, words in (("answers", _ANSWERS), ("embeddings", _EMBEDDINGS)):
        result[name] = _rule(rules.get(name, {}), words, classes, f"{where}: {name}")
    return result


def _rule(rule: Any, words: tuple[str, ...], classes: Mapping[str, float | None], where: str) -> dict[str, Any]:
    if not isinstance(rule, Mapping):
        raise PolicyError(f"{where} is a table")
    result: dict[str, Any] = {}
    for name, value in rule.items():
        if name not in words:
            raise PolicyError(f"{where}: {name} is not understood; there are {', '.join(words)}")
        place = f"{where}.{name}"
        if name in ("ttl", "stale", "errors"):
            time = _time(value, classes, place)
            result[name] = time if name == "ttl" else time or 0.0
        elif name == "scope":
            if value not in LEVELS:
                raise PolicyError(f"{place} is one of {', '.join(LEVELS)}, not {value!r}")
            result[name] = value
        elif name in ("bypass", "sampled"):
            if not isinstance(value, bool):
                raise PolicyError(f"{place} is true or false, not {value!r}")
            result[name] = value
        else:
            if not isinstance(value, str):
                raise PolicyError(f"{place} is text, not {value!r}")
            result[name] = value
    return result


def _time(value: Any, classes: Mapping[str, float | None], where: str) -> float | None:
    if isinstance(value, str) and value in classes:
        return classes[value]
    if value == "forever":
        return None
    try:
        return seconds(value)
    except (TypeError, ValueError) as reason:
        names = f", or one of the classes {', '.join(classes)}" if classes else ""
        raise PolicyError(f"{where}: {reason}{names}") from None
