"""Runs: steps that are done once, whoever dies; forks, rewinds, checkpoints; what is lost is said."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import TOKENS_PER_BLOCK, identity, open_store, payloads, ran, started

import kvstore
from kvstore.agent import (
    AgentStore,
    DivergenceError,
    LostStepError,
    NotStoredError,
    PolicyError,
    Run,
    RunChangedError,
    UnconfirmedStepError,
)


class Counter:
    """A tool that counts how often it is called."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def __call__(self, value: Any) -> Any:
        self.calls.append(value)
        return {"value": value, "call": len(self.calls)}


def test_a_step_is_done_once_and_answered_from_then_on(path: Path) -> None:
    tool = Counter()
    for _ in range(3):
        with open_store(path) as store, AgentStore(store) as agents, agents.run("r", user="ann") as run:
            answers = [run.step("tool", tool, number) for number in range(5)]
            assert answers == [{"value": number, "call": number + 1} for number in range(5)]
            assert run.confirmed == run.position == 5
            assert [step.asked for step in run.steps()] == [{"name": "tool", "arguments": [number]} for number in range(5)]
            assert len({step.key for step in run.steps()}) == 5
    assert tool.calls == list(range(5))


def test_what_a_step_returns_the_first_time_is_what_it_returns_later(agents: AgentStore) -> None:
    with agents.run("r") as run:
        first = run.step("s", lambda: {"pair": (1, 2.0), "text": "ä"})
    with agents.run("r") as run:
        assert repr(run.step("s", lambda: None)) == repr(first) == repr({"pair": [1, 2.0], "text": "ä"})


def test_results_of_other_kinds(agents: AgentStore) -> None:
    for _ in range(2):
        with agents.run("r") as run:
            assert run.step("bytes", lambda: b"\0\xff") == b"\0\xff"
            assert run.step("none", lambda: None) is None
            assert run.step("set", lambda: {3, 1}, encode=sorted, decode=set) == {1, 3}
            assert run.step("object", lambda thing: 1, object(), key={"thing": 7}) == 1
            with pytest.raises(TypeError, match="give a key"):
                run.step("object", lambda thing: 1, object())
            assert run.position == 4
    with agents.run("q") as run, pytest.raises(TypeError, match="cannot be stored"):
        run.step("object", object)


def test_an_error_is_no_step(agents: AgentStore) -> None:
    def fails() -> None:
        raise OSError("no")

    with agents.run("r") as run:
        for _ in range(2):
            with pytest.raises(OSError, match="no"):
                run.step("s", fails)
        assert run.confirmed == 0
        assert run.step("s", lambda: 1) == 1
        assert [event.outcome for event in run.events()] == ["failed", "failed", "stored"]


def test_what_was_changed_is_named(agents: AgentStore) -> None:
    with agents.run("r") as run:
        run.step("search", lambda query, limit: 1, {"text": "cats", "page": [1, 2]}, limit=3)
    for arguments, limit, name, field in (
        (({"text": "dogs", "page": [1, 2]},), 3, "search", "arguments[0].text"),
        (({"text": "cats", "page": [1, 5]},), 3, "search", "arguments[0].page[1]"),
        (({"text": "cats", "page": [1, 2]},), 4, "search", "named.limit"),
        (({"text": "cats", "page": [1, 2]},), 3, "find", "name"),
        ((), 3, "search", "arguments"),
    ):
        with agents.run("r") as run, pytest.raises(DivergenceError) as caught:
            run.step(name, lambda *a, **n: 2, *arguments, limit=limit)
        assert (caught.value.field, caught.value.call) == (field, f"run/1:{name}")


def test_runs_of_one_name_are_apart_by_user_and_session(agents: AgentStore) -> None:
    values = iter(range(10))
    seen = set()
    for user in ("ann", "bob", None):
        for session in ("s", "t", None):
            with agents.run("r", user=user, session=session) as run:
                seen.add(run.step("s", lambda: next(values)))
    assert len(seen) == 9
    assert [(record.id, record.session) for record in agents.runs("ann")] == [("r", "s"), ("r", "t"), ("r", None)]
    agents.purge(user="ann")
    assert agents.runs("ann") == [] and len(agents.runs("bob")) == 3


