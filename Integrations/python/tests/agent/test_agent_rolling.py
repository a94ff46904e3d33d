"""Registers and histories of writes stay as small as what they speak of."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import identity, open_store, ran
from test_agent_carry import operate
from test_agent_tools import check_world

import kvstore
from kvstore.agent import AgentStore, Runtime, tool_cache
from kvstore.agent.blocks import KIND_BYTES, Entry
from kvstore.agent import rolling, runtime
from kvstore.agent.rolling import Generations, RollingList
from kvstore.agent.runtime import fronts

# Of 256: what happens at the end of a generation happens sooner.
GENERATION_ENTRIES = 16
world = {"value": 0}


@pytest.fixture(autouse=True)
def short_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rolling, "GENERATION_ENTRIES", GENERATION_ENTRIES)
    monkeypatch.setattr(runtime, "FRONTS_MAX", GENERATION_ENTRIES)


@tool_cache(scope="user", reads=["value"], ttl="1d")
def read() -> int:
    return world["value"]


@tool_cache(scope="user", writes=["value"])
def write(value: int) -> None:
    world["value"] = value


def blocks_of(store: kvstore.Store) -> int:
    return int(store.stats()["blocks_stored"])


def test_a_history_of_writes_begins_anew(path: Path) -> None:
    with open_store(path) as store, AgentStore(store) as agents, AgentStore(store) as sleeper:
        with sleeper.scope(user="ann"):
            world["value"] = -1
            assert read() == -1
        counts = []
        for number in range(4 * GENERATION_ENTRIES + 10):
            with agents.scope(user="ann"):
                write(number)
                if number % 5 == 0:
                    assert read() == number
            if number % GENERATION_ENTRIES == GENERATION_ENTRIES - 1:
                counts.append(blocks_of(store))
            if number in (GENERATION_ENTRIES + 5, 3 * GENERATION_ENTRIES + 5):
                # One that has slept through a generation, or two.
                with sleeper.scope(user="ann"):
                    assert read() == number
        # Without generations it would be a hundred more with each.
        assert counts[-1] - counts[0] < 2 * GENERATION_ENTRIES, counts
    with open_store(path) as store, AgentStore(store) as agents, agents.scope(user="ann"):
        assert read() == world["value"]
        agents.purge(user="ann")
        world["value"] = 7
        assert read() == 7
        write(8)
        assert read() == 8


def test_no_answer_is_older_than_the_world_across_generations(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rolling, "GENERATION_ENTRIES", 4)
    outcomes = check_world(path, 700, 21)
    assert outcomes["hit"] > 100 and set(outcomes) == {"hit", "stored"}


OTHER = """
import sys
from conftest import open_store
from kvstore.agent import AgentStore, rolling, tool_cache

rolling.GENERATION_ENTRIES = int(sys.argv[3])

@tool_cache(scope="user", writes=["value"])
def write(value):
    pass

with open_store(sys.argv[1]) as store, AgentStore(store) as agents, agents.scope(user="ann"):
    for number in range(int(sys.argv[2])):
        write(number)
