"""Sizes and times as people write them."""

from __future__ import annotations

import re

_UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}


def byte_count(size: int | str) -> int:
    """A byte count from a number or from text such as "64MiB" or "200 GB"."""
    if isinstance(size, bool) or not isinstance(size, (int, str)):
        raise TypeError(f"a size is a number of bytes or text such as '64MiB', not {size!r}")
    if isinstance(size, int):
        if size < 0:
            raise ValueError(f"a size of {size} bytes")
        return size
    parsed = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", size)
    if not parsed or parsed[2].upper() not in _UNITS:
        raise ValueError(f"not a size: {size!r}; write for example '64MiB' or '200GB'")
    return round(float(parsed[1]) * _UNITS[parsed[2].upper()])


def nanoseconds(seconds: float) -> int:
    """Seconds as the library counts them; refuses what is negative."""
    if seconds < 0:
        raise ValueError(f"a time of {seconds} seconds")
    return round(seconds * 1e9)
