"""Tool results: what is one call, what ends a result, and that none is older than a write that it depends on."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import open_store, ran, started

import kvstore
from kvstore.agent import (
    AgentStore,
    Answers,
    DivergenceError,
    Policies,
    PolicyError,
    RecordedToolError,
    last_answer,
    tool_cache,
)
from kvstore.agent.equivalence import canonical_arguments

SCHEMA = {
    "properties": {
        "city": {"type": "string", "x-normalize": ["trim", "collapse", "casefold", "nfc"]},
        "radius": {"type": "number", "x-unit": "m", "default": "1 km"},
        "tags": {"type": "array", "items": {"type": "string"}, "x-unordered": True},
        "limit": {"type": "integer", "default": 10},
        "filter": {"type": "object", "properties": {"open": {"type": "boolean", "default": False}}},
    },
    "required": ["city"],
}


def test_calls_that_do_the_same_are_one(agents: AgentStore) -> None:
    calls: list[Any] = []

    @tool_cache(scope="user", schema=SCHEMA)
    def find(city: str, radius: Any = "1 km", tags: Any = (), limit: Any = 10, **more: Any) -> int:
        calls.append(city)
        return len(calls)

    with agents.scope(user="ann"):
        assert find("Zürich") == 1
        for same in (
            lambda: find(city="Zürich"),
            lambda: find("  ZÜRICH ", limit=10.0),
            lambda: find("Zu\u0308rich", limit="10"),
            lambda: find("zürich", radius=1000, tags=[]),
            lambda: find("zürich", "1000m"),
            lambda: find("zürich", "100000 cm"),
        ):
            assert same() == 1
        assert find("zürich", tags=["b", "a"]) == 2 and find("zürich", tags=["a", "b"]) == 2
        assert find("zürich", filter={}) == 3 and find("zürich", filter={"open": False}) == 3
        for number, other in enumerate(
            (
                lambda: find("Basel"),
                lambda: find("zürich", 999),
                lambda: find("zürich", limit=11),
                lambda: find("zürich", limit="ten"),
                lambda: find("zürich", tags=["a"]),
                lambda: find("zürich", filter={"open": True}),
                lambda: find("zür ich"),
                lambda: find("zürich", more=None),
            )
        ):
            assert other() == 4 + number


def test_units_lose_nothing() -> None:
    schema = {"properties": {"d": {"x-unit": "km"}}}
    forms = [canonical_arguments({"d": d}, schema) for d in ("1.5 km", "1500 m", 1.5, "1500000mm", "0.0015e3")]
    assert all(form == forms[0] for form in forms)
    different = ["1.5000000000000001 km", "1.5 h", "1.5 parsec", "about 1.5 km", "1.5", "15", 1.6]
    assert len({str(canonical_arguments({"d": d}, schema)) for d in different}) == len(different)
    with pytest.raises(ValueError, match="x-unit"):
        tool_cache(schema={"properties": {"d": {"x-unit": "furlong"}}})


def test_keys_are_complete(agents: AgentStore) -> None:
    """Each argument changed by itself and each pair of them: no result is another call's."""
    calls: list[Any] = []

    @tool_cache(scope="global")
    def tool(**arguments: Any) -> list[Any]:
        calls.append(arguments)
        return [len(calls), arguments]

    base = {f"a{number}": [number, str(number), {"x": number}, [number], True][number % 5] for number in range(20)}
    changes = [lambda v: [v], lambda v: str(v), lambda v: None, lambda v: {"v": v}]
    variants = [base]
    for name in base:
        variants += [{**base, name: change(base[name])} for change in changes]
        variants.append({key: value for key, value in base.items() if key != name})
    for one, two in itertools.combinations(base, 2):
        variants.append({**base, one: base[two], two: base[one]})
    unique = {repr(sorted(variant.items(), key=str)): variant for variant in variants}
    with agents.scope():
        first = [tool(**variant)[0] for variant in unique.values()]
        again = [tool(**dict(reversed(variant.items()))) for variant in unique.values()]
    assert len(set(first)) == len(unique) == len(calls)
    assert [answer[0] for answer in again] == first
    assert all(answer[1] == variant for answer, variant in zip(again, unique.values(), strict=True))