def test_fork_rewind_and_resume_behind_a_checkpoint(agents: AgentStore) -> None:
    tool = Counter()
    with agents.run("r", user="ann") as run:
        for number in range(3):
            run.step("t", tool, number)
        run.save({"plan": ["a"]})
        run.checkpoint("planned", state={"at": 3})
        for number in range(3, 6):
            run.step("t", tool, number)
        stored = agents.store.stats()["blocks_stored"]
        fork = run.fork("f", at="planned")
        assert agents.store.stats()["blocks_stored"] - stored <= 3, "a fork shares its front"
        with fork:
            assert fork.confirmed == 5 and fork.state == {"plan": ["a"]}
            assert fork.skip() == {"plan": ["a"]}
            assert fork.step("t", tool, "other") == {"value": "other", "call": 7}
        assert run.confirmed == 8
        back = run.rewind("planned")
        assert back is not None and (back.name, back.state) == ("planned", {"at": 3})
        assert run.confirmed == 5 and run.position == 5
        assert run.step("t", tool, "again") == {"value": "again", "call": 8}
        assert run.rewind(1) is None and run.confirmed == 1
        assert run.step("t", tool, "third way")["call"] == 9
    with agents.run("r", user="ann") as run:
        assert run.step("t", tool, 0)["call"] == 1
        assert run.step("t", tool, "third way")["call"] == 9
    with agents.run("f", user="ann") as fork:
        assert [step.name for step in fork.steps()] == ["t", "t", "t", "state", "planned", "t"]
        assert fork.origin == {"run": "r", "at": 5}
        second = fork.fork("g", at=2)
        assert [step.value["value"] for step in second.steps()] == [0, 1]
        with pytest.raises(ValueError, match="already"):
            fork.fork("r")
        with pytest.raises(LookupError, match="no checkpoint"):
            fork.rewind("nowhere")
    assert len(tool.calls) == 9
    assert [record.id for record in agents.runs("ann")] == ["r", "f", "g"]


def test_a_checkpoint_holds_state_and_kv_against_eviction(path: Path) -> None:
    tokens = list(range(20 * TOKENS_PER_BLOCK))
    with open_store(path, capacity="64MiB") as store, AgentStore(store) as agents:
        kv = agents.kv_namespace(identity(), user="ann")
        kv.offload(kvstore.Prompt(tokens), payloads(range(20)))
        store.flush()
        with agents.run("r", user="ann") as run:
            run.step("s", lambda: os.urandom(50_000).hex())
            point = run.checkpoint("c", tokens=[*tokens, 1, 2], namespace=kv, keep="1h", state=[1])
            assert point.kv_tokens == len(tokens) and point.tokens == (*tokens, 1, 2)
            value = next(run.steps()).value
        # Twice of what the store holds.
        for number in range(40):
            other = kvstore.Prompt(range(10_000 * (number + 1), 10_000 * (number + 1) + 60 * TOKENS_PER_BLOCK))
            assert kv.offload(other, payloads(range(60), seed=number)).status
            store.flush()
        assert store.stats()["blocks_evicted"] > 0
    with open_store(path, capacity="64MiB") as store, AgentStore(store) as agents:
        kv = agents.kv_namespace(identity(), user="ann")
        with agents.run("r", user="ann") as run:
            found = run.checkpoints()[0]
            assert found.state == [1] and kv.match(found.prompt(), peek=True).tokens == len(tokens)
            assert next(run.steps()).value == value
            assert run.release("c") >= 3 and run.release("c") == 0
        assert store.stats()["pins_active"] == 0
        assert agents.purge(user="ann") > 20
        assert kv.match(found.prompt(), peek=True).tokens == 0


def test_a_step_that_left_the_store_is_said(agents: AgentStore) -> None:
    with agents.run("r") as run:
        for number in range(4):
            run.step("s", lambda number: number, number)
        agents.blocks(None).forget(run._main.path_to(3))
    with pytest.raises(LostStepError, match="confirmed 4 steps, and 2 are left"):
        agents.run("r")
    with agents.run("r", lost="again") as run:
        assert [run.step("s", lambda number: -number, number) for number in range(4)] == [0, 1, -2, -3]


