"""The commands `kvstore` and `kvstore-llama`, which the wheel carries beside the library."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn


def _run(name: str, *programs: str) -> NoReturn:
    """Becomes the first of the programs that is here, under the name, which is what it goes by."""
    paths = [Path(__file__).parent / "bin" / program for program in programs]
    program = next((path for path in paths if path.exists()), None)
    if program is None:
        sys.exit(f"{name}: this package was built without it; Scripts/package says how to make one with it")
    os.execv(program, [name, *sys.argv[1:]])


def kvstore() -> NoReturn:
    """Becomes the command `kvstore`."""
    _run("kvstore", "kvstore", "kvstore-llama")


def kvstore_llama() -> NoReturn:
    """Becomes `kvstore-llama`, the companion of a llama-server."""
    _run("kvstore-llama", "kvstore-llama")