def test_a_verifier_has_the_last_word(agents: AgentStore) -> None:
    calls: list[str] = []

    @tool_cache(
        scope="global",
        normalise=lambda arguments: {"words": sorted(arguments["question"].lower().split())},
        verify=lambda now, then: ("not" in now["question"].split()) == ("not" in then["question"].split()),
    )
    def ask(question: str) -> str:
        calls.append(question)
        return f"answer {len(calls)}"

    with agents.scope():
        assert ask("is it safe") == ask("is safe it") == "answer 1"
        assert ask("not is it safe") == "answer 2"


def test_lives_versions_scopes_and_policies(path: Path, tmp_path: Path) -> None:
    calls: list[str] = []
    file = tmp_path / "policies.toml"
    file.write_text("")
    with open_store(path) as store, AgentStore(store, policies=file) as agents:

        def make(**options: Any) -> Any:
            @tool_cache(name="t", **options)
            def tool(x: int) -> int:
                calls.append("t")
                return len(calls)

            return tool

        short, long, next_version = make(ttl="30ms"), make(ttl=None, version="2"), make(ttl=None, version="3")
        with agents.scope(user="ann", session="s"):
            first = short(1)
            while short(1) == first:
                time.sleep(0.01)
            assert long(1) == long(1) != next_version(1)
            mine, ours = make(scope="session"), make(scope="global")
            both = mine(1), ours(1)
        with agents.scope(user="bob", session="s"):
            assert mine(1) != both[0] and ours(1) == both[1]
        with agents.scope(user="ann"), pytest.raises(ValueError, match="needs a session"):
            mine(1)
        file.write_text("[classes]\nlive = '1h'\n[tools.t]\nbypass = true\nttl = 'live'\n")
        agents.policies.reload()
        with agents.scope(user="ann"):
            assert long(1) != long(1) and last_answer().outcome == "bypassed"
        for wrong, said in (
            ("[tools.t]\nttl = 'soon'", "tools.t.ttl"),
            ("[tools.t]\nscope = 'all'", "tools.t.scope"),
            ("[tools.t]\ntl = 3", "tl is not understood"),
            ("[tool.t]", r"no table \[tool\]"),
            ("x", "policies.toml"),
        ):
            file.write_text(wrong)
            with pytest.raises(PolicyError, match=said):
                agents.policies.reload()
        assert agents.policies.tool(long.tool.rule).bypass, "a wrong file changes nothing"
    with pytest.raises(PolicyError):
        Policies({"answers": {"sampled": 1}})


def test_without_a_store_a_tool_is_what_it_was() -> None:
    @tool_cache()
    def tool(x: int) -> tuple[int]:
        return (x,)

    assert tool(1) == (1,) and tool.__name__ == "tool"


def test_methods_of_two_objects_are_not_one_call(agents: AgentStore) -> None:
    class Client:
        @tool_cache(scope="global")
        def get(self, x: int) -> int:
            return x

    with agents.scope(), pytest.raises(TypeError, match="normalise"):
        Client().get(1)


def test_failures(agents: AgentStore) -> None:
    fail = True
    calls: list[int] = []

    def make(**options: Any) -> Any:
        @tool_cache(name=str(options), scope="global", **options)
        def tool(x: int) -> int:
            calls.append(x)
            if fail:
                raise ConnectionError("down")
            return len(calls)

        return tool

    plain, kept, stale = make(), make(errors="1h"), make(ttl="20ms", stale="1h")
    with agents.scope():
        for _ in range(2):
            with pytest.raises(ConnectionError):
                plain(1)
        with pytest.raises(ConnectionError):
            kept(1)
        with pytest.raises(RecordedToolError, match="ConnectionError: down"):
            kept(1)
        assert len(calls) == 3
        fail = False
        value = stale(1)
        assert not last_answer().stale
        fail = True
        while not last_answer().stale:
            assert stale(1) == value
            time.sleep(0.005)
        assert last_answer().outcome == "stale" and last_answer().age is not None
        with pytest.raises(ConnectionError):
            stale(2)
        fail = False
        with agents.fresh():
            assert stale(1) > value
        assert agents.metrics.counts()["tool", stale.tool.rule.name, "forced"] == 1


def test_a_store_that_cannot_write_costs_calls_and_no_errors(path: Path) -> None:
    calls: list[int] = []

    @tool_cache(scope="global")
    def tool(x: int) -> int:
        calls.append(x)
        return len(calls)

    with open_store(path) as store, AgentStore(store) as agents, agents.scope():
        assert tool(1) == tool(1) == 1
        answers = Answers(agents, scope="global")
        shutil.rmtree(path)
        assert tool(1) == 1, "what it had is still there"
        assert (tool(2), answers.ask({"temperature": 0}, lambda _: "text")) == (2, "text")
        assert last_answer().outcome in ("refused", "stored")
        with pytest.raises(Exception, match="folder|place|dropped|written"):
            agents.run("r").step("s", lambda: 1)
        with contextlib.suppress(kvstore.KVStoreError):
            store.close()