def test_a_store_that_takes_nothing_confirms_nothing(path: Path) -> None:
    with open_store(path, admission="second-touch") as store, AgentStore(store) as agents, pytest.raises(NotStoredError):
        with agents.run("r") as run:
            run.step("s", lambda: 1)


def test_steps_within_steps_are_not_done_again(path: Path) -> None:
    inner = Counter()

    def outer(fail: bool) -> int:
        for number in range(3):
            run.step("inner", inner, number)
        if fail:
            raise KeyboardInterrupt
        return 7

    with open_store(path) as store, AgentStore(store) as agents:
        with agents.run("r") as run, pytest.raises(KeyboardInterrupt):
            run.step("outer", lambda: outer(True))
        assert len(inner.calls) == 3
        for _ in range(2):
            with agents.run("r") as run:
                assert run.step("outer", lambda: outer(False)) == 7
                assert run.confirmed == 1
    assert len(inner.calls) == 3


def test_lanes_run_at_the_same_time(agents: AgentStore) -> None:
    calls: list[str] = []

    async def slow(name: str, number: int) -> str:
        calls.append(name)
        await asyncio.sleep(0)
        return f"{name}{number}"

    async def lane(run: Any, name: str, barrier: list[asyncio.Event]) -> list[str]:
        async with run.lane_async(name):
            barrier[0].set() if name == "a" else barrier[1].set()
            await asyncio.gather(*(event.wait() for event in barrier))
            return [await run.step("s", slow, name, number) for number in range(3)]

    async def both() -> list[list[str]]:
        barrier = [asyncio.Event(), asyncio.Event()]
        async with agents.run("r") as run:
            await run.step("first", slow, "x", 0)
            return list(await asyncio.gather(lane(run, "a", barrier), lane(run, "b", barrier)))

    expected = [["a0", "a1", "a2"], ["b0", "b1", "b2"]]
    assert asyncio.run(both()) == expected and asyncio.run(both()) == expected
    assert len(calls) == 7


def test_threads_each_in_a_lane(agents: AgentStore) -> None:
    tool = Counter()
    for _ in range(2):
        with agents.run("r") as run, ThreadPoolExecutor(8) as pool:

            def work(name: int) -> list[Any]:
                with run.lane(str(name)):
                    return [run.step("t", tool, [name, number])["value"] for number in range(5)]

            jobs = [pool.submit(contextvars.copy_context().run, work, name) for name in range(8)]
            assert [job.result() for job in jobs] == [[[name, number] for number in range(5)] for name in range(8)]
    assert len(tool.calls) == 40


def test_one_run_in_two_event_loops(agents: AgentStore) -> None:
    async def tool(number: int) -> int:
        await asyncio.sleep(0)
        return number

    with agents.run("r") as run:

        async def work(first: int) -> list[int]:
            return list(await asyncio.gather(*(run.step("t", tool, number) for number in range(first, first + 3))))

        assert asyncio.run(work(0)) + asyncio.run(work(3)) == list(range(6))


def test_a_run_ends_as_a_whole(agents: AgentStore) -> None:
    # Wherever the end of its life comes.
    with pytest.raises((LostStepError, NotStoredError)):
        with agents.run("r", ttl="300ms") as run:
            for number in itertools.count():
                run.step("s", lambda number: number, number)
    while agents.runs():
        time.sleep(0.01)
    with agents.run("r") as run:
        assert run.step("s", lambda: 3) == 3 and run.confirmed == 1


def test_once_is_once(path: Path) -> None:
    program = """
import sys, os
from kvstore import Store
from kvstore.agent import AgentStore
with Store(sys.argv[1], capacity="128MiB", host="16MiB") as store, AgentStore(store) as agents, agents.run("r") as run:
    run.step("before", lambda: 1)
    run.step("pay", lambda: os._exit(9), once=True)
"""
    process = started(program, path)
    process.communicate(timeout=60)
    assert process.returncode == 9
    with open_store(path) as store, AgentStore(store) as agents, agents.run("r") as run:
        run.step("before", lambda: 2)
        for _ in range(2):
            with pytest.raises(UnconfirmedStepError, match=f"by process {process.pid}"):
                run.step("pay", lambda: 3, once=True)
        run.resolve(again=True)
        assert run.step("pay", lambda: 3, once=True) == 3
    with open_store(path) as store, AgentStore(store) as agents, agents.run("r") as run:
        assert (run.step("before", lambda: 0), run.step("pay", lambda: 0, once=True)) == (1, 3)


