"""Changes every field of an engine's configuration, one after the other, and asks whether the identity has changed."""

from __future__ import annotations

import enum
import functools
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any

UNKNOWN = "field_of_a_later_version"


def objects(root: Any, left_out: Any = ()) -> Iterator[tuple[Any, bool]]:
    """Every object with fields that is reached from here, each once, and whether only by fields that are left out."""
    seen: set[int] = set()
    waiting = [(root, False)]
    later: list[tuple[Any, bool]] = []
    while waiting or later:
        # First what is reached otherwise.
        value, below = waiting.pop() if waiting else later.pop()
        parts: list[tuple[Any, bool]] = []
        if isinstance(value, dict):
            parts = [(part, below) for part in value.values()]
        elif isinstance(value, (list, tuple, set, frozenset)):
            parts = [(part, below) for part in value]
        elif has_fields(value) and id(value) not in seen:
            seen.add(id(value))
            yield value, below
            parts = [(part, below or is_left_out(value, name, left_out)) for name, part in vars(value).items()]
        for part in parts:
            (later if part[1] else waiting).append(part)


def is_left_out(holder: Any, name: str, left_out: Any) -> bool:
    """Whether a field of this object is on the list."""
    return any(f"{base.__name__}.{name}" in left_out for base in type(holder).__mro__)


def has_fields(value: Any) -> bool:
    return (
        hasattr(value, "__dict__")
        and not isinstance(value, (type, enum.Enum))
        and not callable(value)
        and type(value).__module__.split(".")[0] not in ("torch", "logging", "threading", "builtins")
    )


def other(value: Any) -> Any:
    """Another value of the same kind, as far as the kind is known."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, enum.Enum):
        return next((one for one in type(value) if one is not value), "another")
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value * 1.5 + 0.25
    if isinstance(value, str):
        return value + "-another"
    if isinstance(value, bytes):
        return value + b"-another"
    if isinstance(value, dict):
        return {**value, "another": 1}
    if isinstance(value, list):
        return [*value, "another"]
    if isinstance(value, tuple):
        return (*value, "another")
    if isinstance(value, (set, frozenset)):
        return type(value)([*value, "another"])
    return "another"


def others(holder: Any, name: str) -> list[Any]:
    """Other values that a field may have: those that its type allows, and one that nobody has thought of."""
    value = getattr(holder, name, None)
    if name == UNKNOWN and not hasattr(holder, name):
        return [1]
    if has_fields(value):
        return [None]
    return others_of(value, [_hints(type(holder)).get(name)])


def others_of(value: Any, declared: list[Any]) -> list[Any]:
    """Values beside this one: those that the declared types allow, and one that nobody has thought of."""
    found: list[Any] = []
    waiting = list(declared)
    while waiting:
        kind = waiting.pop(0)
        if typing.get_origin(kind) is typing.Annotated:
            waiting.append(typing.get_args(kind)[0])
        elif typing.get_origin(kind) in (typing.Union, types.UnionType):
            waiting += typing.get_args(kind)
        elif typing.get_origin(kind) is typing.Literal:
            found += typing.get_args(kind)
        elif isinstance(kind, type) and issubclass(kind, enum.Enum):
            found += list(kind)
        elif kind is bool:
            found += [True, False]
        elif kind is int:
            found += [value + 1, value * 2, max(1, value // 2)] if type(value) is int else [1, 8]
        elif kind is float:
            found += [value * 0.5, value + 0.25] if type(value) is float else [0.5, 2.0]
        elif kind is str and value is None:
            found.append("another")
    found.append(other(value))
    chosen: list[Any] = []
    for one in found:
        if (type(one), one) != (type(value), value) and not any(type(one) is type(two) and one == two for two in chosen):
            chosen.append(one)
    return chosen[:6]


@functools.cache
def _hints(owner: type) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for base in reversed(owner.__mro__):
        scope = vars(sys.modules.get(base.__module__, typing))
        for name, kind in vars(base).get("__annotations__", {}).items():
            if isinstance(kind, str):
                try:
                    kind = eval(kind, dict(scope), dict(vars(base)))
                except Exception:
                    # A name that is there for type checkers only.
                    continue
            found[name] = kind
    return found


def fields_of(root: Any, left_out: Any) -> list[tuple[str, bool]]:
    """Every "Class.field" that is reached from here, unknown ones included, and whether it is on the list."""
    found: dict[str, bool] = {}
    for holder, below in objects(root, left_out):
        for name in [*vars(holder), UNKNOWN]:
            key = f"{type(holder).__name__}.{name}"
            # Where a class has several objects: on the list if all of them are.
            found[key] = found.get(key, True) and (below or is_left_out(holder, name, left_out))
    return list(found.items())


def mutations_of(root: Any, left_out: Any, digest: Any) -> list[dict[str, Any]]:
    """For each field of each object: whether the digest changed with it, and whether it is on the list."""
    before = digest()
    assert digest() == before, "the record of an unchanged configuration changes"
    done = []
    for holder, below in list(objects(root, left_out)):
        for name in [*vars(holder), UNKNOWN]:
            missing = name == UNKNOWN
            value = None if missing else vars(holder)[name]
            # The fields of an object come one by one; here there is none.
            vars(holder)[name] = 1 if missing else None if has_fields(value) else other(value)
            try:
                changed = digest() != before
            finally:
                if missing:
                    del vars(holder)[name]
                else:
                    vars(holder)[name] = value
            listed = below or is_left_out(holder, name, left_out)
            done.append({"field": f"{type(holder).__name__}.{name}", "changed": changed, "listed": listed})
    assert digest() == before
    return done


def mutations(model: str, options: dict[str, Any]) -> list[dict[str, Any]]:
    """Of vLLM's configuration for this model and these options."""
    from vllm.engine.arg_utils import EngineArgs

    from kvstore.vllm.identity import effective_config

    made = EngineArgs(model=model, skip_tokenizer_init=True, dtype="bfloat16", **options).create_engine_config()
    return mutations_of(made, vllm_left_out(made), lambda: effective_config(made))


def vllm_left_out(made: Any) -> dict[str, str]:
    """The list, as it is for this configuration of vLLM."""
    from kvstore.vllm.left_out import DRAFTERS_WITHOUT_KV, LEFT_OUT

    left_out = dict(LEFT_OUT)
    if getattr(made.speculative_config, "method", None) not in DRAFTERS_WITHOUT_KV:
        # It is recorded beside the configuration, where there is one.
        del left_out["VllmConfig.speculative_config"]
    return left_out