def test_a_store_that_is_only_read_answers_what_it_has(path: Path) -> None:
    calls: list[int] = []

    @tool_cache(scope="user", reads=["x"])
    def tool(x: int) -> int:
        calls.append(x)
        return len(calls)

    with open_store(path) as store, AgentStore(store) as agents, agents.scope(user="ann"):
        assert tool(1) == 1
    with open_store(path, read_only=True) as store, AgentStore(store) as agents:
        with agents.scope(user="ann"):
            assert (tool(1), tool(2), tool(2)) == (1, 2, 3)
        with agents.scope(user="nobody yet"):
            assert tool(1) == 4 and Answers(agents).ask({"temperature": 0}, lambda _: 5) == 5


def test_equal_calls_at_once_are_one(agents: AgentStore) -> None:
    calls: list[int] = []

    @tool_cache(scope="global")
    def slow(x: int) -> int:
        calls.append(x)
        time.sleep(0.05)
        return len(calls)

    @tool_cache(scope="global")
    async def slow_async(x: int) -> int:
        calls.append(x)
        await asyncio.sleep(0.05)
        return len(calls)

    def call(x: int) -> int:
        with agents.scope():
            return slow(x)

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(call, [1] * 16))) == 1

    async def all_of_them() -> list[int]:
        with agents.scope():
            return list(await asyncio.gather(*(slow_async(2) for _ in range(16))))

    assert len(set(asyncio.run(all_of_them()))) == 1
    assert calls == [1, 2]


def test_a_write_ends_what_was_read(agents: AgentStore) -> None:
    calls: list[str] = []

    def reader(scope: str, *names: str) -> Any:
        @tool_cache(name=f"read {scope} {names}", scope=scope, reads=names)  # type: ignore[arg-type]
        def read() -> int:
            calls.append(scope)
            return len(calls)

        return read

    def writer(scope: str, *names: str) -> Any:
        @tool_cache(name="write", scope=scope, writes=names)  # type: ignore[arg-type]
        def write(x: int = 0) -> int:
            return x

        return write

    orders, both, mail, everyones = reader("user", "orders"), reader("user", "orders", "mail"), reader("user", "mail"), reader("global", "orders")
    chats = reader("session", "orders")

    def state() -> list[int]:
        return [orders(), both(), mail(), everyones(), chats()]

    def differs(change: Any) -> list[bool]:
        before = state()
        assert state() == before
        change()
        return [old != new for old, new in zip(before, state(), strict=True)]

    with agents.scope(user="ann", session="s"):
        assert differs(writer("user", "orders")) == [True, True, False, True, True]
        assert differs(writer("user", "mail")) == [False, True, True, False, False]
        assert differs(writer("session", "orders")) == [True, True, False, True, True]
        assert differs(writer("global", "orders")) == [True, True, False, True, True]
        assert differs(writer("user", "stock")) == [False] * 5

    def bob_writes(scope: str) -> None:
        with agents.scope(user="bob", session="s"):
            writer(scope, "orders")()

    with agents.scope(user="ann", session="s"):
        assert differs(lambda: bob_writes("user")) == [False, False, False, True, False]
        assert differs(lambda: bob_writes("global")) == [True, True, False, True, True]


def test_a_read_during_a_write_is_neither_kept_nor_answered(agents: AgentStore) -> None:
    world = {"x": 0}

    @tool_cache(scope="user", reads=["x"])
    def read() -> int:
        return world["x"]

    @tool_cache(scope="user", writes=["x"])
    def write(value: int) -> None:
        assert read() == world["x"] and last_answer().outcome == "bypassed"
        world["x"] = value
        assert read() == value
        raise RuntimeError("after the effect")

    @tool_cache(scope="user", reads=["x"], name="slow")
    def slow() -> int:
        value = world["x"]
        with contextlib.suppress(RuntimeError):
            write(value + 10)
        return value

    with agents.scope(user="ann"):
        read()
        with pytest.raises(RuntimeError, match="after"):
            write(5)
        assert read() == 5
        assert slow() == 5 and last_answer().outcome == "written meanwhile"
        assert slow() == 15


