"""Runs that go to another store, and the command that shows them."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import TOKENS_PER_BLOCK, environment, identity, open_store, payloads

import kvstore
from kvstore.agent import AgentStore, Answers, Memory, NotStoredError, tool_cache
from kvstore.agent.__main__ import main
from kvstore.agent.carry import export_run, import_run
from kvstore.hygiene import CommandNotFoundError, command

calls: list[Any] = []


@tool_cache(scope="user", version="2")
def search(query: str) -> str:
    calls.append(query)
    return query * 5_000


@tool_cache(scope="global")
def search_all(query: str) -> str:
    return query


@tool_cache(scope="user")
def failing() -> None:
    raise KeyError("no")


@tool_cache(scope="user", writes=["x"])
def write(x: int) -> int:
    calls.append(x)
    return x


def program(run: Any, last: str = "end") -> list[Any]:
    found = [search("a"), write(1), run.step("large", lambda: [number * 7919 for number in range(300_000)])]
    with run.lane("side"):
        found.append(run.step("in lane", lambda: "lane"))
    run.checkpoint("c", tokens=range(3_000))
    found.append(run.step(last, lambda: last))
    return found


def test_a_run_goes_on_and_is_replayed_in_another_store(tmp_path: Path) -> None:
    with open_store(tmp_path / "one") as store, AgentStore(store) as agents:
        with agents.run("r", user="ann", session="s") as run:
            first = program(run)
            run.rewind("c")
            run.step("other", lambda: "way")
        made = list(calls)
        count = export_run(agents.existing_run("r", user="ann", session="s"), tmp_path / "file")
        assert count > 10
    assert sorted(found.name for found in tmp_path.iterdir()) == ["file", "one"]
    with open_store(tmp_path / "two") as store, AgentStore(store, secret=b"another") as agents:
        for user in ("bob", None):
            run = import_run(agents, tmp_path / "file", user=user)
            assert [step.name for step in run.steps()] == ["write", "large", "c", "other"]
            assert run.checkpoints()[0].tokens == tuple(range(3_000))
        with pytest.raises(ValueError, match="already"):
            import_run(agents, tmp_path / "file")
        with agents.replay("r", user="bob", session="s") as run:
            assert program(run, "other")[:4] == first[:4]
        with agents.run("r", user="bob", session="s") as run:
            assert program(run, "other")[:4] == first[:4] and run.step("new", lambda: 1) == 1
        assert calls == made
        assert [record.id for record in agents.runs("bob")] == ["r"]
        size = (tmp_path / "file").stat().st_size
        for cut in (0, 5, 20, 200, size // 2, size - 1):
            (tmp_path / "cut").write_bytes((tmp_path / "file").read_bytes()[:cut])
            with pytest.raises(ValueError):
                import_run(agents, tmp_path / "cut", user="cut")
            assert agents.runs("cut") == []
    with open_store(tmp_path / "three", admission="second-touch") as store, AgentStore(store) as agents:
        with pytest.raises(NotStoredError):
            import_run(agents, tmp_path / "file")


def operate(*words: object, status: int = 0) -> str:
    """What the operator's command printed."""
    try:
        program = command()
    except CommandNotFoundError:
        pytest.skip("there is no kvstore command")
    done = subprocess.run(["kvstore", *map(str, words)], executable=program, capture_output=True, text=True, timeout=120)
    assert done.returncode == status, done.stderr
    return done.stdout + done.stderr


