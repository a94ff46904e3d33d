"""A conversation with a model whose prefix stays whole: for any server that speaks OpenAI's chat completions.

    runtime = Runtime(run, send, model="m", system=SYSTEM, tools=TOOLS, window_tokens=24_000)
    runtime.say(question, volatile={"time": now()})
    while calls := runtime.step().get("tool_calls"):
        for call in calls:
            with runtime.waiting():                     # keeps the server's cache of the prefix alive meanwhile
                result = run_tool(call)
            runtime.result(call["id"], result)

What it does: the front (system text, tools by name) is the same bytes in each request; everything else is only ever appended; what
changes from request to request stands at the end of the newest user message; the prompt is made smaller at a stable place, behind a
front that stays; tools are not taken out but ruled out. It measures what the server says of its cache, and warms it again.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..hygiene import canonical as canonical_messages
from .answers import Question, usage_of
from .blocks import Entry, encoded
from .canonical import digest
from .memory import Compaction, Memory, Message, estimated_tokens
from .policies import AnswerRule
from .rolling import GENERATION_ENTRIES, RollingList
from .run import Run

if TYPE_CHECKING:
    from .store import AgentStore

Send = Callable[[dict[str, Any]], Mapping[str, Any]]

FRONTS_MAX = GENERATION_ENTRIES
"""Of the fronts that are registered the newest half of these stay, at least."""
_PING_SECONDS = 240.0
_PING_SECONDS_MIN = 1.0


@dataclass(frozen=True, slots=True)
class Front:
    """The beginning that requests of several workers have in common."""

    digest: str
    model: str
    tokens: int
    """By the server's count when it was registered, or estimated."""
    registered: float


@dataclass(frozen=True, slots=True)
class Turn:
    """One request, by the server's own counts."""

    number: int
    model: str
    purpose: str
    """"step", "warm" or "ping"."""
    tokens: int
    tokens_cached: int
    expected: int
    """Tokens of the prompt that an earlier request of this runtime has sent to the same model."""
    seconds: float
    pause: float | None
    """Since the last request to the same model."""

    @property
    def hit_rate(self) -> float:
        """The part of the prompt that the server had cached."""
        return self.tokens_cached / self.tokens if self.tokens else 0.0

    @property
    def fell(self) -> bool:
        """The server had lost most of what it was sent before."""
        return self.expected > 0 and self.tokens_cached < self.expected / 2