WRITER = """
import os, sys
from kvstore import Store
from kvstore.agent import AgentStore, tool_cache
@tool_cache(scope="user", writes=["x"])
def write():
    open(sys.argv[2], "w").write("new")
    if sys.argv[3] == "die":
        os.kill(os.getpid(), 9)
with Store(sys.argv[1], capacity="128MiB", host="16MiB") as store, AgentStore(store) as agents, agents.scope(user="ann"):
    write()
"""


@pytest.mark.parametrize("how", ["die", "live"])
def test_a_write_of_another_process_ends_what_was_read(tmp_path: Path, how: str) -> None:
    file = tmp_path / "world"
    file.write_text("old")

    @tool_cache(scope="user", reads=["x"])
    def read() -> str:
        return file.read_text()

    with open_store(tmp_path / "store") as store, AgentStore(store) as agents, agents.scope(user="ann"):
        assert read() == read() == "old" and last_answer().outcome == "hit"
        process = started(WRITER, tmp_path / "store", file, how)
        assert process.wait(timeout=60) == (-signal.SIGKILL if how == "die" else 0)
        assert read() == "new"
        # A write whose process died is not under way for ever.
        read()
        read()
        assert last_answer().outcome == "hit"


def check_world(path: Path, calls: int, seed: int) -> dict[str, int]:
    """Random reads and writes of four users: each answer is what the world is at that moment."""
    source = random.Random(seed)
    resources = [f"r{number}" for number in range(6)]
    world: dict[tuple[str, str], int] = {}
    counter = itertools.count()
    outcomes: dict[str, int] = {}
    with open_store(path, capacity="512MiB") as store, AgentStore(store) as agents:

        def reader(scope: str, names: tuple[str, ...]) -> Any:
            @tool_cache(name=f"read {scope} {names}", scope=scope, reads=names, ttl="1h")  # type: ignore[arg-type]
            def read(owner: str) -> list[int]:
                return [world.get((owner, name), 0) for name in names]

            return read

        def writer(scope: str, name: str) -> Any:
            @tool_cache(name=f"write {scope} {name}", scope=scope, writes=[name])  # type: ignore[arg-type]
            def write(owner: str, fail: bool) -> None:
                world[owner, name] = next(counter) + 1
                if fail:
                    raise OSError("after the effect")

            return write

        readers = [
            (scope, names, reader(scope, names))
            for scope in ("user", "global", "session")
            for names in [*((name,) for name in resources), ("r0", "r1"), ("r1", "r2", "r3")]
        ]
        # What is written for all is read by all; what is a user's is read by him.
        writers = [(scope, name, writer(scope, name)) for scope in ("user", "global") for name in resources]
        for _ in range(calls):
            user = f"user {source.randrange(4)}"
            with agents.scope(user=user, session="s"):
                if source.random() < 0.1:
                    scope, _, write = source.choice(writers)
                    with contextlib.suppress(OSError):
                        write(user if scope == "user" else "all", source.random() < 0.2)
                else:
                    scope, names, read = source.choice(readers)
                    owner = "all" if scope == "global" or source.random() < 0.3 else user
                    assert read(owner) == [world.get((owner, name), 0) for name in names], f"seed {seed}"
                    outcome = last_answer().outcome
                    outcomes[outcome] = outcomes.get(outcome, 0) + 1
    return outcomes


def test_no_answer_is_older_than_the_world(path: Path) -> None:
    outcomes = check_world(path, 700, 19)
    assert outcomes["hit"] > 100 and set(outcomes) == {"hit", "stored"}


@pytest.mark.long
def test_no_answer_is_older_than_the_world_in_many_calls(path: Path) -> None:
    outcomes = check_world(path, 100_000, 20)
    assert set(outcomes) == {"hit", "stored"}


