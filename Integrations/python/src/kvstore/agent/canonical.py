"""Canonical JSON (RFC 8785), and the digests that keys are made of.

Two values have one key if and only if they are one JSON value: the order of an object's members, and whether a number was written
1, 1.0 or 1e0, make no difference; everything else does.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from json import encoder
from typing import Any

# The escapes of RFC 8785 are those of this function: the short ones, \u00XX in lower case for other control characters, no more.
_quoted: Callable[[str], str] = encoder.encode_basestring

_INTEGER_MAX = 2**53 - 1
_DEPTH_MAX = 200


class NotCanonicalError(ValueError):
    """A value that JSON cannot write, or not in one way alone."""


def canonical(value: Any) -> bytes:
    """The value as RFC 8785 writes it. Integers beyond ±(2^53 − 1) are refused, as it demands."""
    return _written(value, _no_big_integer)


def keyed(value: Any) -> bytes:
    """`canonical`, but with any integer.

    Those beyond ±(2^53 − 1), which different readers of JSON take for different numbers, are written with an n behind all their
    digits. No JSON text has that, so no other value is written in the same way.
    """
    return _written(value, _big_integer)


def digest(value: Any) -> bytes:
    """SHA-256 of the value's canonical JSON (`keyed`)."""
    return hashlib.sha256(keyed(value)).digest()


def _written(value: Any, big: Callable[[int], str]) -> bytes:
    parts: list[str] = []
    _write(value, parts.append, big, 0)
    try:
        return "".join(parts).encode("utf-8")
    except UnicodeEncodeError:
        raise NotCanonicalError("text with half of a surrogate pair has no canonical JSON") from None


def _write(value: Any, put: Callable[[str], object], big: Callable[[int], str], depth: int) -> None:
    kind = type(value)
    if kind is str:
        put(_quoted(value))
    elif value is None:
        put("null")
    elif value is True:
        put("true")
    elif value is False:
        put("false")
    elif kind is int:
        put(str(value) if -_INTEGER_MAX <= value <= _INTEGER_MAX else big(value))
    elif kind is float:
        put(number(value))
    elif depth >= _DEPTH_MAX:
        raise NotCanonicalError(f"a value nested more than {_DEPTH_MAX} deep, or within itself")
    elif isinstance(value, dict):
        _write_object(value, put, big, depth)
    elif isinstance(value, (list, tuple)):
        separator = "["
        for item in value:
            put(separator)
            _write(item, put, big, depth + 1)
            separator = ","
        put("]" if separator == "," else "[]")
    elif isinstance(value, str):
        # Subclasses: an enum of text is the text, whatever it prints.
        put(_quoted(str.__str__(value)))
    elif isinstance(value, int):
        _write(int(value), put, big, depth)
    elif isinstance(value, float):
        put(number(float(value)))
    else:
        raise NotCanonicalError(f"a {kind.__name__} is no JSON value")


def _write_object(value: dict[Any, Any], put: Callable[[str], object], big: Callable[[int], str], depth: int) -> None:
    names = list(value)
    plain = True
    for name in names:
        if not isinstance(name, str):
            # json would write 1 and "1" as one name.
            raise NotCanonicalError(f"the name of a member is text, not {type(name).__name__}")
        plain = plain and name.isascii()
    # By UTF-16 code units, which is another order than that of code points only beyond the first 65,536 of them.
    names.sort(key=None if plain else _utf16)
    separator = "{"
    for name in names:
        put(separator)
        put(_quoted(name))
        put(":")
        _write(value[name], put, big, depth + 1)
        separator = ","
    put("}" if separator == "," else "{}")


def _utf16(name: str) -> bytes:
    return name.encode("utf-16-be", "surrogatepass")


def number(value: float) -> str:
    """A number as ECMAScript prints it: the shortest digits that read back as the same number."""
    if not math.isfinite(value):
        raise NotCanonicalError(f"{value} is no JSON number")
    if value == 0:
        return "0"
    sign = "-" if value < 0 else ""
    # Python's digits are the shortest as well; only where the point stands and when an exponent is written differ.
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    # The value is 0.DIGITS × 10^point.
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    count = len(digits)
    if 0 < point <= 21:
        return sign + (digits + "0" * (point - count) if count <= point else f"{digits[:point]}.{digits[point:]}")
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    rest = f".{digits[1:]}" if count > 1 else ""
    return f"{sign}{digits[0]}{rest}e{'+' if point > 0 else '-'}{abs(point - 1)}"


def _no_big_integer(value: int) -> str:
    raise NotCanonicalError(f"the integer {value} is beyond ±(2^53 − 1): RFC 8785 has no form for it")


def _big_integer(value: int) -> str:
    return f"{value}n"