"""


def test_another_process_begins_a_generation(path: Path) -> None:
    tests = f"import sys; sys.path.insert(0, {str(Path(__file__).parent.parent)!r})\n"
    with open_store(path) as store, AgentStore(store) as agents, agents.scope(user="ann"):
        for rounds in range(3):
            world["value"] = rounds
            assert read() == rounds
            ran(tests + OTHER, path, (1 + rounds) * GENERATION_ENTRIES, GENERATION_ENTRIES)
            world["value"] = 100 + rounds
            assert read() == 100 + rounds
            write(0)


def test_writers_at_the_same_time_lose_no_write(path: Path) -> None:
    with open_store(path) as store, AgentStore(store) as agents:

        def work(thread: int) -> None:
            with agents.scope(user="ann"):
                for number in range(40):
                    write(1000 * thread + number)
                    read()

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with agents.scope(user="ann"):
            assert read() == world["value"]
            world["value"] = -5
            assert read() != -5
            write(-6)
            assert read() == -6


def test_the_register_of_runs_holds_those_that_are_there(path: Path) -> None:
    with open_store(path) as store, AgentStore(store) as agents:
        for number in range(5):
            agents.run(f"stays {number}", user="ann")
        counts = []
        for number in range(3 * GENERATION_ENTRIES):
            run = agents.run(f"goes {number}", user="ann")
            agents.blocks("ann").forget(run._record_path)
            if number % GENERATION_ENTRIES == GENERATION_ENTRIES - 1:
                counts.append(blocks_of(store))
        assert counts[-1] - counts[0] < GENERATION_ENTRIES, counts
        assert [record.id for record in agents.runs("ann")] == [f"stays {number}" for number in range(5)]
        # Those that are all there stay, however many they are.
        for number in range(GENERATION_ENTRIES + 30):
            agents.run(f"more {number}", user="bob")
        assert len(agents.runs("bob")) == GENERATION_ENTRIES + 30
    with open_store(path) as store, AgentStore(store) as agents:
        assert len(agents.runs("ann")) == 5


def test_the_operators_command_finds_the_current_register(tmp_path: Path) -> None:
    with open_store(tmp_path / "s") as store, AgentStore(store) as agents:
        agents.run("stays", user="ann").step("s", lambda: 1)
        for number in range(2 * GENERATION_ENTRIES):
            run = agents.run(f"goes {number}", user="ann")
            agents.blocks("ann").forget(run._record_path)
        found = json.loads(operate("inspect", "runs", tmp_path / "s", "--json"))["runs"]
        assert [run["run"] for run in found] == ["stays"]
        operate("export", tmp_path / "s", tmp_path / "file", "--run", "stays", "--user", "ann")
        agents.blocks("ann").forget(agents.existing_run("stays", user="ann")._record_path)
    operate("import", tmp_path / "s", tmp_path / "file", "--user", "ann")
    with open_store(tmp_path / "s") as store, AgentStore(store) as agents:
        assert [run.id for run in agents.runs("ann")] == ["stays"]
        # One that is made again and again is there once.
        for _ in range(2 * GENERATION_ENTRIES):
            agents.blocks("ann").forget(agents.existing_run("stays", user="ann")._record_path)
            agents.run("stays", user="ann")
        assert [run.id for run in agents.runs("ann")] == ["stays"]
        assert len(agents._runs("ann").entries()) <= 2 * GENERATION_ENTRIES
    assert [run["run"] for run in json.loads(operate("inspect", "runs", tmp_path / "s", "--json"))["runs"]] == ["stays"]


def test_the_register_of_fronts_keeps_the_newest(path: Path) -> None:
    with open_store(path) as store, AgentStore(store) as agents:
        for number in range(3 * GENERATION_ENTRIES):
            with agents.run(f"r {number}") as run:
                last = Runtime(run, lambda body: {}, model="m", system=f"front {number}").front()
        assert GENERATION_ENTRIES // 2 <= len(fronts(agents)) <= GENERATION_ENTRIES
        assert fronts(agents)[-1] == last


def test_namespaces_that_left_leave_the_register(path: Path) -> None:
    with open_store(path) as store, AgentStore(store) as agents:
        for number in range(GENERATION_ENTRIES + 10):
            with agents.kv_namespace(identity(model_name=f"m {number}"), user="ann"):
                pass
        # Empty ones leave by themselves; what is opened again is entered again.
        with agents.kv_namespace(identity(model_name="m 3"), user="ann") as kv:
            assert kv.identity.salt == agents.salt("ann")
            assert "m 3" in [found.model_name for found in agents._kv_identities("ann")]


@pytest.mark.parametrize("stop", range(12))
def test_a_process_that_dies_while_a_generation_begins(path: Path, stop: int) -> None:
    """After each of its calls of the store: what is kept is there, and the next one goes on."""

    class Died(Exception):
        pass

    class Dying:
        def __init__(self, blocks: Any) -> None:
            self._blocks, self.left = blocks, 10**9

        def __getattr__(self, name: str) -> Any:
            found = getattr(self._blocks, name)
            if name not in ("put", "forget", "flush"):
                return found

            def call(*arguments: Any, **named: Any) -> Any:
                if self.left == 0:
                    raise Died
                self.left -= 1
                return found(*arguments, **named)

            return call

    with open_store(path) as store, AgentStore(store) as agents:
        blocks = agents.blocks("ann")

        def registers(where: Any) -> RollingList:
            return RollingList(where, agents.claims, b"k" * 32, is_kept=lambda entry: entry.content[0] == 1)

        for begun in range(2):
            for number in range(GENERATION_ENTRIES - 1 - (5 * begun)):
                registers(blocks).append(Entry(bytes([number % 5 == 2, begun, number % 256]), KIND_BYTES))
            before = registers(blocks).entries()
            dying = Dying(blocks)
            dying.left = stop + 2
            try:
                registers(dying).append(Entry(bytes([1, 9, 9]), KIND_BYTES))
            except Died:
                pass
            kept = [entry.content for entry in before if entry.content[0] == 1]
            found = [entry.content for entry in registers(blocks).entries()]
            assert [content for content in found if content[0] == 1][: len(kept)] == kept
            registers(blocks).append(Entry(bytes([1, 8, 8]), KIND_BYTES))
            assert registers(blocks).entries()[-1].content == bytes([1, 8, 8])


def test_generations_are_agreed_on_whoever_sleeps(path: Path) -> None:
    with open_store(path) as store, AgentStore(store) as agents:
        blocks = agents.blocks(None)

        def generations() -> Generations:
            return Generations(blocks, agents.claims, b"g" * 32, claim_seconds=5)

        sleepers = [generations() for _ in range(8)]
        for number in range(1, 9):
            assert sleepers[number - 1].number() == number - 1
            generations().begin(number)
            assert generations().number() == number
        assert [sleeper.number() for sleeper in sleepers] == [8] * 8
