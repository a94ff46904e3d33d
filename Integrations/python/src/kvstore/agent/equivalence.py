"""Calls that do the same are one call: arguments in one form, by the tool's JSON schema.

The schema is that of the tool's parameters, as it is given to a model. Beyond the standard's own words (type, properties, required,
default, items, enum, const) these are understood, on any property:

    "x-normalize": ["trim", "collapse", "casefold", "nfc"]   text: white space at the ends, in between, case, Unicode form
    "x-unit": "m"                                            numbers with a unit ("1.5 km", 1500): all in this one
    "x-unordered": true                                      an array whose order means nothing
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from .canonical import keyed

_UNITS: dict[str, tuple[str, Decimal]] = {
    name: (base, Decimal(factor))
    for base, names in {
        "m": {"nm": "1e-9", "um": "1e-6", "µm": "1e-6", "mm": "1e-3", "cm": "1e-2", "dm": "0.1", "m": "1", "km": "1e3",
              "in": "0.0254", "ft": "0.3048", "yd": "0.9144", "mi": "1609.344"},
        "kg": {"mg": "1e-6", "g": "1e-3", "kg": "1", "t": "1e3", "oz": "0.028349523125", "lb": "0.45359237"},
        "s": {"ns": "1e-9", "us": "1e-6", "µs": "1e-6", "ms": "1e-3", "s": "1", "sec": "1", "min": "60", "h": "3600", "d": "86400",
              "w": "604800"},
        "B": {"B": "1", "kB": "1e3", "KB": "1e3", "MB": "1e6", "GB": "1e9", "TB": "1e12", "KiB": "1024", "MiB": "1048576",
              "GiB": "1073741824", "TiB": "1099511627776"},
        "l": {"ml": "1e-3", "cl": "1e-2", "dl": "0.1", "l": "1", "L": "1"},
    }.items()
    for name, factor in names.items()
}  # fmt: skip

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_QUANTITY = re.compile(rf"\s*({_NUMBER.pattern})\s*([A-Za-zµ]*)\s*")
_WORDS = ("trim", "collapse", "casefold", "nfc")


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raises ValueError for a word of ours that is not understood: it would be ignored otherwise."""
    for name in schema.get("x-normalize", ()):
        if name not in _WORDS:
            raise ValueError(f"x-normalize has {', '.join(_WORDS)}, not {name!r}")
    if "x-unit" in schema and schema["x-unit"] not in _UNITS:
        raise ValueError(f"x-unit {schema['x-unit']!r} is not known: {', '.join(_UNITS)}")
    for inner in (schema.get("properties") or {}).values():
        check_schema(inner)
    if isinstance(schema.get("items"), Mapping):
        check_schema(schema["items"])


def canonical_arguments(arguments: Any, schema: Mapping[str, Any]) -> Any:
    """The arguments in the form that stands for all that do the same."""
    return _canonical(arguments, schema)


def _canonical(value: Any, schema: Mapping[str, Any]) -> Any:
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else list(kinds or ())
    if "x-unit" in schema and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return _quantity(value, schema["x-unit"])
    if isinstance(value, Mapping) and ("object" in kinds or "properties" in schema):
        return _object(value, schema)
    if isinstance(value, (list, tuple)) and isinstance(schema.get("items"), Mapping):
        items = [_canonical(item, schema["items"]) for item in value]
        return sorted(items, key=keyed) if schema.get("x-unordered") else items
    if isinstance(value, (list, tuple)) and schema.get("x-unordered"):
        return sorted(value, key=keyed)
    if isinstance(value, str):
        if "string" not in kinds and ("integer" in kinds or "number" in kinds):
            # A model wrote a number as text.
            return _number(value, value)
        return _text(value, schema)
    return value


def _object(value: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    properties: Mapping[str, Any] = schema.get("properties") or {}
    result = {name: _canonical(item, properties.get(name, {})) for name, item in value.items()}
    for name, inner in properties.items():
        if name not in result and isinstance(inner, Mapping) and "default" in inner:
            result[name] = _canonical(inner["default"], inner)
    return result


def _text(value: str, schema: Mapping[str, Any]) -> str:
    words = schema.get("x-normalize", ())
    if "nfc" in words:
        value = unicodedata.normalize("NFC", value)
    if "trim" in words:
        value = value.strip()
    if "collapse" in words:
        value = re.sub(r"\s+", " ", value)
    if "casefold" in words:
        value = value.casefold()
    return value


def _number(text: str, otherwise: Any) -> Any:
    text = text.strip()
    if not _NUMBER.fullmatch(text):
        return otherwise
    try:
        number = Decimal(text)
    except InvalidOperation:
        return otherwise
    if number == number.to_integral_value() and abs(number) < 10**30:
        return int(number)
    # Only where nothing is lost, so that two numbers stay two.
    return float(number) if Decimal(repr(float(number))) == number else otherwise


def _quantity(value: str | int | float, unit: str) -> Any:
    base, into = _UNITS[unit]
    parsed = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if isinstance(value, str) and parsed is None:
        return value
    number = Decimal(parsed[1]) if parsed else Decimal(repr(value) if isinstance(value, float) else value)
    name = (parsed[2] if parsed else "") or unit
    if name not in _UNITS or _UNITS[name][0] != base:
        return value
    exact = number * _UNITS[name][1] / into
    # As text, which loses nothing, and in a form that no argument has by itself.
    return {"quantity": format(exact.normalize(), "f"), "unit": unit}