def test_policies_take_a_step_out_and_put_it_back(path: Path, tmp_path: Path) -> None:
    rules = tmp_path / "policies.toml"
    rules.write_text("[steps.look]\nbypass = true\n")
    done: list[str] = []

    def look(run: Run, number: int) -> int:
        done.append("look")
        return int(run.step("within", lambda: done.append("within") or number))

    async def later(number: int) -> int:
        done.append("later")
        return number

    def program(run: Run) -> list[Any]:
        found: list[Any] = [run.step("plan", lambda: done.append("plan") or 1)]
        found += [run.step("look", lambda: look(run, len(done)), key=number) for number in range(2)]
        found.append(asyncio.run(run.step("look", later, 5)))
        return [*found, run.step("end", lambda: done.append("end") or 2)]

    with open_store(path) as store, AgentStore(store, policies=rules) as agents:
        with agents.run("r") as run:
            first = program(run)
        # A step that is bypassed is done each time, and what it does within is not.
        with agents.run("r") as run:
            assert program(run) == first
        assert done == ["plan", "look", "within", "look", "within", "later", "end", "look", "look", "later"]
        assert [step.name for step in run.steps()] == ["plan", "end"]
        with agents.replay("r") as run:
            assert program(run) == first
        assert len(done) == 10
        assert agents.metrics.counts()["step", "look", "bypassed"] == 6
        with agents.replay("r") as run, pytest.raises(DivergenceError, match="look"):
            run.step("plan", lambda: 1)
            run.step("look", lambda: 1, key=5)
        # The file is read again; a wrong one changes nothing.
        for wrong in ("[steps.look]\nbypass = 1\n", "[steps.look]\nttl = '1d'\n", "[nodes.look]\n", "no TOML"):
            rules.write_text(wrong)
            with pytest.raises(PolicyError):
                agents.policies.reload()
            with pytest.raises(PolicyError):
                AgentStore(store, policies=rules)
        with agents.run("wrong ones change nothing") as run:
            run.step("look", lambda: 1)
        assert run.confirmed == 0
        rules.write_text("")
        agents.policies.reload()
        with agents.run("s") as run:
            program(run)
        assert [step.name for step in run.steps()] == ["plan", "look", "look", "look", "end"]


def test_a_rewind_elsewhere_is_noticed(agents: AgentStore) -> None:
    with agents.run("r") as run, agents.run("r") as other:
        for number in range(3):
            run.step("s", lambda number: number, number)
        other.rewind(1)
        with pytest.raises(RunChangedError):
            run.step("s", lambda number: number, 3)


STEPS = """
import os, sys
from kvstore import Store
from kvstore.agent import AgentStore
path, count, die, said = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
def tool(number):
    with open(said, "a") as file:
        file.write(f"{number}\\n")
    return {"number": number, "text": str(number) * 100}
store = Store(path, capacity="128MiB", host="16MiB")
agents = AgentStore(store)
with agents.run("r", user="ann") as run:
    for number in range(count):
        if number == die:
            os.kill(os.getpid(), 9)
        run.step("tool", tool, number)
        run.save({"done": list(range(number + 1))})
    print(run.state["done"][-1], run.confirmed)
"""


def check_kills(tmp_path: Path, steps: int, deaths: list[int]) -> None:
    """A run that is killed before each of these steps, on one store."""
    path, said = tmp_path / "store", tmp_path / "said"
    said.touch()
    for die in deaths:
        process = started(STEPS, path, steps, die, said)
        process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL
        assert said.read_text().split() == [str(number) for number in range(die)]
    assert ran(STEPS, path, steps, -1, said).split() == [str(steps - 1), str(2 * steps)]
    assert said.read_text().split() == [str(number) for number in range(steps)], "no tool is called twice"


def test_a_run_that_is_killed_again_and_again_goes_on(tmp_path: Path) -> None:
    check_kills(tmp_path, 10, [1, 4, 7])


