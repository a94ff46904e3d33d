"""The commands that docs/engines tells people to run, taken from the pages, so that a test can run them as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

PAGES = Path(__file__).resolve().parents[3] / "docs/engines"


def commands(page: str) -> list[list[str]]:
    """All commands of a page's sh blocks, as the shell would split them; `VAR=value` in front is left out."""
    found = []
    for text in lines(page):
        words = shlex.split(text.replace("\\\n", " "), comments=True)
        while words and "=" in words[0] and words[0].split("=")[0].isupper():
            words = words[1:]
        if words:
            found.append(words)
    return found


def lines(page: str) -> list[str]:
    """The same, as they are written."""
    found: list[str] = []
    waiting: list[str] = []
    in_block = False
    for line in (PAGES / page).read_text().splitlines():
        if line.startswith("```"):
            assert not waiting, f"{page}: a command that does not end: {waiting}"
            in_block = line == "```sh"
            continue
        if not in_block or not (line.strip() or waiting):
            continue
        waiting.append(line)
        text = "\n".join(waiting)
        if text.endswith("\\"):
            continue
        try:
            words = shlex.split(text.replace("\\\n", " "), comments=True)
        except ValueError:
            # A quotation goes on.
            continue
        waiting = []
        if words:
            found.append(text)
    return found


def command(page: str, begins: str, places: dict[str, str]) -> list[str]:
    """The page's command that begins so, with its placeholders (a model, a folder, a port) replaced wherever they stand."""
    (words,) = [words for words in commands(page) if " ".join(words).startswith(begins)]
    for name, value in places.items():
        assert any(name in word for word in words), f"{page}: {name} is not in {words}"
        words = [word.replace(name, value) for word in words]
    return words


def others(page: str, *begins: str) -> list[str]:
    """The page's commands that begin with none of these: what no test runs."""
    lines = [" ".join(words) for words in commands(page)]
    return [line for line in lines if not line.startswith(begins)]


def program(page: str) -> str:
    """The page's only block of Python."""
    (text,) = re.findall(r"^```python\n(.*?)^```$", (PAGES / page).read_text(), re.DOTALL | re.MULTILINE)
    return str(text)
