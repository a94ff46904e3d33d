"""The commands `kvstore` and `kvstore-llama`, which the wheel carries beside the library."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn


def packaged(name: str) -> Path | None:
    """The program of that name, which has to be started under it: kvstore-llama is both, and goes by its name."""
    folder = Path(__file__).parent / "bin"
    return next((path for path in (folder / name, folder / "kvstore-llama") if path.exists()), None)


def _run(name: str) -> NoReturn:
    program = packaged(name)
    if program is None:
        sys.exit(f"{name}: this package was built without it; Scripts/package says how to make one with it")
    os.execv(program, [name, *sys.argv[1:]])


def kvstore() -> NoReturn:
    """Becomes the command `kvstore`."""
    _run("kvstore")


def kvstore_llama() -> NoReturn:
    """Becomes `kvstore-llama`, the companion of a llama-server."""
    _run("kvstore-llama")
