"""A run of an agent: its steps are a path in the store's prefix tree."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import inspect
import json
import time
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from .. import Namespace, Prompt
from . import context
from .blocks import KIND_BYTES, KIND_JSON, Blocks, Entry, NotStoredError, decoded, encoded
from .calls import DIGEST_BYTES
from .canonical import digest
from .lane import Lane
from .lists import AppendList
from .log import DivergenceError, Event, Opening, Recorder, Replayer, RunLog, first_difference, place
from .scope import Scope
from .steps import Checkpoint, LostStepError, RunBusyError, RunChangedError, Step, StepCall, UnconfirmedStepError, asked_of, step_of

if TYPE_CHECKING:
    from .store import AgentStore

Result = TypeVar("Result")

_PRIORITY = 90
PIN_SECONDS_MAX = 90 * 86_400.0

_lane: ContextVar[Lane | None] = ContextVar("kvstore.agent.lane", default=None)


class Run:
    """A run: made by `AgentStore.run`, and used in a `with` block, within which tools and answers belong to it.

    What a step returned is stored before `step` returns it, durably. Who opens the run again calls the same steps: those that are
    confirmed are answered, the first that is not is done.
    """

    def __init__(
        self,
        agents: AgentStore,
        scope: Scope,
        *,
        ttl_seconds: float | None = None,
        lost: str = "raise",
        origin: dict[str, Any] | None = None,
        segments: list[tuple[str, int | None]] | None = None,
        replay: int | None = None,
        existing: bool = False,
    ) -> None:
        if scope.run is None or not scope.run:
            raise ValueError("a run has a name")
        self._agents, self.scope = agents, scope
        self.id = scope.run
        self._blocks: Blocks = agents.blocks(scope.user)
        self._claims = agents.claims
        self._key = {"kvstore.agent": "run", "session": scope.session, "run": scope.run}
        self.is_replay = replay is not None
        self._record_path = digest({**self._key, "record": 1})
        record = self._open_record(ttl_seconds, origin, segments, make=not (self.is_replay or existing))
        self.created: float = record["created"]
        self.origin: dict[str, Any] | None = record.get("origin")
        self._end: float | None = record.get("end")
        self._branches = self._list("branches")
        self._branch_count = self._branches.count()
        if self._branch_count:
            last = self._branches.get(self._branch_count - 1)
            if last is None:
                raise LostStepError(f"the branches of run {self.id} have left the store")
            record["segments"] = last.value["segments"]
        self._main = Lane(self, self._blocks, [(label, end) for label, end in record["segments"]], "run")
        self.log = RunLog(
            self._blocks, self._claims, self._key, ttl_seconds=self._rest(), claim_seconds=agents.claim_seconds
        )
        if replay is not None:
            openings = self.log.openings()
            index = replay if replay >= 0 else len(openings) + replay
            self.recorder: Recorder = Replayer(self.log, self._at, self._is_on_path, index)
        else:
            self.recorder = Recorder(self.log, self._at, self._is_on_path)
        self.recorder.root = self._main.place
        self.lost = 0
        if lost not in ("raise", "again"):
            raise ValueError("lost is 'raise' or 'again'")
        if lost == "raise" and not self.is_replay:
            self._check_lost()
        self._entered: list[Any] = []

    def _at(self) -> tuple[str, int]:
        """The branch and the step where the run stands."""
        return self._main.label(self._main.cursor + 1), self._main.cursor

    def _is_on_path(self, label: str, number: int) -> bool:
        """Whether the run's way leads past a step of a branch."""
        return any(label == known and (end is None or number < end) for known, end in self._main.segments)

    def _list(self, name: str) -> AppendList:
        return AppendList(
            self._blocks,
            self._claims,
            digest({**self._key, "list": name}),
            ttl_seconds=self._rest(),
            priority=_PRIORITY,
            claim_seconds=self._agents.claim_seconds,
        )

    def _rest(self) -> float | None:
        """How long what is stored now lives: all of a run ends together."""
        return None if self._end is None else max(0.001, self._end - time.time())

    def _open_record(
        self,
        ttl_seconds: float | None,
        origin: dict[str, Any] | None,
        segments: list[tuple[str, int | None]] | None,
        *,
        make: bool,
    ) -> dict[str, Any]:
        found = self._blocks.get(self._record_path)
        if found is not None:
            if origin is not None:
                raise ValueError(f"there is a run {self.id} already")
            record: dict[str, Any] = found.value
            return record
        if not make:
            raise LookupError(f"there is no run {self.id!r} of this user and session")
        with self._claims.hold(self._record_path, self._agents.claim_seconds) as mine:
            found = self._blocks.get(self._record_path)
            if found is not None or not mine:
                if found is None:
                    raise RunBusyError(f"another process has been opening run {self.id} for too long")
                return dict(found.value)
            now = time.time()
            record = {
                "run": self.id,
                "session": self.scope.session,
                "created": now,
                "end": None if ttl_seconds is None else now + ttl_seconds,
                "origin": origin,
                "segments": segments or [[digest({**self._key, "branch": 0}).hex(), None]],
            }
            self._end = record["end"]
            content, kind = encoded(record)
            if not self._blocks.put(
                self._record_path, Entry(content, kind, stored=now), ttl_seconds=self._rest(), priority=_PRIORITY, compress=False
            ):
                raise NotStoredError("the store has no place for a run")
            self._blocks.flush(self._record_path)
            self._agents.register_run(self.scope, record)
            return record

    def _check_lost(self) -> None:
        """Compares what the last log says with what is there."""
        openings = self.log.openings()
        if not openings:
            return
        events = self.log.list_of(openings[-1].index)
        count = events.count() if events else 0
        if events is None or not count:
            return
        last: int | None = None
        for index in range(count - 1, max(-1, count - 200), -1):
            entry = events.get(index, content=False)
            if entry is not None and "step" in entry.meta and entry.meta.get("branch") == self._main.segments[-1][0]:
                last = entry.meta["step"]
                break
        if last is not None and self._main.count() < last:
            self.lost = last - self._main.count()
            raise LostStepError(
                f"run {self.id} had confirmed {last} steps, and {self._main.count()} are left in the store: the others were evicted "
                "or are damaged. Open it with lost='again' to do them once more"
            )

    # ------------------------------------------------------------ steps

    @property
    def confirmed(self) -> int:
        """How many steps of the run are stored."""
        return self._main.count()

    @property
    def position(self) -> int:
        """How many steps this opening has passed."""
        return self._main.cursor

    def steps(self, first: int = 1) -> Iterator[Step]:
        """The confirmed steps, in order."""
        for number in range(first, self.confirmed + 1):
            entry = self._main.entry(number)
            if entry is not None:
                yield step_of(number, entry)

    def step(
        self,
        name: str,
        function: Callable[..., Any],
        *arguments: Any,
        key: Any = None,
        version: str = "",
        once: bool = False,
        encode: Callable[[Any], Any] | None = None,
        decode: Callable[[Any], Any] | None = None,
        **named: Any,
    ) -> Any:
        """Calls the function, stores what it returns and returns that; where the step is confirmed already, answers it.

        The arguments are in the step's key, and so are JSON; where they are not, `key` stands for them. Of a coroutine function this
        is a coroutine. once: if the process ends within the function, the step is not done again: who opens the run gets an
        UnconfirmedStepError, and decides with `resolve`. encode and decode: for results that are neither JSON, bytes nor arrays.
        """
        rule = self._agents.policies.step(name)
        version = str(rule.get("version", version))
        asked = asked_of(name, arguments, named, key, version)
        call = StepCall("step", name, asked, version, once, encode, decode)
        if rule.get("bypass"):
            if inspect.iscoroutinefunction(function):
                return self._bypassed_async(call, lambda: function(*arguments, **named))
            return self._bypassed(call, lambda: function(*arguments, **named))
        if inspect.iscoroutinefunction(function):
            return self._step_async(call, lambda: function(*arguments, **named))
        return self._step(call, lambda: function(*arguments, **named))

    def _here(self) -> Lane:
        lane = _lane.get()
        return lane if lane is not None and lane.run is self else self._main

    def _step(self, call: StepCall, function: Callable[[], Any]) -> Any:
        lane = self._here()
        if not lane.lock.acquire(timeout=self._agents.claim_seconds):
            raise RunBusyError(
                f"{lane.name}: another thread is in a step. Within a step, threads need its context "
                "(contextvars.copy_context().run), and steps at the same time a lane each"
            )
        try:
            found = self._answer(lane, call)
            if found is not None:
                return found[0]
            number = lane.cursor + 1
            with self._claims.hold(lane.path_to(number)[-DIGEST_BYTES:], self._agents.claim_seconds) as mine:
                if not mine:
                    raise RunBusyError(f"{lane.name}: another process has been in step {number} for too long")
                found = self._answer(lane, call)
                if found is not None:
                    return found[0]
                self._begin(lane, call)
                began = time.monotonic()
                inner = self._inside(lane, call)
                tokens = (_lane.set(inner), place.set(inner.place))
                try:
                    result = function()
                except BaseException as error:
                    self._failed(lane, call, error)
                    raise
                finally:
                    place.reset(tokens[1])
                    _lane.reset(tokens[0])
                return self._confirm(lane, call, result, time.monotonic() - began)
        finally:
            lane.lock.release()

    async def _step_async(self, call: StepCall, function: Callable[[], Awaitable[Any]]) -> Any:
        lane = self._here()
        loop = asyncio.get_running_loop()
        if lane.async_lock is None or lane.async_lock[0] is not loop:
            lane.async_lock = (loop, asyncio.Lock())
        async with lane.async_lock[1]:
            found = self._answer(lane, call)
            if found is not None:
                return found[0]
            number = lane.cursor + 1
            claim = lane.path_to(number)[-DIGEST_BYTES:]
            async with self._claims.hold_async(claim, self._agents.claim_seconds) as mine:
                if not mine:
                    raise RunBusyError(f"{lane.name}: another process has been in step {number} for too long")
                found = self._answer(lane, call)
                if found is not None:
                    return found[0]
                await asyncio.to_thread(self._begin, lane, call)
                began = time.monotonic()
                inner = self._inside(lane, call)
                tokens = (_lane.set(inner), place.set(inner.place))
                try:
                    result = await function()
                except BaseException as error:
                    self._failed(lane, call, error)
                    raise
                finally:
                    place.reset(tokens[1])
                    _lane.reset(tokens[0])
                return await asyncio.to_thread(self._confirm, lane, call, result, time.monotonic() - began)

    def _bypassed(self, call: StepCall, function: Callable[[], Any]) -> Any:
        """Does what the policies take out of the run's steps; a replay is answered what it returned."""
        where = self.recorder.call(call.name)
        if self.is_replay:
            return self._replayed(call, where)
        began = time.monotonic()
        try:
            with self._outside(where):
                result = function()
        except Exception as error:
            self._note_bypassed(call, where, "failed", reason=f"{type(error).__name__}: {error}")
            raise
        return self._returned(call, where, result, time.monotonic() - began)

    async def _bypassed_async(self, call: StepCall, function: Callable[[], Awaitable[Any]]) -> Any:
        where = self.recorder.call(call.name)
        if self.is_replay:
            return self._replayed(call, where)
        began = time.monotonic()
        try:
            with self._outside(where):
                result = await function()
        except Exception as error:
            self._note_bypassed(call, where, "failed", reason=f"{type(error).__name__}: {error}")
            raise
        return await asyncio.to_thread(self._returned, call, where, result, time.monotonic() - began)

    @contextlib.contextmanager
    def _outside(self, where: str) -> Iterator[None]:
        """Steps within one that is bypassed are a sequence of their own, and not done again."""
        inner = Lane(self, self._blocks, self._here().below(f"bypassed {where}"), where)
        tokens = (_lane.set(inner), place.set(inner.place))
        try:
            yield
        finally:
            place.reset(tokens[1])
            _lane.reset(tokens[0])

    def _replayed(self, call: StepCall, where: str) -> Any:
        event = self.recorder.answered("step", where, call.asked)
        assert event is not None
        return call.decode(event.value) if call.decode else event.value

    def _returned(self, call: StepCall, where: str, result: Any, took: float) -> Any:
        content, kind = encoded(call.encode(result) if call.encode else result)
        self._note_bypassed(call, where, "bypassed", reason="policy", answer=(content, kind), took=took)
        value = decoded(content, kind)
        return call.decode(value) if call.decode else value

    def _note_bypassed(self, call: StepCall, where: str, outcome: str, **rest: Any) -> None:
        self._agents.metrics.count("step", call.name, outcome)
        self.note_call("step", outcome, call.name, call=where, version=call.version, asked=call.asked, **rest)

    def _inside(self, lane: Lane, call: StepCall) -> Lane:
        """Where the steps that the function itself takes go."""
        return Lane(self, self._blocks, lane.below(f"inside {call.name}"), f"{lane.name}/{lane.cursor + 1}:{call.name}")

    def _step_key(self, lane: Lane, call: StepCall) -> str:
        before = lane.parents[lane.cursor - 1] if lane.cursor else lane.segments[0][0]
        return digest({"parent": before, "kind": call.kind, **call.asked}).hex()

    def _answer(self, lane: Lane, call: StepCall) -> tuple[Any] | None:
        """What is stored of the step that comes next, if it is this one."""
        number = lane.cursor + 1
        if self._end is not None and time.time() >= self._end:
            raise LostStepError(f"the life of run {self.id} has ended, and all that was stored of it with it")
        if not self.is_replay and self._branches.count() != self._branch_count:
            raise RunChangedError(f"run {self.id} was rewound by somebody else: open it again")
        key = self._step_key(lane, call)
        entry = lane.entry(number)
        where = f"{lane.name}/{number}:{call.name}"
        if entry is None:
            if self.is_replay:
                raise DivergenceError(where, "the step", "no call", call.asked)
            if self._blocks.peek(lane.path_to(number)) < number:
                return None
            # Another process has stored it between the two looks; or else it is stored and cannot be read.
            entry = lane.entry(number)
            if entry is None:
                raise LostStepError(f"{where} is stored, and its value cannot be read: a part of it has left the store")
        if entry.meta.get("step") != key:
            recorded = entry.meta.get("asked", {})
            found = first_difference(recorded, json.loads(json.dumps(call.asked, default=str)))
            if found is None:
                found = ("kind", entry.meta.get("kind"), call.kind)
            raise DivergenceError(where, *found)
        del lane.parents[lane.cursor :]
        lane.parents.append(key)
        lane.cursor = number
        # The calls of the step itself were counted when it was done; here it is one call.
        age = max(0.0, time.time() - entry.stored)
        self._agents.metrics.count("step", call.name, "hit")
        self._agents.metrics.save("step", call.name, seconds=entry.meta.get("seconds", 0))
        self._note(lane, call, "hit", key, age=age, took=entry.meta.get("seconds"))
        value = decoded(entry.content, entry.kind)
        return (call.decode(value) if call.decode else value,)

    def note_call(self, layer: str, outcome: str, name: str, *, answer: tuple[bytes, int] | None = None, **rest: Any) -> None:
        """Records what became of a call (as `Recorder.note`); with what it was answered the record is durable."""
        self.recorder.note(layer, outcome, name, answer=answer, **rest)
        if answer is not None:
            # What the run has seen it sees again when it goes on.
            self._agents.store.flush()

    def _note(
        self,
        lane: Lane,
        call: StepCall,
        outcome: str,
        key: str,
        *,
        age: float | None = None,
        reason: str = "",
        took: float | None = None,
    ) -> None:
        self.recorder.note(
            "step",
            outcome,
            call.name,
            call=f"{lane.name}/{lane.cursor}:{call.name}" if outcome in ("hit", "stored") else "",
            key=bytes.fromhex(key),
            version=call.version,
            age=age,
            reason=reason,
            took=took,
            step=(lane.cursor, lane.segments[-1][0]) if lane is self._main and outcome in ("hit", "stored") else None,
            lane="" if lane is self._main else lane.segments[-1][0],
        )

    def _intent(self, lane: Lane, number: int) -> bytes:
        return digest({"kvstore.agent": "intent", "at": lane.path_to(number)[-DIGEST_BYTES:].hex()})

    def _begin(self, lane: Lane, call: StepCall) -> None:
        if self.is_replay:
            raise DivergenceError(f"{lane.name}/{lane.cursor + 1}:{call.name}", "the step", "no call", call.asked)
        if not call.once:
            return
        number = lane.cursor + 1
        where = self._intent(lane, number)
        found = self._blocks.get(where)
        if found is not None:
            raise UnconfirmedStepError(
                f"{lane.name}/{number}:{call.name} was begun at {time.strftime('%F %T', time.gmtime(found.stored))} UTC by process "
                f"{found.meta.get('process')}, and not confirmed. Find out whether it happened, then call run.resolve"
            )
        import os

        if not self._blocks.put(
            where,
            Entry(b"", KIND_BYTES, {"name": call.name[:200], "process": os.getpid()}, stored=time.time()),
            ttl_seconds=self._rest(),
            priority=_PRIORITY,
        ):
            raise NotStoredError("the store has no place for the beginning of a step")
        self._blocks.flush(where)

    def resolve(self, *, again: bool) -> None:
        """Says what became of the step that a process began and did not confirm: again=True lets it be done once more."""
        lane = self._here()
        where = self._intent(lane, lane.cursor + 1)
        if self._blocks.get(where) is None:
            raise LookupError("the next step was not begun")
        if not again:
            raise ValueError("store the result with run.step(name, lambda: result, key=…) after resolve(again=True)")
        self._blocks.forget(where)

    def _failed(self, lane: Lane, call: StepCall, error: BaseException) -> None:
        self._agents.metrics.count("step", call.name, "failed")
        self._note(lane, call, "failed", self._step_key(lane, call), reason=f"{type(error).__name__}: {error}")
        if call.once and isinstance(error, Exception):
            # The function says itself that it failed: that is no doubt.
            self._blocks.forget(self._intent(lane, lane.cursor + 1))

    def _confirm(self, lane: Lane, call: StepCall, result: Any, seconds: float) -> Any:
        content, kind = encoded(call.encode(result) if call.encode else result)
        number = lane.cursor + 1
        key = self._step_key(lane, call)
        meta: dict[str, Any] = {"step": key, "kind": call.kind, "name": call.name[:200], "seconds": round(seconds, 6)}
        text = json.dumps(call.asked, ensure_ascii=False, separators=(",", ":"), default=str)
        if len(text) <= 2_000:
            meta["asked"] = call.asked
        path = lane.path_to(number)
        if not self._blocks.put(
            path, Entry(content, kind, meta, stored=time.time()), ttl_seconds=self._rest(), priority=_PRIORITY
        ):
            raise NotStoredError(f"the store has no place for step {number} ({call.name})")
        del lane.parents[lane.cursor :]
        lane.parents.append(key)
        lane.cursor = number
        try:
            self._note(lane, call, "stored", key, took=seconds)
            self._blocks.flush(path)
        except Exception:
            lane.cursor = number - 1
            raise
        self._agents.metrics.count("step", call.name, "stored")
        value = decoded(content, kind)
        return call.decode(value) if call.decode else value

    # ------------------------------------------------------------ state, checkpoints, branches

    def save(self, state: Any, name: str = "state") -> Any:
        """Stores the working memory as a step; what it has in common with the one before is stored once."""
        number = self._here().cursor + 1
        return self._step(StepCall("state", name, {"name": name, "number": number}, "", False, None, None), lambda: state)

    @property
    def state(self) -> Any:
        """What was saved last, by the steps that are confirmed; None if nothing was."""
        return self._last_state(self.confirmed)

    def _last_state(self, number: int) -> Any:
        while number:
            entry = self._main.entry(number, content=False)
            if entry is not None and entry.meta.get("kind") == "state":
                whole = self._main.entry(number)
                return whole.value if whole else None
            number -= 1
        return None

    def checkpoint(
        self,
        name: str,
        *,
        tokens: Any = None,
        namespace: Namespace | None = None,
        keep: float | str | None = "7d",
        state: Any = None,
    ) -> Checkpoint:
        """Names this place, and pins what is stored up to here; with tokens and their namespace, the model's KV as well.

        keep: for how long, 90 days at most; None pins nothing.
        """
        from .scope import seconds

        ids = array("I", tokens.tolist() if hasattr(tokens, "tolist") else tokens) if tokens is not None else array("I")
        keep_seconds = seconds(keep)
        if keep_seconds is not None and keep_seconds > PIN_SECONDS_MAX:
            raise ValueError("a checkpoint is kept for 90 days at most")
        lane = self._here()
        if lane is not self._main:
            raise RuntimeError("a checkpoint is of the run, not of a step or a lane within it")
        asked = {"name": name, "tokens": hashlib.sha256(ids.tobytes()).hexdigest(), "state": state}
        call = StepCall("checkpoint", name, asked, "", False, None, None)
        made: list[bool] = []

        def make() -> dict[str, Any]:
            made.append(True)
            until = time.time() + keep_seconds if keep_seconds is not None else None
            kv_tokens = 0
            pins = []
            if keep_seconds is not None and namespace is not None and len(ids):
                pin = namespace.pin(Prompt(ids), keep_seconds)
                if pin is not None:
                    kv_tokens = pin.blocks * max(1, namespace.identity.tokens_per_block)
                    pins.append(pin.id)
            key = self._tokens_key(lane.cursor + 1)
            if len(ids) and not self._blocks.put(
                key, Entry(ids.tobytes(), KIND_BYTES), ttl_seconds=self._rest(), priority=_PRIORITY
            ):
                raise NotStoredError("the store has no place for a checkpoint's tokens")
            return {"name": name, "kv_tokens": kv_tokens, "until": until, "state": state, "pins": pins}

        with lane.lock:
            value = self._step(call, make)
            number = lane.cursor
            if made and keep_seconds is not None:
                self._pin(number, value, keep_seconds)
        return self._checkpoint_of(number, value)

    def _tokens_key(self, number: int) -> bytes:
        return digest({"kvstore.agent": "tokens", "at": self._main.path_to(number)[-DIGEST_BYTES:].hex()})

    def _pin(self, number: int, value: dict[str, Any], keep_seconds: float) -> None:
        """Pins the steps up to a checkpoint, and the pieces of their values."""
        pins = list(value["pins"])
        paths = [(self._main.path_to(number), self._blocks.small), (self._record_path, self._blocks.small)]
        if self._branch_count:
            paths.append((self._branches.path(self._branch_count - 1), self._blocks.small))
        tokens = self._tokens_key(number)
        if self._blocks.peek(tokens):
            paths.append((tokens, self._blocks.small))
            pieces = self._blocks.piece_paths(tokens)
            if pieces:
                paths.append(pieces)
        for step in range(1, number + 1):
            pieces = self._blocks.piece_paths(self._main.path_to(step))
            if pieces:
                paths.append(pieces)
        for path, namespace in paths:
            pin = namespace.pin(Prompt.of_digests(path, DIGEST_BYTES), keep_seconds)
            if pin is not None:
                pins.append(pin.id)
        self._list("pins").append(Entry(json.dumps({"checkpoint": value["name"], "pins": pins}).encode(), KIND_JSON))

    def _checkpoint_of(self, number: int, value: dict[str, Any]) -> Checkpoint:
        found = self._blocks.get(self._tokens_key(number))
        ids = array("I")
        if found is not None:
            ids.frombytes(found.content)
        return Checkpoint(value["name"], number, tuple(ids), value["kv_tokens"], value["state"], value["until"])

    def checkpoints(self) -> list[Checkpoint]:
        """Those of the steps that are confirmed, in order."""
        found = []
        for number in range(1, self.confirmed + 1):
            entry = self._main.entry(number, content=False)
            if entry is not None and entry.meta.get("kind") == "checkpoint":
                whole = self._main.entry(number)
                if whole is not None:
                    found.append(self._checkpoint_of(number, whole.value))
        return found

    def release(self, name: str) -> int:
        """Ends the pins of a checkpoint; the checkpoint stays as long as the store keeps it. Returns how many pins ended."""
        ended = 0
        for entry in self._list("pins").entries():
            if entry.value["checkpoint"] == name:
                ended += sum(self._agents.store.unpin(pin) for pin in entry.value["pins"])
        return ended

    def _number(self, to: str | int) -> int:
        if isinstance(to, str):
            for checkpoint in reversed(self.checkpoints()):
                if checkpoint.name == to:
                    return checkpoint.number
            raise LookupError(f"run {self.id} has no checkpoint {to!r}")
        if not 0 <= to <= self.confirmed:
            raise LookupError(f"run {self.id} has {self.confirmed} steps, and none of number {to}")
        return to

    def _segments_to(self, number: int) -> list[tuple[str, int | None]]:
        kept: list[tuple[str, int | None]] = []
        for label, end in self._main.segments:
            if end is None or end >= number:
                if number:
                    kept.append((label, number))
                break
            kept.append((label, end))
        return kept

    def rewind(self, to: str | int) -> Checkpoint | None:
        """Goes on behind a checkpoint, or behind so many steps; what came after them stays in the store, and is not the run's way
        any more. Returns the checkpoint, if it is one."""
        with self._main.lock:
            number = self._number(to)
            segments = self._segments_to(number)
            segments.append((digest({**self._key, "branch": self._branch_count + 1}).hex(), None))
            content, kind = encoded({"segments": segments, "at": number})
            index = self._branches.append(Entry(content, kind, stored=time.time()))
            if index != self._branch_count:
                raise RunChangedError(f"run {self.id} was rewound by somebody else at the same time: open it again")
            self._branch_count = index + 1
            self._main.segments = segments
            self._main.path = b""
            self._main.parents = self._keys(number)
            self._main.cursor = number
            self.recorder.forget_recorded()
            self.recorder.note("run", "rewound", self.id, reason=f"to step {number}")
            return next((found for found in self.checkpoints() if found.number == number), None)

    def _keys(self, count: int) -> list[str]:
        """The keys of the first steps."""
        keys = []
        for number in range(1, count + 1):
            entry = self._main.entry(number, content=False)
            if entry is None:
                raise LostStepError(f"run {self.id}: step {number} has left the store")
            keys.append(entry.meta["step"])
        return keys

    def skip(self, to: str | int | None = None) -> Any:
        """Passes confirmed steps without calling them: all of them, or up to a number or a checkpoint. Returns the last state."""
        with self._main.lock:
            number = self.confirmed if to is None else self._number(to)
            self._main.parents = self._keys(number)
            self._main.cursor = number
            return self._last_state(number)

    def fork(self, name: str, at: str | int | None = None) -> Run:
        """A run of another name, whose first steps are those of this one; all of them, or up to a number or a checkpoint."""
        number = self.confirmed if at is None else self._number(at)
        scope = Scope(self.scope.user, self.scope.session, name)
        own = digest({"kvstore.agent": "run", "session": scope.session, "run": name, "branch": 0}).hex()
        forked = Run(
            self._agents,
            scope,
            ttl_seconds=self._rest(),
            origin={"run": self.id, "at": number},
            segments=[*self._segments_to(number), (own, None)],
        )
        self.recorder.note("run", "forked", name, reason=f"at step {number}")
        return forked

    @contextlib.contextmanager
    def lane(self, name: str) -> Iterator[None]:
        """Steps within are a sequence of their own, which begins here: for what runs at the same time.

        Each lane that begins at one place has a name of its own.
        """
        above = self._here()
        lane = Lane(self, self._blocks, above.below(f"lane {name}"), f"{above.name}/{above.cursor}~{name}")
        tokens = (_lane.set(lane), place.set(lane.place))
        try:
            yield
        finally:
            place.reset(tokens[1])
            _lane.reset(tokens[0])

    @contextlib.asynccontextmanager
    async def lane_async(self, name: str) -> AsyncIterator[None]:
        """`lane`, for `async with`."""
        with self.lane(name):
            yield

    # ------------------------------------------------------------ log

    def openings(self) -> list[Opening]:
        """When the run was opened, and where."""
        return self.log.openings()

    def events(self, opening: int = -1, *, values: bool = False) -> list[Event]:
        """What was asked and answered since an opening of the run; the last one, unless another is named."""
        count = len(self.openings())
        index = opening if opening >= 0 else count + opening
        return self.log.events(index, values=values) if 0 <= index < count else []

    # ------------------------------------------------------------ with

    def __enter__(self) -> Run:
        token = context.current.set(context.Context(self._agents, self.scope, self))
        self._entered.append((token, place.set(self._main.place)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        token, before = self._entered.pop()
        place.reset(before)
        context.current.reset(token)
        if not self.is_replay:
            self._agents.store.flush()

    async def __aenter__(self) -> Run:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)
