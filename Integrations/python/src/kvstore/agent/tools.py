"""Results of tools, kept until they are too old or something that they depend on is written."""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from .. import KVStoreError
from . import context
from .blocks import UNAVAILABLE, Entry, TooLargeError, encoded
from .canonical import NotCanonicalError, digest
from .equivalence import canonical_arguments, check_schema
from .histories import READ_SECONDS_MAX
from .scope import Level, Scope, seconds

if TYPE_CHECKING:
    from .run import Run
    from .store import AgentStore

P = ParamSpec("P")
R = TypeVar("R")

_ARGUMENT_BYTES_MAX = 2_000


@dataclass(frozen=True, slots=True)
class ToolRule:
    """How the results of one tool are kept."""

    name: str
    ttl_seconds: float | None = 1800.0
    scope: Level = "user"
    version: str = ""
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    stale_seconds: float = 0.0
    """So long after its life a result may still answer, where the tool fails."""
    error_seconds: float = 0.0
    """So long an error is kept and raised again; 0: not at all."""
    once: bool = False
    bypass: bool = False
    """Neither answered nor stored."""


@dataclass(frozen=True, slots=True)
class _Tool:
    rule: ToolRule
    signature: inspect.Signature | None
    schema: Mapping[str, Any] | None
    normalise: Callable[[dict[str, Any]], Any] | None
    verify: Callable[[Any, Any], bool] | None
    encode: Callable[[Any], Any] | None
    decode: Callable[[Any], Any] | None
    agents: AgentStore | None


@dataclass(slots=True)
class Answer:
    """How the last tool call of this task or thread was answered."""

    outcome: str = ""
    """hit, stored, stale, forced, bypassed, recorded …"""
    stale: bool = False
    """The tool failed, and this is what it returned when it last did not."""
    age: float | None = None
    source: str = ""
    """The run that stored it."""
    key: str = ""


_last: ContextVar[Answer] = ContextVar("kvstore.agent.answer")


def set_last_answer(answer: Answer) -> None:
    """Notes how an answer came to be."""
    _last.set(answer)


def last_answer() -> Answer:
    """How the last tool or answer of this task or thread came to be."""
    return _last.get(Answer())


class RecordedToolError(RuntimeError):
    """An error of a tool that was kept (`errors=`), and is raised again."""


