"""Damages a store on disk."""

from __future__ import annotations

from pathlib import Path


def flip(folder: Path) -> int:
    """Flips a bit in each 4 KiB of what the slots hold; returns how many."""
    count = 0
    for file in (folder / "slots").iterdir():
        content = file.read_bytes()
        with file.open("r+b") as opened:
            for at in range(5000, len(content), 4096):
                if content[at]:
                    opened.seek(at)
                    opened.write(bytes([content[at] ^ 1]))
                    count += 1
    return count
