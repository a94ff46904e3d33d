"""What the tests of llama.cpp share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder where a sync costs nothing, for hundreds of stores that are opened for their identity alone."""
    folder = tempfile.mkdtemp(prefix="kvstore-llama", dir="/dev/shm" if os.path.isdir("/dev/shm") else tmp_path)
    yield Path(folder)
    shutil.rmtree(folder)
