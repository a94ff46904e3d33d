"""The messages of a session: what of them is in the prompt, and that nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import open_store

from kvstore.agent import AgentStore, Run
from kvstore.agent.memory import Memory, placeholder


def fill(memory: Memory, turns: int, rows: int = 200) -> None:
    memory.add({"role": "system", "content": "You are brief."})
    for turn in range(turns):
        memory.add({"role": "user", "content": f"question {turn}"})
        call = {"id": f"c{turn}", "type": "function", "function": {"name": "list", "arguments": "{}"}}
        memory.add({"role": "assistant", "content": None, "tool_calls": [call]})
        memory.add({"role": "tool", "tool_call_id": f"c{turn}", "content": json.dumps([{"turn": turn, "n": n} for n in range(rows)])})
        memory.add({"role": "assistant", "content": f"answer {turn}"})


def test_placeholders_say_what_was_there() -> None:
    assert placeholder({"content": json.dumps([1] * 47)}, 3) == "[ref#3: 47 rows]"
    assert placeholder({"content": '{"a": 1, "b": 2}'}, 4) == "[ref#4: 2 fields]"
    assert placeholder({"content": "one\ntwo"}, 5) == "[ref#5: 2 lines, 7 characters]"
    assert placeholder({"content": [1, 2]}, 6) == "[ref#6: 2 rows]"


def test_compaction_leaves_the_front_and_loses_nothing(path: Path) -> None:
    with open_store(path) as store, AgentStore(store) as agents:
        for _ in range(2):
            with agents.run("r", user="ann") as run:
                memory = Memory(run)
                fill(memory, 6)
                whole = memory.messages()
                assert memory.compact(to_tokens=10**6) is None
                done = memory.compact(to_tokens=memory.tokens() // 2, keep_first=1, keep_last=4)
                assert done is not None and done.tokens_after <= done.tokens_before // 2
                assert done.front == 3 and done.replaced == (4, 8, 12, 16)
                shown = memory.messages()
                assert shown[:3] == whole[:3] and shown[-4:] == whole[-4:] and len(shown) == len(whole)
                assert shown[3] == {**whole[3], "content": "[ref#4: 200 rows]"}
                assert [memory.recall(ref) for ref in memory.refs] == whole
                again = memory.compact(to_tokens=300, keep_last=4, summarise=lambda messages: f"{len(messages)} messages")
                assert again is not None and again.front == 1
                assert memory.messages()[1]["content"] == "20 messages\n[ref#2 to ref#21]"
                assert memory.messages()[2:] == whole[-4:]
                memory.add({"role": "user", "content": "more"})
                assert memory.compact(to_tokens=1, keep_first=20) is None
                assert memory.recall(4)["content"] == whole[3]["content"]
                assert run.position == 25 + 2 + 1
            assert agents.metrics.counts()["step", "message", "stored"] == 26
        with pytest.raises(LookupError, match="ref#99"):
            memory.recall(99)


def test_a_call_is_not_parted_from_its_result(agents: AgentStore) -> None:
    for keep_first in (1, 2, 4, 5):
        for keep_last in (0, 1, 3):
            with agents.run(f"r{keep_first} {keep_last}") as run:
                memory = Memory(run)
                fill(memory, 3)
                memory.compact(to_tokens=1, keep_first=keep_first, keep_last=keep_last, summarise=lambda _: "summary")
                open_calls: set[Any] = set()
                for message in memory.messages():
                    open_calls |= {call["id"] for call in message.get("tool_calls", [])}
                    if message["role"] == "tool":
                        assert message["tool_call_id"] in open_calls


def test_growth_is_measured(agents: AgentStore) -> None:
    def program(run: Run) -> list[tuple[int, int, float]]:
        memory = Memory(run, tokens=lambda message: len(message["content"] or ""))
        seen = []
        for text in ("aaaa", "bb", "aaaa"):
            memory.add({"role": "user", "content": text})
            growth = memory.sent(tokens_cached=memory.tokens() - len(text))
            seen.append((growth.tokens, growth.tokens_new, growth.useful))
        return seen

    expected = [(4, 4, 1.0), (6, 2, 1.0), (10, 4, 0.6)]
    for _ in range(2):
        with agents.run("r") as run:
            assert program(run) == expected
            found = Memory(run).growth()
            assert [(growth.tokens, growth.tokens_new, growth.useful) for growth in found] == expected
            assert [growth.hit_rate for growth in found] == [0.0, 4 / 6, 0.6]


def test_a_message_that_is_made_once(agents: AgentStore) -> None:
    made: list[int] = []

    def make() -> dict[str, Any]:
        made.append(1)
        return {"role": "user", "content": f"it is {len(made)}"}

    for _ in range(2):
        with agents.run("r") as run:
            assert Memory(run).add(make, key="now")["content"] == "it is 1"
            with pytest.raises(TypeError, match="key"):
                Memory(run).add(make)
    assert made == [1]
