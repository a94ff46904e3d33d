"""What the tests share: the installed library, small stores, and payloads that say which block they are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
PREFIX = Path(os.environ.get("KVSTORE_PREFIX") or ROOT / ".build-install")
HEADER = ROOT / "Sources/CKVStore/include/kvstore.h"

if os.environ.get("KVSTORE_TEST_WHEEL") != "1":
    os.environ.setdefault("KVSTORE_LIBRARY", str(PREFIX / "lib/libkvstore.so.0"))

import kvstore  # noqa: E402
from kvstore.agent import AgentStore  # noqa: E402

TOKENS_PER_BLOCK = 16
REGION_BYTES = (24_576, 32_768)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


def open_store(path: Path, **options: object) -> kvstore.Store:
    return kvstore.Store(path, **{"capacity": "128MiB", "host": "16MiB", **options})  # type: ignore[arg-type]


def identity(**fields: object) -> kvstore.Identity:
    defaults = {"model_name": "test", "tokens_per_block": TOKENS_PER_BLOCK, "region_bytes": REGION_BYTES}
    return kvstore.Identity(**{**defaults, **fields})  # type: ignore[arg-type]


def payload(block: int, region: int, *, seed: int = 0) -> bytes:
    unit = bytes((seed * 97 + block * 31 + region * 7 + index) & 0xFF for index in range(251))
    size = REGION_BYTES[region]
    return (unit * (size // len(unit) + 1))[:size]


def payloads(blocks: range, *, seed: int = 0) -> list[bytes]:
    return [payload(block, region, seed=seed) for block in blocks for region in range(len(REGION_BYTES))]


def empty(blocks: int) -> list[bytearray]:
    return [bytearray(size) for _ in range(blocks) for size in REGION_BYTES]


@pytest.fixture
def store(path: Path) -> Iterator[kvstore.Store]:
    with open_store(path) as opened:
        yield opened


@pytest.fixture
def namespace(store: kvstore.Store) -> kvstore.Namespace:
    return store.namespace(identity())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MiB; needs the right to mount one."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "kvstore-test", str(path)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a file system: {mounted.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
def agents(path: Path) -> Iterator[AgentStore]:
    with open_store(path) as opened, AgentStore(opened) as records:
        yield records


def environment() -> dict[str, str]:
    """Of a Python program that uses the same package and library."""
    values = dict(os.environ, PYTHONDONTWRITEBYTECODE="1")
    if values.get("KVSTORE_TEST_WHEEL") != "1":
        values["PYTHONPATH"] = str(ROOT / "Integrations/python/src")
    return values


def started(program: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """A Python program in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def ran(program: str, *arguments: object) -> str:
    """What such a program printed."""
    process = started(program, *arguments)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return output