def tool_cache(
    *,
    ttl: float | str | None = "30m",
    scope: Level = "user",
    version: str = "",
    reads: Sequence[str] = (),
    writes: Sequence[str] = (),
    name: str | None = None,
    schema: Mapping[str, Any] | None = None,
    normalise: Callable[[dict[str, Any]], Any] | None = None,
    verify: Callable[[Any, Any], bool] | None = None,
    stale: float | str | None = None,
    errors: float | str | None = None,
    once: bool = False,
    encode: Callable[[Any], Any] | None = None,
    decode: Callable[[Any], Any] | None = None,
    agents: AgentStore | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Keeps what a tool returns; of a coroutine function as well.

    Two calls are one if their arguments are the same in canonical form: by name, defaults filled in, in the form of `schema` (the tool's
    JSON schema, see `kvstore.agent.equivalence`), as `normalise` makes them of that; and if `verify(now, then)`, given the arguments of
    both calls, says so. `reads` and `writes` name what the tool depends on and what it changes: a tool that writes is always called, ends
    what was read of the same names, and within a run is a step. `stale`: so long after its life a result answers if the tool fails;
    `last_answer().stale` says so. `errors`: so long an error is kept.
    """
    if scope not in ("run", "session", "user", "global"):
        raise ValueError(f"a scope is run, session, user or global, not {scope!r}")
    for names, what in ((reads, "reads"), (writes, "writes")):
        if isinstance(names, str):
            raise TypeError(f"{what} is a list of names, for example [{names!r}]")
    if schema is not None:
        check_schema(schema)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        rule = ToolRule(
            name=name or function.__qualname__,
            ttl_seconds=seconds(ttl),
            scope=scope,
            version=version,
            reads=tuple(reads),
            writes=tuple(writes),
            stale_seconds=seconds(stale) or 0.0,
            error_seconds=seconds(errors) or 0.0,
            once=once,
        )
        tool = _Tool(rule, inspect.signature(function), schema, normalise, verify, encode, decode, agents)
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def call_async(*arguments: Any, **named: Any) -> Any:
                return await _called_async(tool, cast(Callable[..., Awaitable[Any]], function), arguments, named)

            wrapped: Any = call_async
        else:

            @functools.wraps(function)
            def call(*arguments: Any, **named: Any) -> Any:
                return _called(tool, function, arguments, named)

            wrapped = call
        wrapped.tool = tool
        return cast("Callable[P, R]", wrapped)

    return decorate


class _Lookup:
    """One call: its key, and what the store has of it."""

    def __init__(self, tool: _Tool, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        now = context.current.get()
        agents = tool.agents or (now.agents if now else None)
        self.tool, self.run = tool, (now.run if now and now.agents is agents else None)
        self.fresh = bool(now and now.fresh)
        self.scope = now.scope if now and now.agents is agents else Scope()
        self.rule = tool.rule
        self.agents = agents
        self.bypass = ""
        self.missing_since = ""
        self.states: list[list[str]] | None = []
        self.path = b""
        self.call = ""
        self.original: Any = None
        if agents is None:
            return
        self.rule = agents.policies.tool(tool.rule)
        assert tool.signature is not None
        bound = tool.signature.bind(*arguments, **named)
        bound.apply_defaults()
        given: dict[str, Any] = {}
        for parameter in tool.signature.parameters.values():
            if parameter.name not in bound.arguments:
                continue
            value = bound.arguments[parameter.name]
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                given.update(value)
            else:
                given[parameter.name] = list(value) if parameter.kind is inspect.Parameter.VAR_POSITIONAL else value
        self.original = given
        form: Any = canonical_arguments(given, {"type": "object", **tool.schema}) if tool.schema is not None else given
        if tool.normalise is not None:
            form = tool.normalise(form)
        self.asked = {"tool": self.rule.name, "version": self.rule.version, "arguments": form}
        try:
            digest(self.asked)
        except NotCanonicalError as reason:
            raise TypeError(
                f"the arguments of tool {self.rule.name!r} are no JSON ({reason}): give a `normalise` that makes them so"
            ) from None
        if self.rule.bypass:
            self.bypass = "policy"

    @property
    def store(self) -> AgentStore:
        assert self.agents is not None
        return self.agents

    def look(self) -> None:
        """Finds out by what the result is to be found."""
        try:
            self.states = self.store.histories.state(self.scope, self.rule.scope, self.rule.reads) if self.rule.reads else []
        except UNAVAILABLE:
            self.bypass = "the store cannot be read"
            return
        if self.states is None:
            self.bypass = "a write is under way"
            return
        self.path = digest(
            {
                "kvstore.agent": "tool",
                "scope": self.scope.key(self.rule.scope),
                "reads": self.states,
                **self.asked,
            }
        )

    def found(self) -> Entry | None:
        """What is stored, whether fresh or stale."""
        if self.bypass or self.fresh:
            return None
        try:
            entry = self.store.blocks(self.scope.owner(self.rule.scope)).get(self.path)
        except UNAVAILABLE:
            # A disk that fails costs a call, not an error.
            return None
        if entry is not None and self.tool.verify is not None:
            then = entry.meta.get("arguments")
            if then is None or not self.tool.verify(self.original, then):
                self.store.metrics.count("tool", self.rule.name, "refused")
                return None
        return entry

    def explain(self, old: Entry | None) -> None:
        """Finds out, for the log, why there is no result."""
        if old is not None:
            self.missing_since = "expired"
        elif self.run is not None and not self.bypass and not self.fresh:
            self.missing_since = self.store.blocks(self.scope.owner(self.rule.scope)).why_not(self.path)

    def is_fresh(self, entry: Entry) -> bool:
        return entry.fresh_until is None or time.time() <= entry.fresh_until

    def answer(self, entry: Entry, outcome: str) -> Any:
        """Returns, or raises, what was stored."""
        age = max(0.0, time.time() - entry.stored)
        source = str(entry.meta.get("run", ""))
        _last.set(Answer(outcome, outcome == "stale", age, source, self.path.hex()))
        self.store.metrics.count("tool", self.rule.name, outcome)
        if outcome == "hit":
            self.store.metrics.save("tool", self.rule.name, seconds=entry.meta.get("seconds", 0))
        if "error" in entry.meta:
            self.note(outcome, age=age, source=source, reason=entry.meta["error"], took=entry.meta.get("seconds"))
            raise RecordedToolError(entry.meta["error"])
        value = entry.value
        self.note(outcome, age=age, source=source, answer=(entry.content, entry.kind), took=entry.meta.get("seconds"))
        return self.tool.decode(value) if self.tool.decode else value

    def note(self, outcome: str, **rest: Any) -> None:
        if self.run is not None:
            self.run.note_call(
                "tool", outcome, self.rule.name, call=self.call, key=self.path, version=self.rule.version, asked=self.asked, **rest
            )

    def store_result(self, result: Any, took: float) -> Any:
        """Keeps what the tool returned, and returns it as it will be returned later."""
        content, kind = encoded(self.tool.encode(result) if self.tool.encode else result)
        outcome = "bypassed" if self.bypass else "forced" if self.fresh else "stored"
        if not self.bypass:
            outcome = self._put(Entry(content, kind, self._meta(took)), self.rule.ttl_seconds, outcome)
        _last.set(Answer(outcome, False, 0.0, self.run.id if self.run else "", self.path.hex()))
        self.store.metrics.count("tool", self.rule.name, outcome, self.bypass or self.missing_since)
        self.note(outcome, reason=self.bypass or self.missing_since, answer=(content, kind), took=took)
        value = Entry(content, kind).value
        return self.tool.decode(value) if self.tool.decode else value

    def _meta(self, took: float) -> dict[str, Any]:
        meta: dict[str, Any] = {"tool": self.rule.name[:200], "version": self.rule.version[:100], "seconds": round(took, 6)}
        if self.run is not None:
            meta["run"] = self.run.id[:200]
        if self.tool.verify is not None:
            try:
                if len(encoded(self.original)[0]) <= _ARGUMENT_BYTES_MAX:
                    meta["arguments"] = self.original
            except TypeError:
                pass
        return meta

    def _put(self, entry: Entry, ttl: float | None, outcome: str) -> str:
        if self.rule.reads:
            # Written meanwhile: what was read may be of before or of after.
            if self.store.histories.state(self.scope, self.rule.scope, self.rule.reads) != self.states:
                return "written meanwhile"
            ttl = min(ttl or READ_SECONDS_MAX, READ_SECONDS_MAX)
        life = None if ttl is None else ttl + self.rule.stale_seconds
        if life is not None and self.rule.reads:
            life = min(life, READ_SECONDS_MAX)
        now = time.time()
        blocks = self.store.blocks(self.scope.owner(self.rule.scope))
        try:
            if blocks.peek(self.path):
                blocks.forget(self.path)
            stored = blocks.put(
                self.path,
                Entry(entry.content, entry.kind, entry.meta, now, None if ttl is None else now + ttl),
                ttl_seconds=life,
            )
            # Other processes that wait for it find it only then.
            self.store.store.flush()
        except TooLargeError:
            return "too large"
        except KVStoreError:
            # What cannot be kept is returned all the same.
            return "refused"
        return outcome if stored else "refused"

    def failed(self, error: Exception, old: Entry | None, took: float) -> Any:
        """Returns the last good result where that may be, and else raises the error."""
        reason = f"{type(error).__name__}: {error}"
        if old is not None and "error" not in old.meta and self.rule.stale_seconds:
            return self.answer(old, "stale")
        if self.rule.error_seconds and not self.bypass:
            self._put(Entry(b"", 0, {**self._meta(took), "error": reason[:1000]}), self.rule.error_seconds, "")
        self.store.metrics.count("tool", self.rule.name, "failed")
        self.note("failed", reason=reason)
        raise error

    def recorded(self) -> tuple[Any] | None:
        """What the call was answered before the run's process ended, or when the run was recorded that is replayed."""
        if self.run is None:
            return None
        self.call = self.run.recorder.call(self.rule.name)
        if self.fresh and not self.run.is_replay:
            return None
        event = self.run.recorder.answered("tool", self.call, self.asked)
        if event is None:
            return None
        self.store.metrics.count("tool", self.rule.name, "recorded")
        _last.set(Answer("recorded", event.outcome == "stale", max(0.0, time.time() - event.time), self.run.id, event.key))
        self.store.metrics.save("tool", self.rule.name, seconds=event.seconds or 0)
        self.note("recorded", age=max(0.0, time.time() - event.time), source=self.run.id, took=event.seconds)
        return (self.tool.decode(event.value) if self.tool.decode else event.value,)


def _called(tool: _Tool, function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    lookup = _Lookup(tool, arguments, named)
    if lookup.agents is None:
        return function(*arguments, **named)
    if lookup.rule.writes:
        return _write(lookup, lambda: function(*arguments, **named))
    recorded = lookup.recorded()
    if recorded is not None:
        return recorded[0]
    lookup.look()
    entry = lookup.found()
    if entry is not None and lookup.is_fresh(entry):
        return lookup.answer(entry, "hit")
    if lookup.bypass:
        return _compute(lookup, function, arguments, named, None)
    with lookup.store.claims.hold(lookup.path, lookup.store.claim_seconds):
        # Who waited finds what the other has stored; where that failed, or took too long, it is called once more.
        entry = lookup.found()
        if entry is not None and lookup.is_fresh(entry):
            return lookup.answer(entry, "hit")
        lookup.explain(entry)
        return _compute(lookup, function, arguments, named, entry)


def _compute(
    lookup: _Lookup, function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any], old: Entry | None
) -> Any:
    began = time.monotonic()
    try:
        result = function(*arguments, **named)
    except Exception as error:
        return lookup.failed(error, old, time.monotonic() - began)
    return lookup.store_result(result, time.monotonic() - began)


async def _called_async(
    tool: _Tool, function: Callable[..., Awaitable[Any]], arguments: tuple[Any, ...], named: dict[str, Any]
) -> Any:
    lookup = _Lookup(tool, arguments, named)
    if lookup.agents is None:
        return await function(*arguments, **named)
    if lookup.rule.writes:
        return await _write_async(lookup, lambda: function(*arguments, **named))
    recorded = lookup.recorded()
    if recorded is not None:
        return recorded[0]
    lookup.look()
    entry = lookup.found()
    if entry is not None and lookup.is_fresh(entry):
        return lookup.answer(entry, "hit")
    if lookup.bypass:
        return await _compute_async(lookup, function, arguments, named, None)
    async with lookup.store.claims.hold_async(lookup.path, lookup.store.claim_seconds):
        entry = lookup.found()
        if entry is not None and lookup.is_fresh(entry):
            return lookup.answer(entry, "hit")
        lookup.explain(entry)
        return await _compute_async(lookup, function, arguments, named, entry)


async def _compute_async(
    lookup: _Lookup, function: Callable[..., Awaitable[Any]], arguments: tuple[Any, ...], named: dict[str, Any], old: Entry | None
) -> Any:
    began = time.monotonic()
    try:
        result = await function(*arguments, **named)
    except Exception as error:
        return lookup.failed(error, old, time.monotonic() - began)
    return lookup.store_result(result, time.monotonic() - began)


def _step_of(lookup: _Lookup) -> Any:
    from .steps import StepCall

    lookup.store.metrics.count("tool", lookup.rule.name, "written")
    return StepCall("tool", lookup.rule.name, lookup.asked, lookup.rule.version, lookup.rule.once, lookup.tool.encode, lookup.tool.decode)


def _write(lookup: _Lookup, function: Callable[[], Any]) -> Any:
    def write() -> Any:
        with lookup.store.histories.writing(lookup.scope, lookup.rule.scope, lookup.rule.writes):
            return function()

    run: Run | None = lookup.run
    return write() if run is None else run._step(_step_of(lookup), write)


async def _write_async(lookup: _Lookup, function: Callable[[], Awaitable[Any]]) -> Any:
    async def write() -> Any:
        writing = lookup.store.histories.writing(lookup.scope, lookup.rule.scope, lookup.rule.writes)
        await asyncio.to_thread(writing.__enter__)
        try:
            return await function()
        finally:
            await asyncio.shield(asyncio.to_thread(writing.__exit__, None, None, None))

    run: Run | None = lookup.run
    return await write() if run is None else await run._step_async(_step_of(lookup), write)


__all__ = ["Answer", "RecordedToolError", "ToolRule", "last_answer", "set_last_answer", "tool_cache"]
