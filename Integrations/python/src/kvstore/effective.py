"""An engine's whole configuration as bytes that tell it from every other one.

Fields are taken whole, and a few are left out, each with a reason; a field that nobody here knows yet, of an engine's
next version, is in. It then costs misses where it need not, and never a hit that should have been a miss.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import json
import logging
import os
import re
import types
from collections.abc import Iterable, Mapping
from typing import Any

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class Effective:
    """A canonical record of objects, by what they hold.

    `left_out` maps "Class.field" to the reason why it cannot matter; the class is that of the object or one that it
    inherits from. `unnameable` lists the places of values that have no content to go by, such as a lock: whoever uses
    the record must not let it outlive the process then.
    """

    def __init__(self, left_out: Mapping[str, str]) -> None:
        self._left_out = left_out
        self.unnameable: list[str] = []

    def digest(self, value: Any) -> bytes:
        """SHA-256 over everything that the value holds."""
        return hashlib.sha256(self.text(value).encode()).digest()

    def text(self, value: Any) -> str:
        """The record as JSON."""
        return json.dumps(self.record(value), sort_keys=True, separators=(",", ":"))

    def record(self, value: Any, place: str = "") -> Any:
        """What the value holds, in lists, dictionaries and text."""
        return self._record(value, place, ())

    def fields(self, value: Any) -> dict[str, Any]:
        """The fields of an object that are not left out."""
        names = {base.__name__ for base in type(value).__mro__}
        return {
            name: part
            for name, part in _all_fields(value).items()
            if not any(f"{base}.{name}" in self._left_out for base in names)
        }

    def _record(self, value: Any, place: str, above: tuple[int, ...]) -> Any:
        if value is None or isinstance(value, (bool, str)) and type(value) in (bool, str):
            return value
        if type(value) is int:
            return value
        if type(value) is float:
            return ["float", value.hex()]
        if isinstance(value, enum.Enum):
            return ["enum", _name(type(value)), value.name]
        if isinstance(value, (bytes, bytearray, memoryview)):
            return ["bytes", bytes(value).hex()]
        if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)):
            return self._code(value)
        if id(value) in above:
            # What holds itself: it is there in full further up.
            return ["above", len(above) - above.index(id(value))]
        above = (*above, id(value))
        if isinstance(value, types.MethodType):
            return ["method", self._code(value.__func__), self._record(value.__self__, place, above)]
        if isinstance(value, functools.partial):
            parts = (value.func, value.args, value.keywords)
            return ["partial", *(self._record(part, place, above) for part in parts)]
        if isinstance(value, Mapping):
            pairs = [
                [self._record(key, place, above), self._record(part, f"{place}[{key!r}]", above)]
                for key, part in value.items()
            ]
            return [_name(type(value)), sorted(pairs, key=_order)]
        if isinstance(value, (set, frozenset)):
            return ["set", sorted((self._record(part, place, above) for part in value), key=_order)]
        if isinstance(value, os.PathLike):
            return ["path", os.fspath(value)]
        if isinstance(value, logging.Logger):
            return ["logger", value.name]
        if (content := _array_digest(value)) is not None:
            return content
        fields = self.fields(value)
        if isinstance(value, (list, tuple)) or isinstance(value, (int, float, str)):
            # Named tuples, numbers and texts of classes of their own may have fields beside what they are.
            own: Any = (
                [self._record(part, f"{place}[{index}]", above) for index, part in enumerate(value)]
                if isinstance(value, (list, tuple))
                else repr(value)
            )
            if type(value) in (list, tuple):
                return own
            return [_name(type(value)), own, self._fields(fields, place, above)]
        if fields or _has_fields(value):
            return [_name(type(value)), self._fields(fields, place, above)]
        said = repr(value)
        if _ADDRESS.search(said):
            self.unnameable.append(f"{place} ({_name(type(value))})")
            said = _name(type(value))
        return ["repr", said]

    def _fields(self, fields: dict[str, Any], place: str, above: tuple[int, ...]) -> dict[str, Any]:
        return {name: self._record(part, f"{place}.{name}", above) for name, part in fields.items()}

    def _code(self, value: Any) -> Any:
        code = getattr(value, "__code__", None)
        return ["code", _name(value), code_digest(code).hex() if code is not None else None]


def code_digest(code: types.CodeType) -> bytes:
    """A digest of compiled Python code, as it was loaded, with everything that it holds."""
    digest = hashlib.sha256()

    def add(part: types.CodeType) -> None:
        digest.update(part.co_code)
        names = (part.co_name, part.co_names, part.co_varnames, part.co_freevars, part.co_cellvars)
        numbers = (part.co_argcount, part.co_posonlyargcount, part.co_kwonlyargcount, part.co_flags)
        digest.update(repr((names, numbers)).encode())
        for constant in part.co_consts:
            if isinstance(constant, types.CodeType):
                add(constant)
            elif isinstance(constant, frozenset):
                digest.update(repr(sorted(map(repr, constant))).encode())
            else:
                digest.update(repr((type(constant).__name__, constant)).encode())

    add(code)
    return digest.digest()


def module_code_digest(module: types.ModuleType, left_out: Mapping[str, str] | None = None) -> bytes:
    """A digest of the functions, classes and plain constants that a Python module defines, as they were loaded.

    `left_out` maps "module.NAME" of a constant to the reason why it cannot matter.
    """
    digest = hashlib.sha256()

    def add(name: str, value: Any) -> None:
        value = inner(value)
        code = part_of(value, "__code__")
        if isinstance(code, types.CodeType):
            digest.update(f"{name}\0".encode() + code_digest(code))
            defaults = (part_of(value, "__defaults__"), part_of(value, "__kwdefaults__"))
            digest.update(_ADDRESS.sub("", repr(defaults)).encode())
        elif isinstance(value, property):
            for part in (value.fget, value.fset, value.fdel):
                add(name, part)
        elif isinstance(value, (bool, int, float, str, bytes, type(None))):
            digest.update(f"{name}\0{value!r}\0".encode())

    def inner(value: Any) -> Any:
        for _ in range(20):
            below = part_of(value, "__func__")
            below = part_of(value, "__wrapped__") if below is None else below
            if below is None:
                break
            value = below
        return value

    def part_of(value: Any, name: str) -> Any:
        if isinstance(value, types.ModuleType):
            # It has a digest of its own, and may import others when it is asked.
            return None
        try:
            return getattr(value, name, None)
        except Exception:
            # What stands for a package that is not installed says so.
            return None

    ours = getattr(module, "__name__", None)
    for name, value in sorted(vars(module).items()):
        if name.startswith("__") or f"{ours}.{name}" in (left_out or {}):
            continue
        if isinstance(value, type):
            if value.__module__ == ours:
                digest.update(f"class {name} {[_name(base) for base in value.__mro__]}".encode())
                for field, part in sorted(vars(value).items()):
                    if field not in ("__doc__", "__dict__", "__weakref__", "__module__"):
                        add(f"{name}.{field}", part)
        else:
            add(name, value)
    return digest.digest()


def environment(prefixes: Iterable[str], left_out: Mapping[str, str], names: Iterable[str] = ()) -> dict[str, str]:
    """The environment variables with these prefixes or names, without those that are left out for a reason."""
    starts, names = tuple(prefixes), frozenset(names)
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if (name.startswith(starts) or name in names) and name not in left_out
    }


def digest_setting(name: str, value: Any) -> bytes:
    """The 32 bytes of a setting in hexadecimal; anything else is a ValueError, also a digest that was cut."""
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise ValueError(f"kvstore: {name} is {value!r}, and must be 32 bytes in hexadecimal, which is 64 digits")
    return bytes.fromhex(value)


def nonce() -> bytes:
    """What no other process has: in a record, it makes a namespace that ends with this one."""
    return os.urandom(32)


def _all_fields(value: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for base in reversed(type(value).__mro__):
        slots = base.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                fields[name] = getattr(value, name)
    for name in getattr(type(value), "__struct_fields__", ()):
        fields[name] = getattr(value, name)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            try:
                # Not getattr: transformers' configurations refuse to tell what differs between layers.
                fields[field.name] = object.__getattribute__(value, field.name)
            except AttributeError:
                continue
    fields.update(getattr(value, "__dict__", {}))
    return fields


def _has_fields(value: Any) -> bool:
    return hasattr(value, "__dict__") and _says_nothing(value) or dataclasses.is_dataclass(value)


def _says_nothing(value: Any) -> bool:
    return getattr(type(value), "__repr__", None) == object.__repr__


def _array_digest(value: Any) -> list[Any] | None:
    """The content of a torch tensor or a numpy array; None for anything else."""
    if type(value).__module__.split(".")[0] not in ("torch", "numpy"):
        return None
    if hasattr(value, "detach"):
        import torch

        plain = value.detach().cpu().contiguous()
        data = plain.reshape(-1).view(torch.uint8).numpy() if plain.numel() else b""
        return ["tensor", str(value.dtype), list(value.shape), hashlib.sha256(data).hexdigest()]
    if hasattr(value, "tobytes"):
        return ["array", str(value.dtype), list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]
    return None


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', None)}.{getattr(value, '__qualname__', getattr(value, '__name__', '?'))}"


def _order(record: Any) -> str:
    return json.dumps(record, sort_keys=True)