def check_tenants(path: Path, operations: int, seed: int) -> None:
    """Random calls of four users in all scopes, against dictionaries."""
    source = random.Random(seed)
    model: dict[Any, int] = {}
    counter = itertools.count()
    secret: dict[str, str] = {}

    def tools(scope: str) -> Any:
        @tool_cache(name="t", scope=scope, ttl=None)  # type: ignore[arg-type]
        def tool(x: int) -> list[Any]:
            return [secret["who"], next(counter)]

        return tool

    by_scope = {scope: tools(scope) for scope in ("run", "session", "user", "global")}
    hits = 0
    with open_store(path, capacity="512MiB") as store, AgentStore(store) as agents:
        for operation in range(operations):
            user, session, run = (f"{kind}{source.randrange(4)}" for kind in ("u", "s", "r"))
            scope = source.choice(list(by_scope))
            x = source.randrange(3)
            place = {"run": (user, session, run), "session": (user, session), "user": (user,), "global": ()}[scope]
            if source.random() < 0.003:
                agents.purge(user=user)
                for known in [key for key in model if key[1][:1] == (user,)]:
                    del model[known]
                continue
            secret["who"] = str(place)
            with agents.run(f"{run} {operation}" if scope != "run" else run, user=user, session=session) if source.random() < 0.02 or (
                scope == "run"
            ) else agents.scope(user=user, session=session):
                name, number = by_scope[scope](x)
            assert name == str(place), f"seed {seed}: what is {name}'s was answered to {place}"
            known = model.get((scope, place, x))
            if known is None:
                model[scope, place, x] = number
            else:
                assert number == known, f"seed {seed}"
                hits += 1
    assert hits > operations // 4


def test_nothing_crosses_tenants(path: Path) -> None:
    check_tenants(path, 400, 7)


@pytest.mark.long
def test_nothing_crosses_tenants_in_ten_thousand_operations(path: Path) -> None:
    check_tenants(path, 10_000, 8)


def test_a_run_that_goes_on_sees_what_it_saw(path: Path) -> None:
    world = {"x": 0}
    effects: list[int] = []

    @tool_cache(scope="user", reads=["x"], ttl="10ms")
    def read(key: str) -> int:
        return world["x"]

    @tool_cache(scope="user", writes=["x"])
    def write(value: int) -> str:
        effects.append(value)
        world["x"] = value
        return f"wrote {value}"

    def program(stop: bool) -> list[Any]:
        seen: list[Any] = [read("a"), write(1), read("a"), run.step("think", lambda: world["x"] * 10)]
        if stop:
            raise KeyboardInterrupt
        return [*seen, write(2), read("a")]

    with open_store(path) as store, AgentStore(store) as agents:
        with pytest.raises(KeyboardInterrupt), agents.run("r", user="ann") as run:
            program(True)
        world["x"] = 77
        time.sleep(0.02)
        with agents.run("r", user="ann") as run:
            assert program(False) == [0, "wrote 1", 1, 10, "wrote 2", 2]
        assert effects == [1, 2]
        world["x"] = 99
        with agents.replay("r", user="ann") as run:
            assert program(False) == [0, "wrote 1", 1, 10, "wrote 2", 2]
        assert effects == [1, 2] and world["x"] == 99


def test_a_replay_calls_nothing_and_names_what_differs(agents: AgentStore) -> None:
    calls: list[Any] = []

    @tool_cache(scope="run")
    def search(query: str, limit: int = 5) -> str:
        calls.append(query)
        if query == "bad":
            raise TimeoutError("too slow")
        return f"results of {query}: " + "x" * 20_000

    def program(query: str, more: bool = False) -> list[Any]:
        seen = [search("first")]
        try:
            search("bad")
        except TimeoutError as error:
            seen.append(str(error))
        seen.append(run.step("plan", len, query))
        seen.append(search(query))
        with agents.fresh():
            seen.append(search("first"))
        if more:
            seen.append(search("more"))
        return seen

    with agents.run("r", user="ann") as run:
        recorded = program("second")
    made = list(calls)
    blocks = agents.store.stats()["blocks_stored"]
    for _ in range(2):
        with agents.replay("r", user="ann") as run:
            assert program("second") == recorded
    with agents.replay("r", user="ann") as run, pytest.raises(DivergenceError) as caught:
        program("other")
    assert (caught.value.call, caught.value.field, caught.value.recorded) == ("run/1:plan", "arguments[0]", "second")
    with agents.replay("r", user="ann") as run, pytest.raises(DivergenceError) as caught:
        search("first", limit=6)
    assert (caught.value.call, caught.value.field) == ("run/1:search", "arguments.limit") or caught.value.field.endswith("limit")
    with agents.replay("r", user="ann") as run, pytest.raises(DivergenceError) as caught:
        program("second", more=True)
    assert caught.value.recorded == "no call"
    agents.store.flush()
    assert calls == made and agents.store.stats()["blocks_stored"] == blocks


