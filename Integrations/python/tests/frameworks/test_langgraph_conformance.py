"""LangGraph's own tests of checkpoint savers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

pytest.importorskip("langgraph.checkpoint.conformance", reason="langgraph-checkpoint-conformance is not installed")

from langgraph.checkpoint.conformance import checkpointer_test, validate  # noqa: E402

from kvstore.agent import AgentStore  # noqa: E402
from kvstore.langgraph import KVStoreSaver  # noqa: E402


@pytest.mark.parametrize("ttl", [None, "1h"])
def test_the_conformance_suite_passes_whole(agents: AgentStore, ttl: str | None) -> None:
    users = iter(range(1000))

    @checkpointer_test(name="KVStoreSaver")
    async def saver() -> AsyncGenerator[KVStoreSaver, None]:
        yield KVStoreSaver(agents, user=f"user {next(users)}", ttl=ttl)

    report = asyncio.run(validate(saver)).to_dict()
    assert len(report["results"]) == 8
    for name, result in report["results"].items():
        assert result["detected"], name
        assert result["failures"] == [], name
        assert result["passed"] and result["tests_passed"] > 0 and result["tests_skipped"] == 0, name