@pytest.mark.long
def test_a_run_that_is_killed_at_every_step(tmp_path: Path) -> None:
    for repetition in range(int(os.environ.get("KVSTORE_AGENT_KILLS", "20"))):
        (tmp_path / str(repetition)).mkdir()
        check_kills(tmp_path / str(repetition), 50, list(range(50)))


RACE = """
import sys
from kvstore import Store
from kvstore.agent import AgentStore
path, said = sys.argv[1], sys.argv[2]
def tool(number):
    with open(said, "a") as file:
        file.write(f"{number}\\n")
    return number
sys.stdin.readline()
with Store(path, capacity="128MiB", host="16MiB") as store, AgentStore(store) as agents, agents.run("r") as run:
    print([run.step("t", tool, number) for number in range(40)])
"""


def test_two_processes_on_one_run_do_each_step_once(tmp_path: Path) -> None:
    path, said = tmp_path / "store", tmp_path / "said"
    with open_store(path):
        pass
    processes = [started(RACE, path, said, stdin=-1) for _ in range(3)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=120) for process in processes]
    assert all(process.returncode == 0 for process in processes), outputs
    assert {output for output, _ in outputs} == {str(list(range(40))) + "\n"}
    assert said.read_text().split() == [str(number) for number in range(40)]
    with open_store(path) as store, AgentStore(store) as agents:
        assert [record.id for record in agents.runs()] == ["r"]
        assert len(agents.existing_run("r").openings()) == 3


def test_threads_on_one_run_do_each_step_once(agents: AgentStore) -> None:
    tool = Counter()

    def work() -> list[int]:
        with agents.run("r") as run:
            return [run.step("t", tool, number)["value"] for number in range(20)]

    with ThreadPoolExecutor(6) as pool:
        jobs = [pool.submit(work) for _ in range(6)]
        assert all(job.result() == list(range(20)) for job in jobs)
    assert tool.calls == list(range(20))


def test_tasks_on_one_run_do_each_step_once(agents: AgentStore) -> None:
    calls: list[int] = []

    async def tool(number: int) -> int:
        calls.append(number)
        await asyncio.sleep(0.001)
        return number

    async def work() -> list[int]:
        async with agents.run("r") as run:
            return [await run.step("t", tool, number) for number in range(10)]

    async def all_of_them() -> list[list[int]]:
        return list(await asyncio.gather(*(work() for _ in range(5))))

    assert asyncio.run(all_of_them()) == [list(range(10))] * 5
    assert calls == list(range(10))


def test_a_forked_child_does_not_hold_its_parents_claims(agents: AgentStore) -> None:
    with agents.claims.hold(b"x" * 32, 1) as mine:
        assert mine
        child = os.fork()
        if child == 0:
            threading.Event().wait(30)
            os._exit(0)
    try:
        with agents.claims.hold(b"x" * 32, 20) as mine:
            assert mine
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def growing(steps: int, size: int) -> list[dict[str, Any]]:
    """States that grow to a size, each the one before and a little more."""
    source = random.Random(steps)
    words = ["".join(source.choices("abcdefghijklmnop", k=6)) for _ in range(4_000)]
    messages: list[str] = []
    states = []
    for number in range(steps):
        messages.append(" ".join(source.choices(words, k=size // steps // 7)))
        states.append({"messages": list(messages), "step": number})
    return states


def check_growth(path: Path, steps: int, size: int) -> float:
    """What each snapshot by itself would take, by what the store's payload grew."""
    states = growing(steps, size)
    with open_store(path, capacity="1GiB") as store, AgentStore(store) as agents:
        with agents.run("r") as run:
            for state in states:
                run.save(state)
        grown = store.stats()["payload_bytes_stored"]
        with agents.run("r") as run:
            assert run.state == states[-1]
    import json

    return sum(len(json.dumps(state)) for state in states) / grown


def test_growing_state_is_not_stored_again_and_again(path: Path) -> None:
    assert check_growth(path, 150, 100_000) >= 10


@pytest.mark.long
def test_a_thousand_steps_of_growing_state(path: Path) -> None:
    assert check_growth(path, 1_000, 100_000) >= 10
