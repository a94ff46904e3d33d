"""What clients of SGLang say of their conversations: hints of a request, and sessions that are closed.

    "kv_hints": {"protocol_version": "1", "message_id": "17", "actions": [{"action_id": "1", "action_type": "kvstore",
      "action_version": "1", "payload": {"session": "run 17", "ttl_seconds": 3600}}]}

SGLang 0.5.23 keeps both in its scheduler, and hands its storage keys of pages alone. So calls of the scheduler are watched: a
request arrives, a request's KV is given back, a session is closed.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
import weakref
from array import array
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

from .hints import Hints
from .namespace import Namespace
from .prompt import Prompt
from .session import Session

logger = logging.getLogger(__name__)

ACTION = "kvstore"
"""The type of the action that is read, in its version 1."""

_SESSIONS_MAX = 1024
_KEYS_MAX = 1 << 16
_WAIT_SECONDS = 10.0
_POLL_SECONDS = 0.05

_MODULES = {
    "managers.scheduler": "Scheduler",
    "mem_cache.unified_radix_cache": "UnifiedRadixCache",
    "session.session_controller": "SessionController",
}

Name = tuple[bool, str, str, str]
"""Whether it is SGLang's own id; the name; extra key and salt: another tenant's session of that name is another one."""


class Backend(Protocol):
    """What the storage does for its conversations."""

    def chain(self, keys: list[str]) -> Prompt:
        """The pages' keys as a prompt."""

    def attempt_chained(self, what: str, work: Callable[[Namespace], Any]) -> Any:
        """Does something with the namespace of pages that follow each other; a failure is logged."""


class Conversations:
    """Sessions, and what becomes of their pages.

    SGLang's scheduler calls `arrived`, `finished` and `closed`, which take no time; what they ask of the store is done by a
    thread. SGLang writes pages behind a request's end, so that an end stays in force: what is saved of it later goes as well.
    """

    def __init__(self, backend: Backend, page_size: int, *, records: bool) -> None:
        self._backend, self._page_size, self._records = backend, page_size, records
        self._lock = threading.Lock()
        self._wishes: OrderedDict[str, dict[str, Any]] = OrderedDict()
        """By page: with what it is stored."""
        self._ended: OrderedDict[str, list[str]] = OrderedDict()
        """By page: the conversation that is over, whole."""
        self._last: OrderedDict[Name, list[str]] = OrderedDict()
        """The pages of each session's last request."""
        self._closed: OrderedDict[str, None] = OrderedDict()
        self._open: OrderedDict[Name, Session] = OrderedDict()
        """The thread's own."""
        self._work: queue.Queue[Callable[[], None] | None] = queue.Queue(4096)
        self._thread = threading.Thread(target=self._run, name="kvstore-sglang-sessions", daemon=True)
        self._thread.start()
        _watch()
        _all.add(self)

    # ------------------------------------------------------------ the scheduler's thread

    def arrived(self, request: Any) -> None:
        """A request is queued: its pages' wishes, and a step of its session."""
        hints, name = _hints_of(request), _name_of(request)
        if name is None and not hints.of_blocks:
            return
        keys = self._keys(request, request.origin_input_ids)
        self._wish(keys, hints)
        if name is not None and keys and self._records:
            self._do(lambda: self._step(name, keys))

    def finished(self, request: Any) -> None:
        """A request's KV is given back, and its pages are about to be stored."""
        hints, name = _hints_of(request), _name_of(request)
        if name is None and hints == Hints():
            return
        keys = self._keys(request, [*request.origin_input_ids, *request.output_ids])
        self._wish(keys, hints)
        with self._lock:
            before = self._last.pop(name, None) if name is not None else None
            over = hints.end or (name is not None and name[0] and name[1] in self._closed)
            if name is not None and not over:
                self._last[name] = keys
                if len(self._last) > _SESSIONS_MAX:
                    self._last.popitem(last=False)
        if hints.pin_seconds:
            deadline = time.monotonic() + _WAIT_SECONDS
            self._do(lambda: self._pin(keys, hints.pin_seconds, deadline))
        if hints.compacted and before is not None:
            self._end(before)
        if over:
            self._end(keys)
            if name is not None:
                self._do(lambda: self._close(name))

    def closed(self, session: str) -> None:
        """SGLang was told that a session of its own is over; a request of it that still runs ends with it."""
        with self._lock:
            self._closed[session] = None
            if len(self._closed) > _SESSIONS_MAX:
                self._closed.popitem(last=False)
            over = [(name, keys) for name, keys in self._last.items() if name[0] and name[1] == session]
            for name, _ in over:
                del self._last[name]
        for name, keys in over:
            self._end(keys)
            self._do(lambda name=name: self._close(name))

    # ------------------------------------------------------------ the storage's threads

    def looked_up(self, keys: list[str]) -> None:
        """A request wants these pages: a conversation that goes on with them is not over."""
        if self._ended:
            with self._lock:
                for key in keys:
                    self._ended.pop(key, None)

    def wishes(self, keys: list[str]) -> dict[str, Any]:
        """With what these pages are stored."""
        with self._lock:
            return self._wishes.get(keys[-1], {})

    def saved(self, keys: list[str]) -> None:
        """Pages were stored: of a conversation that is over they go at once."""
        with self._lock:
            ended = self._ended.get(keys[-1])
        if ended is not None:
            self._do(lambda: self._remove(ended))

    def close(self) -> None:
        """Ends all sessions, once what was asked for is done."""
        _all.discard(self)
        self._work.put(None)
        self._thread.join(30)

    # ------------------------------------------------------------ private

    def _keys(self, request: Any, tokens: Any) -> list[str]:
        """SGLang's keys of the whole pages."""
        from sglang.srt.mem_cache.radix_cache import RadixKey
        from sglang.srt.mem_cache.utils import get_storage_hash_str

        whole = len(tokens) // self._page_size * self._page_size
        key = RadixKey(array("q", tokens[:whole]), extra_key=request.extra_key, cache_salt=request.cache_salt)
        return list(get_storage_hash_str(key, None, page_size=self._page_size)) if whole else []

    def _wish(self, keys: list[str], hints: Hints) -> None:
        if told := hints.of_blocks:
            with self._lock:
                self._wishes.update(dict.fromkeys(keys, told))
                while len(self._wishes) > _KEYS_MAX:
                    self._wishes.popitem(last=False)

    def _end(self, keys: list[str]) -> None:
        with self._lock:
            self._ended.update(dict.fromkeys(keys, keys))
            while len(self._ended) > _KEYS_MAX:
                self._ended.popitem(last=False)
        self._do(lambda: self._remove(keys))

    def _do(self, work: Callable[[], None]) -> None:
        try:
            self._work.put_nowait(work)
        except queue.Full:
            logger.warning("kvstore: too many sessions at once; what one of them asked for is left out")

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                work()
            except Exception:
                logger.exception("kvstore: session failed")
        for name in list(self._open):
            self._close(name)

    def _step(self, name: Name, keys: list[str]) -> None:
        def step(namespace: Namespace) -> None:
            session = self._open.get(name)
            if session is None:
                session = self._open[name] = namespace.session(name[1])
                if len(self._open) > _SESSIONS_MAX:
                    self._open.popitem(last=False)[1].close()
            self._open.move_to_end(name)
            session.match(self._backend.chain(keys), leave_one_token=True).release()
            session.step()

        self._backend.attempt_chained("session", step)

    def _close(self, name: Name) -> None:
        session = self._open.pop(name, None)
        if session is not None:
            self._backend.attempt_chained("session", lambda _: session.close())

    def _remove(self, keys: list[str]) -> None:
        if keys:
            prompt = self._backend.chain(keys)
            self._backend.attempt_chained("end of a session", lambda namespace: namespace.purge(prompt, only_tail=True))

    def _pin(self, keys: list[str], seconds: float, deadline: float) -> None:
        """Pins what is stored of the pages, once they are, or after a while."""
        prompt = self._backend.chain(keys)

        def pin(namespace: Namespace) -> bool:
            if namespace.match(prompt, peek=True).blocks < len(keys) and time.monotonic() < deadline:
                return False
            namespace.pin(prompt, seconds)
            return True

        if self._backend.attempt_chained("pin", pin) is False:
            # Others first; it is tried again behind them.
            time.sleep(_POLL_SECONDS)
            self._do(lambda: self._pin(keys, seconds, deadline))


