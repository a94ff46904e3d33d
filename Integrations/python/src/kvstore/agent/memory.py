"""The messages of a session: all of them in the run, and as much of them in the prompt as is useful."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .blocks import KIND_JSON, Entry
from .canonical import digest, keyed
from .run import Run
from .steps import StepCall

Message = dict[str, Any]


def estimated_tokens(message: Mapping[str, Any]) -> int:
    """What a message takes, where nobody counts: a token for each four bytes of it."""
    return 4 + len(keyed(dict(message))) // 4


def placeholder(message: Mapping[str, Any], ref: int) -> str:
    """What stands for a long message: "[ref#3: 47 rows]"."""
    content = message.get("content")
    value: Any = content
    if isinstance(content, str):
        try:
            value = json.loads(content)
        except ValueError:
            value = content
    if isinstance(value, list):
        what = f"{len(value)} rows"
    elif isinstance(value, dict):
        what = f"{len(value)} fields"
    else:
        text = str(value)
        lines = text.count("\n") + 1
        what = f"{lines} lines, {len(text)} characters" if lines > 1 else f"{len(text)} characters"
    return f"[ref#{ref}: {what}]"


@dataclass(frozen=True, slots=True)
class Growth:
    """One prompt that was sent."""

    number: int
    """From 1 on."""
    time: float
    tokens: int
    tokens_new: int
    """Behind what it has in common with the one before."""
    tokens_cached: int | None
    """By the server's own count."""
    useful: float
    """The share that is no repetition of a message that stands before it in the prompt."""

    @property
    def hit_rate(self) -> float | None:
        """By the server's own count."""
        return None if self.tokens_cached is None or not self.tokens else self.tokens_cached / self.tokens


@dataclass(frozen=True, slots=True)
class Compaction:
    """What a compaction did."""

    tokens_before: int
    tokens_after: int
    front: int
    """So many messages at the front are as they were: what the server has cached of them stays."""
    replaced: tuple[int, ...]
    """The refs of the messages that are not in the prompt as they were."""


