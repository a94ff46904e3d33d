"""A Redis or Valkey server for the engines' tests: what Tests/remote has."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "Tests/remote"))
import proxy  # noqa: E402
import servers  # noqa: E402

Proxy, wait_for = proxy.Proxy, servers.wait_for


@pytest.fixture
def server() -> Iterator[Any]:
    """One server, ended with the test."""
    programs = servers.programs()
    if not programs:
        pytest.skip("neither redis-server nor valkey-server can be had")
    with servers.Servers() as started:
        yield started.server(next(iter(programs.values())))


def objects(server: Any) -> int:
    """Of a store's: chunks, and a record for each namespace."""
    return int(server.do("DBSIZE"))


def wait_for_objects(server: Any, count: int) -> None:
    """Until so many are there."""
    wait_for(lambda: objects(server) >= count, f"{count} objects on the server")
