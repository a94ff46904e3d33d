"""Answers of models: kept by everything that was asked, and given again as they came, streams as streams."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .. import KVStoreError
from . import context
from .blocks import UNAVAILABLE, Entry, TooLargeError, encoded
from .canonical import digest
from .policies import AnswerRule
from .scope import Level, Scope, seconds
from .tools import Answer, set_last_answer

if TYPE_CHECKING:
    from .log import Event
    from .run import Run
    from .store import AgentStore


def without(request: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """A request without some of its fields, which are named as "metadata" or "metadata.trace_id"."""
    result = dict(request)
    for name in names:
        first, _, rest = name.partition(".")
        if first not in result:
            continue
        if not rest:
            del result[first]
        elif isinstance(result[first], Mapping):
            result[first] = without(result[first], [rest])
    return result


class Question:
    """One request to a model: its key, what is stored for it, what becomes of its answer."""

    def __init__(
        self,
        agents: AgentStore,
        request: Mapping[str, Any],
        rule: AnswerRule,
        *,
        model: str,
        sampled: bool,
        provider: str = "",
        leave_out: Sequence[str] = (),
        fresh: bool = False,
        name: str = "",
    ) -> None:
        now = context.current.get()
        here = now is not None and now.agents is agents
        self.agents = agents
        self.run: Run | None = now.run if now is not None and here else None
        self.scope = now.scope if now is not None and here else Scope()
        self.fresh = fresh or bool(now is not None and here and now.fresh)
        self.rule = agents.policies.answers(rule, model)
        self.model = model or "(no model)"
        self.leave_out = sorted(leave_out)
        self.asked: dict[str, Any] = {
            "provider": provider,
            "version": self.rule.version,
            "request": without(request, leave_out),
            # What is left out is a part of the key: with another list it is another question.
            "left_out": self.leave_out,
        }
        self.bypass = ""
        self.is_for_run = False
        """It is kept in the run's record alone."""
        if self.rule.bypass:
            self.bypass = "policy"
        elif sampled and not self.rule.sampled:
            self.bypass = "sampled: its temperature is not 0"
        self.path = digest({"kvstore.agent": "answer", "scope": self.scope.key(self.rule.scope), **self.asked})
        self.call = ""
        self._name = name or self.model

    @property
    def _blocks(self) -> Any:
        return self.agents.blocks(self.scope.owner(self.rule.scope))

    def recorded(self) -> Event | None:
        """What it was answered before the run's process ended, or when the run was recorded that is replayed."""
        if self.run is None:
            return None
        self.call = self.run.recorder.call(self._name)
        if self.fresh and not self.run.is_replay:
            return None
        event = self.run.recorder.answered("answer", self.call, self.asked)
        if event is not None:
            age = max(0.0, time.time() - event.time)
            self.agents.metrics.count("answer", self.model, "recorded")
            set_last_answer(Answer("recorded", False, age, self.run.id, event.key))
            money = self._money(event.tokens or (0, 0))
            self.agents.metrics.save("answer", self.model, seconds=event.seconds or 0, tokens=sum(event.tokens or ()), money=money)
            self._note("recorded", age=age, source=self.run.id, took=event.seconds, tokens=event.tokens, money=money)
        return event

    def found(self) -> Entry | None:
        """What is stored of it."""
        if self.bypass or self.fresh:
            return None
        try:
            entry: Entry | None = self._blocks.get(self.path)
        except UNAVAILABLE:
            # A disk that fails costs a call, not an error.
            return None
        if entry is None:
            return None
        age = max(0.0, time.time() - entry.stored)
        source = str(entry.meta.get("run", ""))
        set_last_answer(Answer("hit", False, age, source, self.path.hex()))
        self.agents.metrics.count("answer", self.model, "hit")
        took, tokens = entry.meta.get("seconds", 0), entry.meta.get("tokens", (0, 0))
        money = self._money(tokens)
        self.agents.metrics.save("answer", self.model, seconds=took, tokens=sum(tokens), money=money)
        self._note("hit", age=age, source=source, answer=(entry.content, entry.kind), took=took, tokens=tokens, money=money)
        return entry

    def _money(self, tokens: Sequence[int]) -> float:
        return self.agents.money(self.model, *tokens)

    def store(
        self, content: bytes, kind: int, took: float, *, tokens: tuple[int, int] = (0, 0), unfit: str = ""
    ) -> None:
        """Keeps an answer that came; unfit: why it is recorded in the run only."""
        reason = self.bypass or unfit
        missing_since = ""
        if self.run is not None and not reason and not self.fresh and not self.is_for_run:
            missing_since = self._blocks.why_not(self.path)
        outcome = "asked" if self.is_for_run else "bypassed" if reason else "forced" if self.fresh else "stored"
        if not reason and not self.is_for_run:
            now = time.time()
            meta: dict[str, Any] = {"model": self.model[:200], "seconds": round(took, 6), "left_out": self.leave_out}
            if any(tokens):
                meta["tokens"] = list(tokens)
            if self.run is not None:
                meta["run"] = self.run.id[:200]
            ttl = self.rule.ttl_seconds
            try:
                if self._blocks.peek(self.path):
                    self._blocks.forget(self.path)
                if not self._blocks.put(
                    self.path, Entry(content, kind, meta, now, None if ttl is None else now + ttl), ttl_seconds=ttl
                ):
                    outcome = "refused"
                # Others who wait for the same find it only then.
                self.agents.store.flush()
            except TooLargeError:
                outcome = "too large"
            except KVStoreError:
                # What cannot be kept is returned all the same.
                outcome = "refused"
        set_last_answer(Answer(outcome, False, 0.0, self.run.id if self.run else "", self.path.hex()))
        self.agents.metrics.count("answer", self.model, outcome, reason or missing_since)
        self._note(outcome, reason=reason or missing_since, answer=(content, kind), took=took, tokens=tokens, money=self._money(tokens))

    def failed(self, error: BaseException) -> None:
        """Notes that no answer came."""
        self.agents.metrics.count("answer", self.model, "failed")
        self._note("failed", reason=f"{type(error).__name__}: {error}")

    def _note(self, outcome: str, **rest: Any) -> None:
        if self.run is not None:
            self.run.note_call(
                "answer", outcome, self._name, call=self.call, key=self.path, version=self.rule.version, asked=self.asked, **rest
            )


