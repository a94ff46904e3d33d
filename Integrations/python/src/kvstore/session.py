"""A session: the record of one conversation or agent run."""

from __future__ import annotations

import ctypes

from . import _abi
from .closing import Closing
from .errors import BadHandleError, Status
from .library import check, library
from .matching import match_flags, match_of
from .prompt import Prompt, as_prompt
from .results import Match
from .sizes import nanoseconds

_COMPUTED_REST = 2**64 - 1


class Session(Closing):
    """What each request of a conversation asked for, found and computed; made by `Namespace.session`.

    For each request: `match` in place of `Namespace.match`, and `step` once the prompt is computed. Threads may share it.
    """

    def __init__(
        self, namespace: int, name: str, tokens_per_block: int, digest_bytes: int = 0, *, store: int = 0
    ) -> None:
        self._store = store
        self._tokens_per_block, self._digest_bytes = tokens_per_block, digest_bytes
        handle, number = _abi.SESSION(), ctypes.c_uint64()
        self._handle: int | None = None
        check(
            library().kvstore_session_begin(
                namespace, _abi.text_without_nul(name.encode(), "the session's name"), ctypes.byref(handle), ctypes.byref(number)
            )
        )
        self._handle = handle.value
        self.id = number.value
        """The number under which `kvstore inspect sessions` shows it."""

    @property
    def handle(self) -> int:
        """The library's handle; raises BadHandleError once the session has ended."""
        if self._handle is None:
            raise BadHandleError(Status.BAD_HANDLE, "the session has ended")
        return self._handle

    def match(
        self,
        prompt: Prompt,
        *,
        peek: bool = False,
        leave_one_token: bool = False,
        lease_seconds: float = 0,
    ) -> Match:
        """`Namespace.match` as the session's next step; with `peek` it is a match and nothing more."""
        found = _abi.Match(struct_size=ctypes.sizeof(_abi.Match))
        status = check(
            library().kvstore_session_match(
                self.handle,
                as_prompt(prompt).argument(self._tokens_per_block, self._digest_bytes),
                match_flags(peek, leave_one_token),
                nanoseconds(lease_seconds),
                ctypes.byref(found),
            )
        )
        return match_of(status, found, self._store)

    def step(self, tokens_computed: int | None = None) -> int | None:
        """Ends the step that `match` began and returns its number, from 1 on; None: no match came before it.

        tokens_computed: what the engine computed of the prompt; None is what was not matched.
        """
        number = ctypes.c_uint64()
        computed = _COMPUTED_REST if tokens_computed is None else _abi.in_range(tokens_computed, "tokens_computed")
        status = check(library().kvstore_session_step(self.handle, computed, ctypes.byref(number)))
        return number.value if status == Status.OK else None

    def touch(self) -> int:
        """Keep-alive of a session that pauses: a use of what is stored of its last prompt; returns its blocks."""
        count = ctypes.c_uint64()
        check(library().kvstore_session_touch(self.handle, ctypes.byref(count)))
        return count.value

    def set_ttl(self, seconds: float) -> int:
        """From now on what is stored of the session's prompt lives for so long after a step or a touch, at least.

        0: no longer than its blocks do by themselves. Returns how many blocks are kept from this moment on.
        """
        count = ctypes.c_uint64()
        check(library().kvstore_session_set_ttl(self.handle, nanoseconds(seconds), ctypes.byref(count)))
        return count.value

    def close(self) -> None:
        """Ends the session; its record stays. A second close does nothing."""
        handle, self._handle = self._handle, None
        if handle is not None:
            check(library().kvstore_session_end(handle))