def cached_of(answer: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens of the prompt, and those of them that were cached, as the server counts."""
    usage = answer.get("usage") or {}
    details = usage.get("prompt_tokens_details") or {}
    tokens = int(usage.get("prompt_tokens") or 0)
    cached = details.get("cached_tokens")
    if cached is None:
        # llama-server's own.
        timings = answer.get("timings") or {}
        cached = timings.get("cache_n", usage.get("prompt_cache_hit_tokens", 0))
    return tokens, int(cached or 0)


class Runtime:
    """One conversation of a run.

    send: posts the body of a chat completion and returns the answer, for example
    `lambda body: client.chat.completions.create(**body).model_dump(exclude_none=True)`. What it answered is stored in the run: a program
    that is started again asks no model twice. settings: further fields of each request. goal: recited at the end of each user message.
    window_tokens: beyond it results of tools of `long_tokens` and more become placeholders, and then `summarise` makes a text of the
    middle; the first `keep_first` and the last `keep_last` messages stay.
    mask: how tools are ruled out: "allowed_tools" (OpenAI's `tool_choice`), or "text", a line at the end of the user message.
    """

    def __init__(
        self,
        run: Run,
        send: Send,
        *,
        model: str,
        system: str,
        tools: Sequence[Mapping[str, Any]] = (),
        settings: Mapping[str, Any] | None = None,
        goal: str | None = None,
        window_tokens: int | None = None,
        keep_first: int = 2,
        keep_last: int = 6,
        summarise: Callable[[list[Message]], str] | None = None,
        long_tokens: int = 200,
        mask: Literal["allowed_tools", "text"] = "text",
        tokens: Callable[[Mapping[str, Any]], int] = estimated_tokens,
        ping_seconds: float = _PING_SECONDS,
    ) -> None:
        self.run, self._send, self.model = run, send, model
        self._agents: AgentStore = run._agents
        self._settings = dict(settings or {})
        self._goal, self._mask = goal, mask
        self._window = (window_tokens, keep_first, keep_last)
        self._summarise, self._long_tokens = summarise, long_tokens
        self.memory = Memory(run, tokens=tokens)
        front = canonical_messages([{"role": "system", "content": system}], list(tools))
        self._tools: list[dict[str, Any]] = front["tools"]
        self._tokens = tokens
        self.memory.add(front["messages"][0])
        self._allowed: list[str] | None = None
        self.turns: list[Turn] = []
        self.compactions: list[Compaction] = []
        # Of each model: when it was asked last, and the prompt's messages by digest with the server's count of all of them.
        self._asked: dict[str, tuple[float, list[str], int]] = {}
        self._sending = threading.Lock()
        self._ping_seconds = ping_seconds
        self._ended_by: float | None = None

    # ------------------------------------------------------------ what is said

    def say(self, text: str, *, volatile: Mapping[str, Any] | None = None, allowed: Sequence[str] | None = None) -> Message:
        """Appends a user message. volatile: values that are others each time; they stand at its end. allowed: the tools that may be
        called from now on; None: all."""
        self._allowed = sorted(allowed) if allowed is not None else None

        def make() -> Message:
            parts = [text]
            if volatile:
                parts.append("\n".join(f"{name}: {value}" for name, value in volatile.items()))
            if self._goal:
                parts.append(f"Goal: {self._goal}")
            if self._allowed is not None and self._mask == "text":
                parts.append(f"Use these tools only: {', '.join(self._allowed) or 'none'}.")
            return canonical_messages([{"role": "user", "content": "\n\n".join(parts)}])["messages"][0]

        return self.memory.add(make, key={"say": text, "allowed": self._allowed})

    def result(self, tool_call_id: str, content: Any) -> Message:
        """Appends what a tool returned; JSON is written in its canonical order."""
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return self.memory.add({"role": "tool", "tool_call_id": tool_call_id, "content": text})

    def recall(self, ref: int) -> Message:
        """Appends a message that a placeholder stands for, at the end."""
        message = self.memory.recall(ref)
        content = message.get("content")
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        return self.memory.add({"role": "user", "content": f"ref#{ref}:\n{text}"})

    # ------------------------------------------------------------ requests

    def body(self, model: str | None = None) -> dict[str, Any]:
        """The next request."""
        body: dict[str, Any] = {"model": model or self.model, **self._settings}
        if self._tools:
            body["tools"] = self._tools
            if self._allowed is not None and self._mask == "allowed_tools":
                names = [{"type": "function", "function": {"name": name}} for name in self._allowed]
                body["tool_choice"] = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": names}}
        body["messages"] = self.memory.messages()
        return body

    def compact(self, *, ahead: bool = False) -> Compaction | None:
        """Makes the prompt smaller if it is beyond the window; None: it is not. A step does so by itself.

        ahead: beyond three quarters of it. Called in a pause, with `warm` behind it, the next step finds even this prompt in the server's
        cache, where it would be made smaller, and computed anew, otherwise.
        """
        window, keep_first, keep_last = self._window
        if window is None:
            return None
        # To half of it, so that it is not done again at the next step: what is behind the front is computed anew.
        done = self.memory.compact(
            to_tokens=window // 2,
            over_tokens=window * 3 // 4 if ahead else window,
            keep_first=keep_first,
            keep_last=keep_last,
            summarise=self._summarise,
            long_tokens=self._long_tokens,
        )
        if done is not None:
            self.compactions.append(done)
        return done

    def step(self, *, model: str | None = None) -> Message:
        """Asks the model, appends its message and returns it. model: another one for this step; each model's prefix stays its own."""
        self.compact()
        body = self.body(model)
        answer = self._answer(body)
        message: Message = dict(answer["choices"][0]["message"])
        message = {name: message[name] for name in ("role", "content", "tool_calls") if message.get(name) is not None or name == "content"}
        tokens, cached = cached_of(answer)
        self.memory.sent(tokens=tokens or None, tokens_cached=cached)
        return self.memory.add(canonical_messages([message])["messages"][0])

    def _answer(self, body: dict[str, Any]) -> Mapping[str, Any]:
        """What the model says: recorded in the run, never from another run's."""
        question = Question(
            self._agents, body, AnswerRule(None, "run", "", True), model=str(body["model"]), sampled=False, provider="runtime"
        )
        question.is_for_run = True
        event = question.recorded()
        if event is not None:
            found: Mapping[str, Any] = event.value
            return found
        began = time.monotonic()
        try:
            answer = self._post(body, "step")
        except Exception as error:
            question.failed(error)
            raise
        content, kind = encoded(dict(answer))
        question.store(content, kind, time.monotonic() - began, tokens=usage_of(answer))
        stored: Mapping[str, Any] = Entry(content, kind).value
        return stored

    def _post(self, body: dict[str, Any], purpose: str) -> Mapping[str, Any]:
        model = str(body["model"])
        marks = [digest(self._tools).hex(), *(digest(message).hex() for message in body["messages"])]
        with self._sending:
            last = self._asked.get(model)
            began = time.monotonic()
            answer = self._send(body)
            ended = time.monotonic()
            tokens, cached = cached_of(answer)
            expected = 0
            if last is not None:
                common = 0
                while common < min(len(marks), len(last[1])) and marks[common] == last[1][common]:
                    common += 1
                # In the server's count where the whole last prompt is the beginning of this one, and else by the share of our own.
                expected = last[2] if common == len(last[1]) else round(tokens * self._share(body, common))
            pause = began - last[0] if last is not None else None
            turn = Turn(len(self.turns) + 1, model, purpose, tokens, cached, expected, ended - began, pause)
            self.turns.append(turn)
            self._asked[model] = (ended, marks, tokens)
            if turn.fell and pause is not None:
                self._ended_by = pause if self._ended_by is None else min(self._ended_by, pause)
                self._agents.metrics.count("runtime", model, "cache lost")
            self._agents.metrics.count("runtime", model, purpose)
            self._agents.metrics.add("runtime", model, "tokens", tokens)
            self._agents.metrics.add("runtime", model, "tokens cached", cached)
        return answer

    def _share(self, body: Mapping[str, Any], common: int) -> float:
        """What the tools and the first messages are of a prompt."""
        sizes = [self._tokens({"tools": self._tools}), *(self._tokens(message) for message in body["messages"])]
        return sum(sizes[:common]) / max(1, sum(sizes))

    # ------------------------------------------------------------ warm

    def warm(self, *, model: str | None = None, purpose: str = "warm") -> Turn | None:
        """Has the server read the prompt as it stands, and write one token: before a request that is to come soon. Never fails; None:
        the server did not answer, or the run is replayed."""
        if self.run.is_replay:
            return None
        body = {**self.body(model), "max_tokens": 1}
        if body["messages"][-1]["role"] == "assistant":
            # Some servers would go on with it.
            body["messages"] = [*body["messages"], {"role": "user", "content": ""}]
        body.pop("stream", None)
        with contextlib.suppress(Exception):
            self._post(body, purpose)
            return self.turns[-1]
        return None

    @property
    def ping_seconds(self) -> float:
        """How long a pause may be before the prefix is touched: half of the shortest after which the server had lost it."""
        return self._ping_seconds if self._ended_by is None else max(_PING_SECONDS_MIN, min(self._ping_seconds, self._ended_by / 2))

    @contextlib.contextmanager
    def waiting(self, *, model: str | None = None) -> Iterator[None]:
        """Keeps the server's cache of the prefix alive while something else takes long; a ping that finds it lost warms it again."""
        over = threading.Event()
        if self.run.is_replay:
            yield
            return
        # What is stored of the run is read here: pings take no part in it.
        body = {**self.body(model), "max_tokens": 1}
        body.pop("stream", None)

        def keep() -> None:
            while not over.wait(self.ping_seconds):
                with contextlib.suppress(Exception):
                    self._post(body, "ping")

        thread = threading.Thread(target=keep, name="kvstore-agent-ping", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(timeout=60)

    # ------------------------------------------------------------ fronts

    def front(self) -> Front:
        """The front of this conversation, entered in the store's register, so that other workers can warm and share it."""
        messages = self.memory.messages()[:1]
        mark = digest({"model": self.model, "tools": self._tools, "messages": messages}).hex()
        known = fronts(self._agents)
        found = next((front for front in known if front.digest == mark), None)
        if found is None:
            tokens = sum(self._tokens(part) for part in ({"tools": self._tools}, *messages))
            found = Front(mark, self.model, tokens, time.time())
            document = {"digest": mark, "model": self.model, "tokens": tokens, "tools": self._tools, "messages": messages}
            content, kind = encoded(document)
            _fronts(self._agents).append(Entry(content, kind, stored=found.registered))
        return found

    def report(self) -> dict[str, Any]:
        """What the server said of its cache: hit rate of each step, tokens computed, and how often it had lost the prefix."""
        steps = [turn for turn in self.turns if turn.purpose == "step"]
        tokens = sum(turn.tokens for turn in steps)
        cached = sum(turn.tokens_cached for turn in steps)
        return {
            "steps": len(steps),
            "hit_rate": cached / tokens if tokens else 0.0,
            "hit_rates": [turn.hit_rate for turn in steps],
            "tokens": tokens,
            "tokens_computed": sum(turn.tokens - turn.tokens_cached for turn in self.turns),
            "lost": sum(turn.fell for turn in self.turns),
            "pings": sum(turn.purpose == "ping" for turn in self.turns),
            "compactions": len(self.compactions),
        }


def _fronts(agents: AgentStore) -> RollingList:
    return RollingList(
        agents.blocks(None),
        agents.claims,
        digest({"kvstore.agent": "fronts"}),
        is_kept=lambda _: True,
        entries_max=FRONTS_MAX // 2,
        claim_seconds=agents.claim_seconds,
    )


def fronts(agents: AgentStore) -> list[Front]:
    """The fronts that workers have registered."""
    return [
        Front(entry.value["digest"], entry.value["model"], entry.value["tokens"], entry.stored)
        for entry in _fronts(agents).entries()
    ]


def warm_front(agents: AgentStore, front: Front, send: Send, **settings: Any) -> tuple[int, int] | None:
    """Has a server read a front that another worker registered; its tokens, and how many were cached already. None: it is not known."""
    for entry in _fronts(agents).entries():
        document = entry.value
        if document["digest"] == front.digest:
            body: dict[str, Any] = {"model": document["model"], **settings, "max_tokens": 1}
            if document["tools"]:
                body["tools"] = document["tools"]
            body["messages"] = [*document["messages"], {"role": "user", "content": ""}]
            return cached_of(send(body))
    return None


__all__ = ["Front", "Runtime", "Turn", "cached_of", "fronts", "warm_front"]