def is_sampled(request: Mapping[str, Any]) -> bool:
    """Whether the same request may be answered in another way: where nothing is said of the temperature, providers take 1."""
    return request.get("temperature", 1) != 0


class Answers:
    """Answers to requests that a program makes by itself; the clients of OpenAI and Anthropic use `kvstore.agent.http` instead.

    Everything in the request is in the key. Fields that change without changing the answer are named in `leave_out`, which is noted
    with the answer. Answers to requests with a temperature above 0, or none, are kept only if `sampled` says so.
    """

    def __init__(
        self,
        agents: AgentStore,
        *,
        ttl: float | str | None = None,
        scope: Level = "user",
        version: str = "",
        provider: str = "",
        sampled: bool = False,
        leave_out: Sequence[str] = (),
    ) -> None:
        if isinstance(leave_out, str):
            raise TypeError("leave_out is a list of names")
        self._agents, self._provider, self._leave_out = agents, provider, tuple(leave_out)
        self._rule = AnswerRule(seconds(ttl), scope, version, sampled)

    def _question(self, request: Mapping[str, Any], options: dict[str, Any]) -> Question:
        rule = self._rule
        for name in ("version", "sampled"):
            if name in options:
                rule = replace(rule, **{name: options.pop(name)})
        return Question(
            self._agents,
            request,
            rule,
            model=str(request.get("model", "")),
            sampled=is_sampled(request),
            provider=self._provider,
            leave_out=options.pop("leave_out", self._leave_out),
            fresh=options.pop("fresh", False),
            **options,
        )

    def ask(self, request: Mapping[str, Any], call: Callable[[Mapping[str, Any]], Any], **options: Any) -> Any:
        """The answer to a request: from the store, or what `call(request)` returns (JSON or bytes). Equal ones at once are one.

        options: fresh=True asks anew and replaces what is there; version, sampled and leave_out instead of those of this object.
        """
        question = self._question(request, options)
        known = _known(question)
        if known is not None:
            return known[0]
        with self._agents.claims.hold(question.path, self._agents.claim_seconds if not question.bypass else 0):
            entry = question.found()
            if entry is not None:
                return entry.value
            began = time.monotonic()
            try:
                result = call(request)
            except Exception as error:
                question.failed(error)
                raise
            content, kind = encoded(result)
            question.store(content, kind, time.monotonic() - began, tokens=usage_of(result))
            return Entry(content, kind).value

    async def ask_async(
        self, request: Mapping[str, Any], call: Callable[[Mapping[str, Any]], Awaitable[Any]], **options: Any
    ) -> Any:
        """`ask` with a coroutine function."""
        question = self._question(request, options)
        known = _known(question)
        if known is not None:
            return known[0]
        wait = self._agents.claim_seconds if not question.bypass else 0
        async with self._agents.claims.hold_async(question.path, wait):
            entry = question.found()
            if entry is not None:
                return entry.value
            began = time.monotonic()
            try:
                result = await call(request)
            except Exception as error:
                question.failed(error)
                raise
            content, kind = encoded(result)
            question.store(content, kind, time.monotonic() - began, tokens=usage_of(result))
            return Entry(content, kind).value

    def stream(self, request: Mapping[str, Any], call: Callable[[Mapping[str, Any]], Iterator[Any]], **options: Any) -> Iterator[Any]:
        """The items of a streamed answer, each JSON. It is kept once it has been read to its end."""
        question = self._question(request, options)
        known = _known(question)
        if known is not None:
            yield from known[0]
            return
        with self._agents.claims.hold(question.path, self._agents.claim_seconds if not question.bypass else 0):
            entry = question.found()
            if entry is not None:
                yield from entry.value
                return
            began = time.monotonic()
            items = []
            try:
                for item in call(request):
                    items.append(item)
                    yield item
            except Exception as error:
                question.failed(error)
                raise
            content, kind = encoded(items)
            question.store(content, kind, time.monotonic() - began)

    async def stream_async(
        self, request: Mapping[str, Any], call: Callable[[Mapping[str, Any]], AsyncIterator[Any]], **options: Any
    ) -> AsyncIterator[Any]:
        """`stream` of an asynchronous iterator."""
        question = self._question(request, options)
        known = _known(question)
        if known is not None:
            for item in known[0]:
                yield item
            return
        wait = self._agents.claim_seconds if not question.bypass else 0
        async with self._agents.claims.hold_async(question.path, wait):
            entry = question.found()
            if entry is not None:
                for item in entry.value:
                    yield item
                return
            began = time.monotonic()
            items = []
            try:
                async for item in call(request):
                    items.append(item)
                    yield item
            except Exception as error:
                question.failed(error)
                raise
            content, kind = encoded(items)
            question.store(content, kind, time.monotonic() - began)


def _known(question: Question) -> tuple[Any] | None:
    event = question.recorded()
    if event is not None:
        return (event.value,)
    entry = question.found()
    return None if entry is None else (entry.value,)


def usage_of(answer: Any) -> tuple[int, int]:
    """Tokens of the prompt and of the answer, by the provider's own count; zeros where there is none."""
    usage = answer.get("usage") if isinstance(answer, Mapping) else None
    if not isinstance(usage, Mapping):
        return 0, 0
    found = []
    for names in (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")):
        value = next((usage[name] for name in names if isinstance(usage.get(name), int)), 0)
        found.append(max(0, value))
    return found[0], found[1]
