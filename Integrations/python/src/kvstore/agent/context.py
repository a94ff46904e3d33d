"""Where a call is made: the store, the scope and the run that apply to it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from .scope import Scope

if TYPE_CHECKING:
    from .run import Run
    from .store import AgentStore


class Context:
    """What `with agents.run(…)` or `with agents.scope(…)` sets. Tasks inherit it; threads do not: enter it there again."""

    def __init__(self, agents: AgentStore, scope: Scope, run: Run | None = None, *, fresh: bool = False) -> None:
        self.agents, self.scope, self.run, self.fresh = agents, scope, run, fresh


current: ContextVar[Context | None] = ContextVar("kvstore.agent", default=None)