REPLAY = """
import os, sys
from kvstore import Store
from kvstore.agent import AgentStore, tool_cache
@tool_cache(scope="run")
def fetch(number):
    import socket
    socket.create_connection(("127.0.0.1", int(sys.argv[2])), timeout=5).close()
    return {"number": number, "bytes": "y" * 10_000 + str(os.getpid())}
def program():
    return [fetch(number) for number in range(5)] + [run.step("s", lambda: os.getpid())]
with Store(sys.argv[1], capacity="128MiB", host="16MiB") as store, AgentStore(store) as agents:
    with (agents.run if sys.argv[3] == "run" else agents.replay)("r", user="ann") as run:
        print(program())
"""


def test_a_replay_needs_no_network(tmp_path: Path) -> None:
    import socket
    import subprocess
    import sys

    from conftest import environment

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        recorded = ran(REPLAY, tmp_path / "store", port, "run")
    command = ["unshare", "--net", "--map-root-user", sys.executable, "-c", REPLAY, str(tmp_path / "store"), str(port), "replay"]
    try:
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if "unshare" in done.stderr:
        pytest.skip("no network namespace can be made here")
    assert done.returncode == 0, done.stderr
    assert done.stdout == recorded


def test_two_processes_call_a_tool_once(tmp_path: Path) -> None:
    program = """
import sys, time
from kvstore import Store
from kvstore.agent import AgentStore, tool_cache
@tool_cache(scope="user")
def slow(x):
    with open(sys.argv[2], "a") as file:
        file.write(f"{x}\\n")
    time.sleep(0.02)
    return x
sys.stdin.readline()
with Store(sys.argv[1], capacity="128MiB", host="16MiB") as store, AgentStore(store) as agents, agents.scope(user="ann"):
    print([slow(number) for number in range(15)])
"""
    with open_store(tmp_path / "store"):
        pass
    processes = [started(program, tmp_path / "store", tmp_path / "said", stdin=-1) for _ in range(3)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=120) for process in processes]
    assert {output for output, _ in outputs} == {str(list(range(15))) + "\n"}, outputs
    assert sorted(map(int, (tmp_path / "said").read_text().split())) == list(range(15))


def test_the_log_says_why_a_result_was_not_there(agents: AgentStore) -> None:
    @tool_cache(scope="user", ttl="30ms", name="t")
    def tool(x: int) -> int:
        return x

    answers = Answers(agents, ttl="30ms")
    with agents.run("r", user="ann") as run:
        for _ in range(2):
            tool(1)
            answers.ask({"temperature": 0}, lambda _: 1)
            path = bytes.fromhex(run.events()[-2].key)
            while agents.blocks("ann").get(path) is not None or agents.blocks("ann").get(bytes.fromhex(run.events()[-1].key)):
                time.sleep(0.01)
        assert [event.reason for event in run.events()] == ["", "", "expired", "expired"]
    assert agents.metrics.reasons() == {("tool", "t", "stored", "expired"): 1, ("answer", "(no model)", "stored", "expired"): 1}
    line = 'kvstore_agent_unanswered_total{layer="tool",name="t",outcome="stored",reason="expired"} 1'
    assert line in agents.metrics.text().splitlines()
    with agents.run("q", user="ann") as run:
        kept = tool_cache(scope="user", ttl=None, name="kept")(lambda x: x)
        kept(1)
        agents.blocks("ann").forget(bytes.fromhex(run.events()[0].key))
        kept(1)
        assert [event.reason for event in run.events()] == ["", "forgotten"]


def test_metrics_and_the_log_say_what_happened(agents: AgentStore) -> None:
    @tool_cache(scope="user", version="3", name="t")
    def tool(x: int) -> int:
        time.sleep(0.01)
        return x

    with agents.run("a", user="ann"):
        tool(1)
    with agents.run("b", user="ann") as run:
        tool(1)
        events = run.events(values=True)
    assert [(event.layer, event.outcome, event.name, event.version, event.source, event.value) for event in events] == [
        ("tool", "hit", "t", "3", "a", 1)
    ]
    assert events[0].asked == {"tool": "t", "version": "3", "arguments": {"x": 1}} and events[0].call == "run/1:t"
    assert agents.metrics.counts() == {("tool", "t", "stored"): 1, ("tool", "t", "hit"): 1}
    saved = agents.metrics.saved()["tool", "t"]
    assert saved["calls"] == 1 and saved["seconds"] >= 0.01
    assert 'kvstore_agent_calls_total{layer="tool",name="t",outcome="hit"} 1' in agents.metrics.text().splitlines()
    assert os.getpid() == run.openings()[0].process