class Memory:
    """The messages of a run, as steps of it.

        memory = Memory(run)
        memory.add({"role": "user", "content": question})
        request = {"messages": memory.messages(), …}

    A program that is started again adds the same messages and is given those that were stored, so `key` stands for a message whose text
    is another each time. tokens counts those of a message.
    """

    def __init__(self, run: Run, *, tokens: Callable[[Mapping[str, Any]], int] = estimated_tokens) -> None:
        self._run, self._count = run, tokens
        # What the prompt is made of: a ref; a ref and a text in its place; a text for several refs. Messages stay in the store.
        self._view: list[dict[str, Any]] = []
        self._sent: list[str] = []
        self._numbers = 0

    def add(self, message: Mapping[str, Any] | Callable[[], Mapping[str, Any]], *, key: Any = None) -> Message:
        """Appends a message, durably, and returns it as it is stored. A function is called only if it is not stored yet."""
        if callable(message):
            if key is None:
                raise TypeError("a message that is made later needs a key")
            make: Callable[[], Mapping[str, Any]] = message
        else:
            given = message
            make = lambda: given  # noqa: E731
        if self._run._here() is not self._run._main:
            raise RuntimeError("messages are of the run, not of a step or a lane within it")
        asked = {"name": "message", "message": key if key is not None else message}
        call = StepCall("message", "message", asked, "", False, dict, None)
        stored: Message = self._run._step(call, make)
        self._view.append({"ref": self._run.position})
        return stored

    def recall(self, ref: int) -> Message:
        """A message as it was, by its ref; give its content to the model at the end of the prompt, which keeps what is before it."""
        entry = self._run._main.entry(ref)
        if entry is None or entry.meta.get("kind") != "message":
            raise LookupError(f"there is no message ref#{ref}")
        message: Message = entry.value
        return message

    @property
    def refs(self) -> list[int]:
        """The refs of all messages, those that are not in the prompt any more too."""
        return [step.number for step in self._run.steps() if step.kind == "message" and step.number <= self._run.position]

    def messages(self) -> list[Message]:
        """The prompt: each message as it was, or what stands in its place."""
        return [self._shown(item) for item in self._view]

    def _shown(self, item: Mapping[str, Any]) -> Message:
        if "ref" not in item:
            return {"role": item["role"], "content": item["text"]}
        message = self.recall(item["ref"])
        return {**message, "content": item["text"]} if "text" in item else message

    def tokens(self) -> int:
        """What the prompt takes."""
        return sum(self._count(message) for message in self.messages())

    # ------------------------------------------------------------ compaction

    def compact(
        self,
        *,
        to_tokens: int,
        over_tokens: int | None = None,
        keep_first: int = 1,
        keep_last: int = 4,
        summarise: Callable[[list[Message]], str] | None = None,
        long_tokens: int = 200,
    ) -> Compaction | None:
        """Makes the prompt smaller, if it takes more than `over_tokens` (or `to_tokens`); None: it does not, or nothing can go.

        Each compaction costs what the server has cached behind the front, so let it be seldom: `over_tokens` twice `to_tokens`.

        The first and the last messages stay as they are. In between, long results of tools are replaced by placeholders, the oldest
        first, as far as that helps; where it does not suffice and there is a `summarise`, all of it is replaced by its text. The cut is
        never between a call of a tool and its result. What was replaced stays in the run: `recall(ref)`.
        """
        before = self.tokens()
        if before <= (to_tokens if over_tokens is None else max(to_tokens, over_tokens)):
            return None
        first, last = self._bounds(keep_first, keep_last)
        if first >= last:
            return None
        asked = {"name": "compaction", "view": hashlib.sha256(keyed(self._view)).hexdigest(), "to": to_tokens, "by": bool(summarise)}
        call = StepCall("compaction", "compaction", asked, "", False, None, None)
        old = self._view
        self._view = self._run._step(call, lambda: self._smaller(first, last, to_tokens, before, summarise, long_tokens))
        if self._view == old:
            return None
        front = next((index for index, (left, right) in enumerate(zip(old, self._view)) if left != right), len(self._view))
        kept = {item["ref"] for item in self._view if "ref" in item and "text" not in item}
        replaced = tuple(item["ref"] for item in old if "ref" in item and "text" not in item and item["ref"] not in kept)
        return Compaction(before, self.tokens(), front, replaced)

    def _bounds(self, keep_first: int, keep_last: int) -> tuple[int, int]:
        """Between which messages something may be replaced."""
        count = len(self._view)
        first, last = min(keep_first, count), min(count, max(keep_first, count - keep_last))
        shown = self.messages()

        def is_result(message: Mapping[str, Any]) -> bool:
            content = message.get("content")
            return message.get("role") == "tool" or (
                isinstance(content, list) and any(isinstance(part, dict) and part.get("type") == "tool_result" for part in content)
            )

        # A result goes with its call.
        while first < count and is_result(shown[first]):
            first += 1
        while first < last < count and is_result(shown[last]):
            last -= 1
        return first, max(first, last)

    def _smaller(
        self,
        first: int,
        last: int,
        to_tokens: int,
        tokens: int,
        summarise: Callable[[list[Message]], str] | None,
        long_tokens: int,
    ) -> list[dict[str, Any]]:
        view = [dict(item) for item in self._view]
        for index in range(first, last):
            item = view[index]
            if tokens <= to_tokens:
                return view
            if "ref" not in item or "text" in item:
                continue
            message = self.recall(item["ref"])
            if message.get("role") != "tool" or self._count(message) < long_tokens:
                continue
            short = placeholder(message, item["ref"])
            tokens -= self._count(message) - self._count({**message, "content": short})
            item["text"] = short
        if tokens > to_tokens and summarise is not None and last > first:
            middle = view[first:last]
            refs = [ref for item in middle for ref in ([item["ref"]] if "ref" in item else item["refs"])]
            text = summarise([self._shown(item) for item in self._view[first:last]])
            note = f"{text}\n[ref#{refs[0]} to ref#{refs[-1]}]"
            view[first:last] = [{"role": "user", "text": note, "refs": refs}]
        return view

    # ------------------------------------------------------------ growth

    def sent(self, *, tokens: int | None = None, tokens_cached: int | None = None) -> Growth:
        """Notes that the prompt was sent. tokens and tokens_cached: by the server's own count, where it gives them."""
        messages = self.messages()
        sizes = [self._count(message) for message in messages]
        marks = [digest(message).hex() for message in messages]
        common = 0
        while common < min(len(marks), len(self._sent)) and marks[common] == self._sent[common]:
            common += 1
        self._sent = marks
        seen: set[str] = set()
        useful = 0
        for message, size in zip(messages, sizes, strict=True):
            content = digest(message.get("content")).hex()
            useful += 0 if content in seen else size
            seen.add(content)
        own = sum(sizes)
        total = own if tokens is None else tokens
        # The server's count has what is around the messages too; shares of it are by our own.
        new = round(total * sum(sizes[common:]) / own) if own else 0
        self._numbers += 1
        growth = Growth(self._numbers, time.time(), total, new, tokens_cached, useful / own if own else 1.0)
        if not self._run.is_replay and self._growth.count() < self._numbers:
            document = {
                "tokens": growth.tokens, "new": growth.tokens_new, "cached": growth.tokens_cached, "useful": growth.useful,
            }  # fmt: skip
            self._growth.append(Entry(json.dumps(document).encode(), KIND_JSON, stored=growth.time))
        return growth

    @property
    def _growth(self) -> Any:
        return self._run._list(f"growth {self._run._main.label(1)}")

    def growth(self) -> list[Growth]:
        """All prompts of the run that were sent, in order."""
        return [
            Growth(number, entry.stored, entry.value["tokens"], entry.value["new"], entry.value["cached"], entry.value["useful"])
            for number, entry in enumerate(self._growth.entries(), 1)
        ]


__all__ = ["Compaction", "Growth", "Memory", "Message", "estimated_tokens", "placeholder"]
