"""The conversations that requests name: their records in the store, and their last prompts."""

from __future__ import annotations

import logging
from collections import OrderedDict

from ..errors import KVStoreError
from ..namespace import Namespace
from ..prompt import Prompt
from ..session import Session
from .metadata import Ending, Rank, Tenant

logger = logging.getLogger("vllm.kvstore")

_SESSIONS_MAX = 1024


class Sessions:
    """Sessions that go on; the one that was used longest ago is forgotten first. One thread calls it."""

    def __init__(self) -> None:
        self._open: OrderedDict[tuple[str, Tenant], Session] = OrderedDict()
        self._last: OrderedDict[tuple[str, Tenant], Ending] = OrderedDict()

    def step(self, name: str, tenant: Tenant, namespaces: dict[Rank, Namespace], prompt: Prompt) -> None:
        """Records a request of a session, in the first rank's namespace; raises KVStoreError."""
        if not namespaces:
            # Nothing was stored yet.
            return
        session = self._open.get((name, tenant))
        if session is None:
            session = self._open[name, tenant] = namespaces[min(namespaces)].session(name)
            if len(self._open) > _SESSIONS_MAX:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end((name, tenant))
        session.match(prompt, leave_one_token=True).release()
        session.step()

    def last(self, name: str, tenant: Tenant, prompt: Ending) -> Ending | None:
        """The prompt, with its answer, that came before this one."""
        before = self._last.pop((name, tenant), None)
        self._last[name, tenant] = prompt
        if len(self._last) > _SESSIONS_MAX:
            self._last.popitem(last=False)
        return before

    def end(self, name: str, tenant: Tenant) -> None:
        """The session is over; its record stays."""
        self._last.pop((name, tenant), None)
        session = self._open.pop((name, tenant), None)
        if session is not None:
            self._close(session)

    def close(self) -> None:
        """Ends all."""
        while self._open:
            self._close(self._open.popitem()[1])

    @staticmethod
    def _close(session: Session) -> None:
        try:
            session.close()
        except KVStoreError as reason:
            logger.warning("kvstore: session: %s", reason)