def test_the_operators_command_carries_a_run(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"s")
    operate("--version")
    with open_store(tmp_path / "one") as store, AgentStore(store, secret=b"s") as agents:
        with agents.run("r", user="ann", session="s") as run:
            first = program(run)
            memory = Memory(run)
            memory.add({"role": "user", "content": "hello"})
            memory.sent(tokens_cached=3)
            run.rewind("c")
            run.step("other", lambda: "way")
        with agents.run("r", user="ann", session="t") as run:
            run.step("of another session", lambda: 1)
        made = list(calls)
        count = export_run(agents.existing_run("r", user="ann", session="s"), tmp_path / "by Python")
        # Beside a store that is open.
        own = ["--user", "ann", "--secret-file", secret]
        said = operate("export", tmp_path / "one", tmp_path / "file", "--run", "r", "--session", "s", *own)
        assert f": {count} blocks" in said
        for words, reason in (
            ((["--run", "r", *own]), "say --session"),
            ((["--run", "q", *own]), "no run q"),
            ((["--run", "r", "--user", "ann"]), "no runs of this user"),
        ):
            assert reason in operate("export", tmp_path / "one", tmp_path / "not", *words, status=1)
        assert not (tmp_path / "not").exists()
    assert (tmp_path / "file").stat().st_mode & 0o077 == 0 and (tmp_path / "by Python").stat().st_mode & 0o077 == 0
    # Either's file is taken by either.
    with open_store(tmp_path / "two") as store:
        pass
    operate("import", tmp_path / "two", tmp_path / "file", "--user", "bob", "--secret-file", secret)
    operate("import", tmp_path / "two", tmp_path / "by Python")
    assert "already" in operate("import", tmp_path / "two", tmp_path / "file", status=1)
    size = (tmp_path / "file").stat().st_size
    for cut in (20, 200, size // 2, size - 1):
        (tmp_path / "cut").write_bytes((tmp_path / "file").read_bytes()[:cut])
        operate("import", tmp_path / "two", tmp_path / "cut", "--user", "cut", status=1)
    for at in (size // 3, size // 2, size - 100):
        damaged = bytearray((tmp_path / "file").read_bytes())
        damaged[at] ^= 1
        (tmp_path / "damaged").write_bytes(damaged)
        operate("import", tmp_path / "two", tmp_path / "damaged", "--user", "cut", status=1)
        with open_store(tmp_path / "three") as store, AgentStore(store) as agents, pytest.raises(ValueError):
            import_run(agents, tmp_path / "damaged")
    with open_store(tmp_path / "two") as store, AgentStore(store, secret=b"s") as agents:
        assert [[record.id for record in agents.runs(user)] for user in ("bob", None, "cut")] == [["r"], ["r"], []]
        for user in ("bob", None):
            run = agents.existing_run("r", user=user, session="s")
            assert [step.name for step in run.steps()] == ["write", "large", "c", "other"]
            assert run.checkpoints()[0].tokens == tuple(range(3_000))
            with agents.replay("r", user=user, session="s") as run:
                assert program(run, "other")[:4] == first[:4]
        with agents.run("r", user="bob", session="s") as run:
            assert program(run, "other")[:4] == first[:4] and run.step("new", lambda: 1) == 1
        assert calls == made
        run = agents.existing_run("r", user="bob", session="s")
        assert Memory(run).growth()[0].tokens_cached == 3
        import_run(agents, tmp_path / "file", user="carl")


CARRIED = """
import sys
from conftest import open_store
from kvstore.agent import AgentStore, tool_cache

@tool_cache(scope="user")
def fetched(number):
    import urllib.request
    return urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[2]}/{number}", timeout=5).read().decode() * 40_000

with open_store(sys.argv[1]) as store, AgentStore(store) as agents:
    with (agents.run if sys.argv[3] == "run" else agents.replay)("r", user=sys.argv[4]) as run:
        print([run.step("step", lambda: fetched(number)) for number in range(3)], fetched(7))
"""


def test_a_run_is_replayed_on_another_machine(tmp_path: Path) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.path.encode())

    tests = {"PYTHONPATH": f"{Path(__file__).parent.parent}{os.pathsep}{environment().get('PYTHONPATH', '')}"}

    def python(*words: object) -> list[str]:
        return [sys.executable, "-c", CARRIED, *map(str, words)]

    operate("--version")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        recorded = subprocess.run(
            python(tmp_path / "one", port, "run", "ann"), env={**environment(), **tests}, capture_output=True, text=True, timeout=60
        )
    finally:
        server.shutdown()
        server.server_close()
    assert recorded.returncode == 0, recorded.stderr
    operate("export", tmp_path / "one", tmp_path / "file", "--run", "r", "--user", "ann")
    shutil.rmtree(tmp_path / "one")
    operate("import", tmp_path / "two", tmp_path / "file", "--user", "bob", "--create")
    try:
        done = subprocess.run(
            ["unshare", "--net", "--map-root-user", *python(tmp_path / "two", port, "replay", "bob")],
            env={**environment(), **tests}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if "unshare" in done.stderr:
        pytest.skip("no network namespace can be made here")
    assert (done.returncode, done.stdout) == (0, recorded.stdout), done.stderr


def test_the_command_shows_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, file = tmp_path / "one", tmp_path / "file"
    secret = tmp_path / "secret"
    secret.write_bytes(b"s")
    options = ["--user", "ann", "--secret-file", str(secret)]
    with open_store(path) as store, AgentStore(store, secret=b"s") as agents:
        with agents.run("r", user="ann") as run:
            program(run)
            run.fork("f", at=2)
        # Beside a store that is open.
        assert main(["runs", str(path), *options]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].split()[:3] == ["run", "session", "made"] and lines[2].split()[-3:] == ["r", "at", "2"]
    assert main(["run", str(path), "r", "--log", *options]) == 0
    text = capsys.readouterr().out
    assert "run/1:search" in text and "checkpoint" in text and "large" in text
    assert main(["run", str(path), "r", "--json", *options]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [step["name"] for step in document["steps"]] == ["write", "large", "c", "end"]
    assert document["openings"][0]["events"][0]["asked"] == {"tool": "search", "version": "2", "arguments": {"query": "a"}}
    assert main(["export", str(path), "r", str(file), *options]) == 0
    assert main(["purge", str(path), *options]) == 0
    assert main(["import", str(path), str(file), *options]) == 0
    capsys.readouterr()
    assert main(["runs", str(path), "--json", *options]) == 0
    assert [run["run"] for run in json.loads(capsys.readouterr().out)] == ["r"]
    for words, said in (
        (["runs", str(path), "--user", "ann"], "no records of this user"),
        (["run", str(path), "q", *options], "no run 'q'"),
        (["runs", str(tmp_path / "nothing")], "no store at"),
    ):
        assert main(words) == 1 and said in capsys.readouterr().err
    assert not (tmp_path / "nothing").exists()


def test_the_operators_command_shows_the_runs_of_all_users(tmp_path: Path) -> None:
    path = tmp_path / "one"

    def inspect(*words: str) -> Any:
        words = ("kvstore", "inspect", words[0], str(path), *words[1:], "--json")
        done = subprocess.run(words, executable=command(), capture_output=True, text=True, timeout=60)
        return json.loads(done.stdout)["runs"] if done.returncode == 0 else done.stdout + done.stderr

    try:
        command()
    except CommandNotFoundError:
        pytest.skip("there is no kvstore command")
    with open_store(path) as store, AgentStore(store, secret=b"s") as agents:
        names = ["r", 'q"\\\n\x01ü\U0001f600', "t"]
        for user, name in zip(("ann", "bob", None), names, strict=True):
            with agents.run(name, user=user, session="s" if user else None) as run:
                if user:
                    search("a")
                for number in range(300 if user is None else 3):
                    run.step("s", lambda number: number, number)
                run.save({"large": "x" * 20_000})
                run.rewind(2)
                run.fork(f"fork of {user}")
        # Beside a store that is open.
        found = inspect("runs")
        assert sorted(line["run"] for line in found) == sorted([*names, "fork of ann", "fork of bob", "fork of None"])
        of = {line["run"]: line for line in found}
        outcomes = [(line["outcome"], line["count"]) for line in of["r"]["outcomes"]]
        assert outcomes == [("forked", 1), ("rewound", 1), ("stored", 5)] and of["r"]["step_count"] == 2
        assert (of["r"]["session"], of["t"]["session"], of["r"]["steps"]) == ("s", None, None) and len({line["namespace"] for line in found}) == 3
        assert of["fork of ann"]["fork_of"] == {"run": "r", "step": 2} and of["fork of ann"]["step_count"] == 2
        agents.existing_run("t").rewind(0)
        with agents.run("t") as run:
            for number in range(290):
                run.step("s", lambda number: number, number)
        (long,) = inspect("run", "t")
        assert [step["number"] for step in long["steps"]] == list(range(1, 291))
        assert [step["key"] for step in long["steps"]] == [step.key for step in run.steps()]
        assert len(long["openings"]) == 3 and sum(len(opening["events"]) for opening in long["openings"]) > 590
        log = inspect("run", "r")[0]["openings"][0]["events"]
        assert (log[0]["layer"], log[0]["call"], log[0]["version"]) == ("tool", "run/1:search", "2")
        agents.purge(user="ann")
    assert "no run" in inspect("run", "r")
    assert len(inspect("runs")) == 4


def test_the_report_shows_what_agents_asked_and_saved(tmp_path: Path) -> None:
    operate("--version")
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({"providers": [{"models": {"m": 2}, "outputs": {"m": 10}}]}))
    with open_store(tmp_path / "one") as store, AgentStore(store, prices=prices) as agents:
        for _ in range(2):
            with agents.run("r", user="ann", session="s") as run:
                run.step("slow", lambda: time.sleep(0.02))
                search("reported")
                answer = {"usage": {"prompt_tokens": 100_000, "completion_tokens": 10_000}}
                Answers(agents).ask({"model": "m", "temperature": 0}, lambda _: answer)
                with pytest.raises(KeyError):
                    failing()
        for number in range(101):
            with agents.run(f"other {number}") as run:
                run.step("s", lambda: 1)
        with agents.run("other 100") as run:
            for _ in range(250):
                search_all("many")
    found = json.loads(operate("inspect", "report", tmp_path / "one", "-o", "-", "--json"))["agents"]
    assert (len(found["runs"]), found["older_run_count"]) == (100, 2)
    other = found["runs"][0]
    assert (other["run"], len(other["events"]), other["older_event_count"]) == ("other 100", 200, 51)
    assert [layer["answered_count"] for layer in other["layers"]] == [0, 249]
    with open_store(tmp_path / "one") as store, AgentStore(store) as agents:
        agents.blocks(None).purge()
    (run,) = json.loads(operate("inspect", "report", tmp_path / "one", "-o", "-", "--json"))["agents"]["runs"]
    assert (run["run"], run["session"], run["step_count"], run["opening_count"]) == ("r", "s", 1, 2)
    of = {layer["layer"]: layer for layer in run["layers"]}
    assert {name: (layer["call_count"], layer["answered_count"], layer["failed_count"]) for name, layer in of.items()} == {
        "step": (2, 1, 0), "tool": (4, 1, 2), "answer": (2, 1, 0),
    }  # fmt: skip
    assert of["step"]["saved_seconds"] >= 0.02
    assert (of["answer"]["saved_token_count"], round(of["answer"]["saved_money"], 6)) == (110_000, 0.3)
    page = operate("inspect", "report", tmp_path / "one", "-o", "-")
    assert page.count("run/1:search") == 2


def test_a_users_kv_goes_with_a_purge_by_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompt = kvstore.Prompt(range(4 * TOKENS_PER_BLOCK))
    with open_store(tmp_path / "s") as store, AgentStore(store) as agents:
        for user in ("ann", "bob"):
            with agents.kv_namespace(identity(), user=user) as kv:
                kv.offload(prompt, payloads(range(4)))
    assert main(["purge", str(tmp_path / "s"), "--user", "ann"]) == 0
    with open_store(tmp_path / "s") as store, AgentStore(store) as agents:
        found = [agents.kv_namespace(identity(), user=user).match(prompt, peek=True).blocks for user in ("ann", "bob")]
    assert found == [0, 4]
