"""Sizes and times as people write them."""

from __future__ import annotations

import math
import re
from decimal import Decimal

from ._abi import in_range

_UNITS = {
    "": 1,
    "B": 1,
    # As in the command's sizes.
    "K": 2**10,
    "M": 2**20,
    "G": 2**30,
    "T": 2**40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}


# The largest number of nanoseconds stands for "for ever".
_SECONDS_END = (2**64 - 1) / 1e9


def byte_count(size: int | str) -> int:
    """A byte count from a number or from text such as "64MiB", "200 GB" or "200G" (which is GiB, as in the command)."""
    if isinstance(size, bool) or not isinstance(size, (int, str)):
        raise TypeError(f"a size is a number of bytes or text such as '64MiB', not {size!r}")
    if isinstance(size, int):
        if size < 0:
            raise ValueError(f"a size of {size} bytes")
        return in_range(size, "a size")
    parsed = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", size)
    if not parsed or parsed[2].upper() not in _UNITS:
        raise ValueError(f"not a size: {size!r}; write for example '64MiB' or '200GB'")
    return in_range(round(Decimal(parsed[1]) * _UNITS[parsed[2].upper()]), f"the size {size!r}")


def nanoseconds(seconds: float) -> int:
    """Seconds as the library counts them; refuses what is negative or more than it can count, 584 years.

    0 has a meaning of its own in most calls, and the largest number in some: no other time becomes either.
    """
    if not 0 <= seconds:
        raise ValueError(f"a time of {seconds} seconds")
    if seconds >= _SECONDS_END:
        raise OverflowError(f"a time of {seconds} seconds is more than the library can count; leave it out, "
                            "or where a life is meant, say math.inf")
    return math.ceil(seconds * 1e9) if seconds < 1e-9 else round(seconds * 1e9)
