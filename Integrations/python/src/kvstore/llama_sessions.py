"""What a client of llama-cpp-python knows of a conversation, for kvstore.llama_cpp.

The server takes hints in a request's headers, as kvstore-llama does; a program sets `KVStoreCache.hints` before it completes.
"""

from __future__ import annotations

import contextvars
import logging
from array import array
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from .errors import KVStoreError
from .hints import Hints
from .namespace import Namespace
from .prompt import Prompt
from .session import Session

logger = logging.getLogger(__name__)

of_request: contextvars.ContextVar[Hints | None] = contextvars.ContextVar("kvstore_hints", default=None)
"""Those of the request that the server is working on."""

_SESSIONS_MAX = 1024
_PREFIX = b"x-kvstore-"
_HEADERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "session": ("session", str),
    "ttl": ("ttl_seconds", float),
    "priority": ("priority", int),
    "pin": ("pin_seconds", float),
    "end": ("end", lambda text: text == "1"),
    "compacted": ("compacted", lambda text: text == "1"),
}

Application = Callable[[Any, Any, Any], Awaitable[None]]


class HintsFromHeaders:
    """An ASGI application around the server's: notes what a request's headers say."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        # Each request is a task of its own, and threads that work for it see its context.
        of_request.set(hints_of(scope.get("headers", ())) if scope["type"] == "http" else None)
        await self._application(scope, receive, send)


def hints_of(headers: Iterable[tuple[bytes, bytes]]) -> Hints | None:
    """Reads `x-kvstore-session`, `-ttl`, `-priority`, `-pin`, `-end: 1` and `-compacted: 1`; what makes no sense is ignored."""
    given: dict[str, Any] = {}
    for name, value in headers:
        field = _HEADERS.get(name.lower().removeprefix(_PREFIX).decode("latin-1")) if name.lower().startswith(_PREFIX) else None
        if field is not None:
            try:
                given[field[0]] = field[1](value.decode("latin-1").strip())
            except ValueError:
                logger.warning("kvstore: a request's header %s makes no sense, and is ignored", name.decode("latin-1"))
    return Hints.read(given) if given else None


class Conversations:
    """The sessions of one context. Belongs to the thread that has the context."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, tuple[Namespace, Session]] = OrderedDict()
        self._last: OrderedDict[str, array[int]] = OrderedDict()

    def asked(self, namespace: Namespace, hints: Hints, prompt: Prompt, computed: int) -> None:
        """Records a request, of which so many tokens are computed, as its session's next step; raises KVStoreError."""
        space, session = self._open.pop(hints.session, (None, None))
        if session is None or space is not namespace:
            # Another adapter is another namespace.
            session = namespace.session(hints.session)
        self._open[hints.session] = (namespace, session)
        if len(self._open) > _SESSIONS_MAX:
            self._open.popitem(last=False)[1][1].close()
        session.match(prompt, leave_one_token=True).release()
        session.step(computed)

    def answered(self, namespace: Namespace, hints: Hints, tokens: array[int]) -> None:
        """Does what hints say of a request whose blocks are stored; raises KVStoreError."""
        before = self._last.pop(hints.session, None) if hints.session else None
        if hints.pin_seconds:
            namespace.pin(Prompt(tokens), hints.pin_seconds)
        if hints.compacted and before is not None:
            namespace.purge(Prompt(before), only_tail=True)
        if hints.end:
            namespace.purge(Prompt(tokens), only_tail=True)
            _, session = self._open.pop(hints.session, (None, None))
            if session is not None:
                session.close()
        elif hints.session:
            self._last[hints.session] = tokens
            if len(self._last) > _SESSIONS_MAX:
                self._last.popitem(last=False)

    def close(self) -> None:
        """Ends all sessions; their records stay."""
        while self._open:
            try:
                self._open.popitem()[1][1].close()
            except KVStoreError as reason:
                logger.warning("kvstore: session: %s", reason)