_all: weakref.WeakSet[Conversations] = weakref.WeakSet()
_watched: list[type] = []


def _hints_of(request: Any) -> Hints:
    envelope = getattr(request, "kv_hints", None)
    for action in envelope.actions if envelope is not None else ():
        if action.action_type == ACTION and action.action_version == "1":
            return Hints.read(action.payload)
    return Hints()


def _name_of(request: Any) -> Name | None:
    """The session that hints name, or else SGLang's."""
    tenant = request.extra_key or "", request.cache_salt or ""
    if given := _hints_of(request).session:
        return False, given, *tenant
    session = getattr(request, "session", None)
    own = session.session_id if session is not None else getattr(request, "session_id", None)
    return (True, own, *tenant) if own else None


def _tell(what: str, argument: Any) -> None:
    for conversations in list(_all):
        try:
            getattr(conversations, what)(argument)
        except Exception:
            # A hint is no reason to end the engine.
            logger.exception("kvstore: session failed")


def _watch() -> None:
    """Has this process's scheduler tell all conversations; where it lacks a call, there are no hints."""
    modules = [sys.modules.get(f"sglang.srt.{name}") for name in _MODULES]
    if not all(modules):
        # No scheduler is here.
        return
    try:
        scheduler, cache, sessions = (getattr(module, name) for module, name in zip(modules, _MODULES.values(), strict=True))
        if scheduler in _watched:
            return
        prefetch, release = scheduler._prefetch_kvcache, cache.claim_kv_row
        # The one may be in a table already when this is called, and the other is not called for all sessions.
        closings = [(scheduler, "close_session", scheduler.close_session), (sessions, "close", sessions.close)]
    except AttributeError as missing:
        logger.warning("kvstore: this version of SGLang tells of no sessions: %s", missing)
        return

    def arrived(self: Any, req: Any, *arguments: Any, **named: Any) -> Any:
        if not getattr(req, "_kvstore_has_arrived", False):
            req._kvstore_has_arrived = True
            _tell("arrived", req)
        return prefetch(self, req, *arguments, **named)

    def finished(self: Any, req: Any) -> Any:
        if req.finished():
            _tell("finished", req)
        return release(self, req)

    def and_tell(close: Callable[..., Any]) -> Callable[..., Any]:
        def closed(self: Any, recv_req: Any) -> Any:
            done = close(self, recv_req)
            _tell("closed", recv_req.session_id)
            return done

        return closed

    scheduler._prefetch_kvcache, cache.claim_kv_row = arrived, finished
    for owner, name, close in closings:
        setattr(owner, name, and_tell(close))
    _watched.append(scheduler)
