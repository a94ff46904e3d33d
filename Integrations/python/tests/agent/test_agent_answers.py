"""Answers of models: no field left out of a key, streams as streams, equal requests at once as one."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import open_store

from kvstore.agent import AgentStore, Answers, DivergenceError, Prices, last_answer

REQUEST: dict[str, Any] = {
    "model": "gpt-5-mini-2025-08-07",
    "temperature": 0,
    "top_p": 1.0,
    "max_completion_tokens": 512,
    "n": 1,
    "seed": 7,
    "stop": ["\n\n", "END"],
    "presence_penalty": 0.0,
    "frequency_penalty": 0.25,
    "logit_bias": {"50256": -100},
    "logprobs": False,
    "top_logprobs": 0,
    "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object", "properties": {}}}},
    "reasoning_effort": "low",
    "service_tier": "default",
    "user": "user-1",
    "parallel_tool_calls": True,
    "tool_choice": {"type": "function", "function": {"name": "search"}},
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "search",
                "description": "Finds pages.",
                "strict": True,
                "parameters": {
                    "type": "object",
                    "properties": {"query": {"type": "string", "maxLength": 100}, "limit": {"type": "integer", "default": 10}},
                    "required": ["query"],
                },
            },
        },
        {"type": "function", "function": {"name": "read", "parameters": {"type": "object", "properties": {"id": {"type": "integer"}}}}},
    ],
    "messages": [
        {"role": "system", "content": "You answer briefly."},
        {"role": "user", "content": [{"type": "text", "text": "What is in it?"},
                                     {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}]},
        {"role": "assistant", "content": None,
         "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "search", "arguments": '{"query": "x"}'}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "[1, 2]"},
        {"role": "user", "content": "And now?"},
    ],
    "stream": False,
    "metadata": {"trace": "t1"},
}  # fmt: skip


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """All places in a request, those within others too."""
    if path:
        yield path
    if isinstance(value, dict):
        for name in value:
            yield from leaves(value[name], (*path, name))
    elif isinstance(value, list):
        for index in range(len(value)):
            yield from leaves(value[index], (*path, index))


def at(request: Any, path: tuple[Any, ...]) -> Any:
    for name in path:
        request = request[name]
    return request


def changed(request: dict[str, Any], path: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
    """The request with one place changed in each way that there is."""
    old = at(request, path)
    news: list[Any] = [[old], {"x": old}, str(old) + " "]
    if isinstance(old, bool):
        news += [not old, int(old)]
    elif isinstance(old, (int, float)):
        news += [old + 1, str(old), old + 1e-9]
    elif isinstance(old, str):
        news += [old.upper() + "!", old[:-1], old + "\u200b", None]
    elif isinstance(old, list):
        news += [[*old, old[-1]], old[:-1], list(reversed(old))] if old else [[1]]
    elif isinstance(old, dict):
        news += [{**old, "extra": 1}]
    else:
        news += ["", 0, False, {}]
    for new in news:
        copied = copy.deepcopy(request)
        at(copied, path[:-1])[path[-1]] = new
        yield copied
    copied = copy.deepcopy(request)
    parent = at(copied, path[:-1])
    del parent[path[-1]]
    yield copied


def variants() -> list[dict[str, Any]]:
    """The request, with every field changed by itself, and every pair of its first 20."""
    made = [REQUEST]
    for path in leaves(REQUEST):
        made += changed(REQUEST, path)
    for one, two in itertools.combinations(list(REQUEST)[:20], 2):
        swapped = dict(REQUEST)
        swapped[one], swapped[two] = REQUEST[two], REQUEST[one]
        made.append(swapped)
        made.append({name: value for name, value in REQUEST.items() if name not in (one, two)})
        made.append({**REQUEST, one: "changed", two: "changed"})
    unique = {json.dumps(variant, sort_keys=True): variant for variant in made}
    return list(unique.values())


def same(left: Any, right: Any) -> bool:
    """Whether two requests are one JSON value: 1 and 1.0 are, 1 and true are not."""
    if isinstance(left, bool) or isinstance(right, bool) or type(left) is not type(right):
        return left is right or (
            not isinstance(left, bool) and not isinstance(right, bool)
            and isinstance(left, (int, float)) and isinstance(right, (int, float)) and left == right
        )  # fmt: skip
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def test_every_field_is_in_the_key(agents: AgentStore) -> None:
    answers = Answers(agents, sampled=True)
    all_variants = variants()
    assert len(all_variants) > 900
    with agents.scope(user="ann"):
        keys = [answers._question(variant, {}).path for variant in all_variants]
        # Those that differ in how a number is written alone are one request.
        groups: dict[bytes, Any] = {}
        for key, variant in zip(keys, all_variants, strict=True):
            assert same(groups.setdefault(key, variant), variant), "an answer to another request"
        assert len(groups) > 900
        for variant in all_variants[::15]:
            assert same(answers.ask(variant, lambda request: {"echo": dict(request)})["echo"], variant)
        for variant in all_variants[::15]:
            reordered = json.loads(json.dumps(variant, sort_keys=True))
            assert same(answers.ask(reordered, lambda request: {"echo": "asked again"})["echo"], variant)


@pytest.mark.long
def test_every_field_is_in_the_key_of_what_is_stored(agents: AgentStore) -> None:
    answers = Answers(agents, sampled=True)
    with agents.scope(user="ann"):
        for variant in variants():
            assert same(answers.ask(variant, lambda request: {"echo": dict(request)})["echo"], variant)


def test_what_is_no_request_separates_too(agents: AgentStore) -> None:
    numbers = itertools.count()

    def ask(request: dict[str, Any] = REQUEST, user: str = "ann", fresh: bool = False, **options: Any) -> int:
        with agents.scope(user=user):
            return int(Answers(agents, **options).ask(request, lambda _: next(numbers), fresh=fresh))

    first = ask()
    assert ask() == first
    others = [
        ask(user="bob"),
        ask(version="2"),
        ask(provider="elsewhere"),
        ask(scope="global"),
        ask(leave_out=["metadata"]),
        ask(leave_out=["user"]),
    ]
    assert len({first, *others}) == 7
    assert ask({**REQUEST, "metadata": {"trace": "t2"}}, leave_out=["metadata"]) == others[4]
    assert ask({**REQUEST, "metadata": {"trace": "t2"}}, leave_out=["metadata.trace"]) == ask(leave_out=["metadata.trace"])
    renewed = ask(fresh=True)
    assert renewed > first and ask() == renewed
    with pytest.raises(ValueError, match="needs a user"):
        Answers(agents).ask(REQUEST, lambda _: 1)


def test_what_is_sampled_is_kept_only_if_asked(agents: AgentStore) -> None:
    numbers = itertools.count()
    hot = {**REQUEST, "temperature": 0.7}
    silent = {name: value for name, value in REQUEST.items() if name != "temperature"}
    with agents.scope(user="ann"):
        for request in (hot, silent):
            plain = Answers(agents)
            assert plain.ask(request, lambda _: next(numbers)) != plain.ask(request, lambda _: next(numbers))
            assert last_answer().outcome == "bypassed"
            kept = Answers(agents, sampled=True)
            assert kept.ask(request, lambda _: next(numbers)) == kept.ask(request, lambda _: next(numbers))


def test_streams_are_streams_and_half_of_one_is_nothing(agents: AgentStore) -> None:
    calls: list[int] = []

    def stream(request: Any) -> Iterator[str]:
        calls.append(1)
        yield from ("a", "b", "c")

    async def stream_async(request: Any) -> AsyncIterator[str]:
        calls.append(2)
        for item in "xyz":
            yield item

    answers = Answers(agents, scope="global")
    reading = answers.stream(REQUEST, stream)
    assert next(reading) == "a"
    reading.close()
    assert list(answers.stream(REQUEST, stream)) == list(answers.stream(REQUEST, stream)) == ["a", "b", "c"]
    assert calls == [1, 1]

    async def read() -> list[str]:
        return [item async for item in answers.stream_async({**REQUEST, "n": 2}, stream_async)]

    assert asyncio.run(read()) == asyncio.run(read()) == ["x", "y", "z"]
    assert calls == [1, 1, 2]


def test_equal_requests_at_once_are_one(agents: AgentStore) -> None:
    calls: list[int] = []
    answers = Answers(agents, scope="global")

    def call(request: Any) -> int:
        calls.append(1)
        time.sleep(0.05)
        return len(calls)

    async def call_async(request: Any) -> int:
        calls.append(2)
        await asyncio.sleep(0.05)
        return len(calls)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: answers.ask(REQUEST, call), range(8))) == {1}

    async def all_of_them() -> set[int]:
        request = {**REQUEST, "n": 3}
        return set(await asyncio.gather(*(answers.ask_async(request, call_async) for _ in range(8))))

    assert asyncio.run(all_of_them()) == {2}
    assert calls == [1, 2]


def test_a_run_asks_no_model_twice(path: Path) -> None:
    calls: list[str] = []

    def model(request: Any) -> dict[str, Any]:
        calls.append(request["messages"][0]["content"])
        if calls[-1] == "fail":
            raise ConnectionError("reset")
        return {"text": f"{len(calls)} " + "long " * 3_000}

    def program(agents: AgentStore, last: str) -> list[str]:
        answers = Answers(agents)
        found = []
        for text in ("one", "fail", "two", last):
            request = {"model": "m", "temperature": 1, "messages": [{"role": "user", "content": text}]}
            try:
                found.append(answers.ask(request, model)["text"])
            except ConnectionError as error:
                found.append(str(error))
        return found

    with open_store(path) as store, AgentStore(store) as agents:
        with agents.run("r", user="ann"):
            first = program(agents, "three")
        assert calls == ["one", "fail", "two", "three"]
        with agents.run("r", user="ann"):
            # What failed is tried again; what was answered is not asked again, although it is sampled.
            assert program(agents, "three")[2:] == first[2:]
        assert calls == ["one", "fail", "two", "three", "fail"]
        with agents.replay("r", user="ann", opening=0):
            assert program(agents, "three") == first
        with agents.replay("r", user="ann", opening=0), pytest.raises(DivergenceError) as caught:
            program(agents, "four")
        assert caught.value.field == "request.messages[0].content"
        assert (caught.value.recorded, caught.value.asked) == ("three", "four")
        assert len(calls) == 5


def test_what_was_saved(path: Path, tmp_path: Path) -> None:
    prices = tmp_path / "prices.json"
    provider = {"read": 0.1, "write": 1.25, "models": {"gpt-5": 1.25, "gpt-5-mini": 0.25}, "outputs": {"gpt-5-mini": 2}}
    prices.write_text(json.dumps({"currency": "USD", "providers": [provider]}))
    with open_store(path) as store, AgentStore(store, prices=prices) as agents:
        answers = Answers(agents, scope="global")
        for _ in range(3):
            answers.ask(REQUEST, lambda _: {"usage": {"prompt_tokens": 1_000_000, "completion_tokens": 1_000}})
        saved = agents.metrics.saved()["answer", REQUEST["model"]]
        assert (saved["calls"], saved["tokens"], round(saved["money"], 6)) == (2, 2_002_000, 0.504)
        # The log has it as well, also what a run that goes on is answered from its own record.
        for _ in range(2):
            with agents.run("r") as run:
                answers.ask(REQUEST, lambda _: None)
        (event,) = [event for event in run.events() if event.layer == "answer"]
        assert (event.outcome, event.tokens, round(event.money or 0, 6)) == ("recorded", (1_000_000, 1_000), 0.252)
    list_ = Prices(prices)
    # Of the prompt a half was cached; the other is written to the cache.
    assert round(list_.money("gpt-5-mini-x", 1_000_000, 500_000, tokens_cached=500_000), 6) == 1.16875
    assert (list_.money("gpt-5", 1_000_000, 10), list_.money("other", 1, 1)) == (1.25, 0.0)
