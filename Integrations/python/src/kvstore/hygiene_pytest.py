"""A pytest plugin: fails a test whose prompts break the prefix.

Enable it with `-p kvstore.hygiene_pytest`, or `pytest_plugins = ["kvstore.hygiene_pytest"]` in a conftest.py:

    def test_the_agent(prefix):
        agent = Agent(send=lambda body: client.post(prefix.sent(body)))
        agent.run("mend the parser")

`prefix.sent` takes the body of a request, keeps a copy, and returns it. At the end of the test the requests are looked at.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import pytest

from . import hygiene

Body = TypeVar("Body", bound=Mapping[str, Any])


class Prefix:
    """The requests of a test, in the order in which they were sent."""

    def __init__(self) -> None:
        self.requests: list[Mapping[str, Any]] = []
        self._allowed: set[str] = set()

    def sent(self, body: Body) -> Body:
        """Takes the body of a request; returns it."""
        self.requests.append(copy.deepcopy(body))
        return body

    def allow(self, *kinds: str) -> None:
        """These kinds of findings are put up with in this test."""
        self._allowed.update(kinds)

    def findings(self) -> list[hygiene.Finding]:
        """What breaks the prefix so far."""
        if len(self.requests) < 2:
            return []
        return [found for found in hygiene.check_log(self.requests) if found.kind not in self._allowed]


@pytest.fixture
def prefix() -> Iterator[Prefix]:
    """Takes the requests of a test, and fails it where they break the prefix."""
    sent = Prefix()
    yield sent
    findings = sent.findings()
    if findings:
        lines = "\n".join(f"  {found}" for found in findings)
        pytest.fail(f"the prompts of this test break their prefix:\n{lines}", pytrace=False)
