"""The runtime: requests whose front stays the same bytes, by the count of a server that keeps prefixes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, open_store

from kvstore.agent import AgentStore, DivergenceError
from kvstore.agent.runtime import Runtime, fronts, warm_front

TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {"b": {}, "a": {}}}}}
    for name in ("search", "read", "write")
]
SYSTEM = "You are a careful assistant. " * 40


class Prefixes:
    """A model server that keeps the prefix of each request and counts as OpenAI's do; four bytes are a token."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.kept: dict[str, list[str]] = {}
        self.calls_left = 3

    def lose(self) -> None:
        self.kept.clear()

    def __call__(self, body: dict[str, Any]) -> dict[str, Any]:
        body = json.loads(json.dumps(body))
        self.bodies.append(body)
        text = json.dumps([body.get("tools"), body["messages"]], ensure_ascii=False)
        common = max((len(os.path.commonprefix([text, old])) for old in self.kept.get(body["model"], [])), default=0)
        self.kept.setdefault(body["model"], []).append(text)
        message: dict[str, Any] = {"role": "assistant", "content": f"reply {len(self.bodies)}"}
        if body.get("max_tokens") != 1 and self.calls_left:
            self.calls_left -= 1
            call = {"name": "search", "arguments": '{ "b": 1, "a": 2 }'}
            message = {"role": "assistant", "content": None, "tool_calls": [{"id": f"c{len(self.bodies)}", "type": "function", "function": call}]}
        usage = {"prompt_tokens": len(text) // 4, "prompt_tokens_details": {"cached_tokens": common // 4}}
        return {"choices": [{"message": message}], "usage": usage}


def program(runtime: Runtime, tools: list[int]) -> list[str]:
    said = []
    for number in range(3):
        runtime.say(f"question {number}", volatile={"time": time.time_ns()}, allowed=["search"] if number else None)
        while calls := (message := runtime.step()).get("tool_calls"):
            for call in calls:
                tools.append(number)
                runtime.result(call["id"], [{"row": row, "of": number} for row in range(100)])
        said.append(message["content"])
    return said


def test_a_conversation_only_grows(path: Path) -> None:
    server, tools = Prefixes(), []
    with open_store(path) as store, AgentStore(store) as agents:
        with agents.run("r", user="ann") as run:
            runtime = Runtime(run, server, model="m", system=SYSTEM, tools=TOOLS, goal="be brief")
            said = program(runtime, tools)
            report = runtime.report()
        assert report["steps"] == 6 and report["lost"] == 0
        # From the second request on all is cached but what is new.
        for turn in runtime.turns[1:]:
            assert turn.tokens_cached >= turn.expected - 2 and not turn.fell
        assert report["hit_rate"] > 0.6
        assert [tool["function"]["name"] for tool in server.bodies[0]["tools"]] == ["read", "search", "write"]
        assert {json.dumps(body["tools"]) for body in server.bodies} == {json.dumps(server.bodies[0]["tools"])}
        for before, after in zip(server.bodies, server.bodies[1:]):
            assert after["messages"][: len(before["messages"])] == before["messages"]
        assert server.bodies[1]["messages"][2]["tool_calls"][0]["function"]["arguments"] == '{"a":2,"b":1}'
        last = server.bodies[-1]["messages"]
        users = [message["content"] for message in last if message["role"] == "user"]
        assert all(re.fullmatch(r"question \d\n\ntime: \d+\n\nGoal: be brief.*", text, re.DOTALL) for text in users)
        assert users[1].endswith("Use these tools only: search.") and "Use these" not in users[0]
        count, calls = len(server.bodies), list(tools)
        # A program that is started again asks no model, and sees the times that it saw.
        with agents.run("r", user="ann") as run:
            again = Runtime(run, server, model="m", system=SYSTEM, tools=TOOLS, goal="be brief")
            assert program(again, tools) == said and again.memory.messages()[:-1] == last
            assert len(server.bodies) == count and again.turns == []
            again.say("and now?")
            assert again.step()["content"] == f"reply {count + 1}"
        assert tools == calls * 2
        with agents.replay("r", user="ann") as run:
            replayed = Runtime(run, server, model="m", system=SYSTEM, tools=TOOLS, goal="be brief")
            assert program(replayed, []) == said and replayed.warm() is None
        with agents.replay("r", user="ann") as run, pytest.raises(DivergenceError):
            Runtime(run, server, model="m", system=SYSTEM + "!", tools=TOOLS)
        assert len(server.bodies) == count + 1


def test_the_window_keeps_the_front(agents: AgentStore) -> None:
    server = Prefixes()
    server.calls_left = 30
    with agents.run("r") as run:
        runtime = Runtime(run, server, model="m", system=SYSTEM, tools=TOOLS, window_tokens=4_000, keep_last=4, summarise=lambda _: "what was")
        runtime.say("question")
        while calls := runtime.step().get("tool_calls"):
            for call in calls:
                runtime.result(call["id"], [{"row": row} for row in range(100)])
        assert runtime.compactions and runtime.report()["compactions"] == len(runtime.compactions)
        assert all(done.tokens_after <= 4_000 for done in runtime.compactions)
        assert all(body["messages"][:2] == server.bodies[0]["messages"][:2] for body in server.bodies)
        results = [message for message in server.bodies[-1]["messages"] if message["role"] == "tool"]
        assert results[0]["content"].startswith("[ref#") and results[-1]["content"].startswith("[{")
        ref = int(results[0]["content"].split("#")[1].split(":")[0])
        assert runtime.recall(ref)["content"].startswith(f"ref#{ref}:\n[{{")
        assert runtime.report()["hit_rate"] > 0.5


def test_the_prompt_is_made_smaller_in_a_pause(agents: AgentStore) -> None:
    server = Prefixes()
    server.calls_left = 0

    def program(run: Run) -> tuple[Runtime, list[str]]:
        runtime = Runtime(
            run, server, model="m", system=SYSTEM, tools=TOOLS, window_tokens=600, keep_last=2, long_tokens=30,
            summarise=lambda _: "what was",
        )  # fmt: skip
        said = []
        for number in range(12):
            runtime.result("1", f"row {number} " * 30)
            runtime.say(f"question {number}")
            said.append(runtime.step()["content"])
            if runtime.compact(ahead=True):
                runtime.warm()
        return runtime, said

    with agents.run("r") as run:
        runtime, said = program(run)
    assert len(runtime.compactions) >= 2 and all(done.replaced for done in runtime.compactions)
    # What a compaction changed was computed in the pauses: a step computes what is new alone.
    steps = [turn for turn in runtime.turns if turn.purpose == "step"][1:]
    assert len(runtime.turns) - len(steps) - 1 == len(runtime.compactions)
    assert all(turn.tokens_cached >= turn.expected for turn in steps), runtime.turns
    asked = len(server.bodies)
    with agents.replay("r") as run:
        assert program(run)[1] == said
    with agents.run("r") as run:
        # Who goes on is warmed again, and asks no model twice.
        assert program(run)[1] == said
    assert len(server.bodies) == asked + len(runtime.compactions)


def test_it_notices_that_the_cache_was_lost_and_warms_it(agents: AgentStore) -> None:
    server = Prefixes()
    server.calls_left = 0
    with agents.run("r") as run:
        runtime = Runtime(run, server, model="m", system=SYSTEM, ping_seconds=1e6)
        runtime.say("one")
        runtime.step()
        server.lose()
        turn = runtime.warm()
        assert turn is not None and turn.fell and turn.tokens_cached == 0
        assert runtime.ping_seconds < 1e6
        again = runtime.warm()
        assert again is not None and not again.fell and again.hit_rate > 0.9
        runtime.say("two")
        runtime.step()
        assert not runtime.turns[-1].fell and runtime.report()["lost"] == 1
        # Each model has a prefix of its own.
        runtime.say("three")
        runtime.step(model="other")
        assert (runtime.turns[-1].expected, runtime.turns[-1].tokens_cached) == (0, 0)
        runtime.say("four")
        runtime.step()
        assert runtime.turns[-1].hit_rate > 0.8


def test_pings_come_while_a_tool_takes_long_and_are_no_steps(agents: AgentStore) -> None:
    server = Prefixes()
    server.calls_left = 0
    enough = threading.Event()

    def send(body: dict[str, Any]) -> dict[str, Any]:
        answer = server(body)
        if len(server.bodies) >= 4:
            enough.set()
        return answer

    with agents.run("r") as run:
        runtime = Runtime(run, send, model="m", system=SYSTEM, ping_seconds=0.01)
        runtime.say("one")
        runtime.step()
        confirmed = run.confirmed
        with runtime.waiting():
            assert enough.wait(60)
        assert runtime.report()["pings"] >= 3 and run.confirmed == confirmed
        count = len(server.bodies)
        assert {body.get("max_tokens") for body in server.bodies[1:]} == {1}
        runtime.say("two")
        runtime.step()
        assert len(server.bodies) == count + 1


def test_allowed_tools_leave_the_front_as_it_is(agents: AgentStore) -> None:
    server = Prefixes()
    server.calls_left = 0
    with agents.run("r") as run:
        runtime = Runtime(run, server, model="m", system="s", tools=TOOLS, mask="allowed_tools")
        runtime.say("one", allowed=["write", "read"])
        runtime.step()
        assert server.bodies[0]["tool_choice"]["allowed_tools"]["tools"][0]["function"]["name"] == "read"
        assert len(server.bodies[0]["tools"]) == 3 and server.bodies[0]["messages"][1]["content"] == "one"


def test_workers_share_a_front(agents: AgentStore) -> None:
    server = Prefixes()
    server.calls_left = 0
    for name in ("a", "b"):
        with agents.run(name) as run:
            front = Runtime(run, server, model="m", system=SYSTEM, tools=TOOLS).front()
    assert fronts(agents) == [front]
    assert warm_front(agents, front, server) is not None
    with agents.run("c") as run:
        runtime = Runtime(run, server, model="m", system=SYSTEM, tools=TOOLS)
        runtime.say("hello")
        runtime.step()
        assert runtime.turns[0].hit_rate > 0.8


@pytest.fixture(scope="module")
def llama_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real one, with a small model, as Scripts/setup-llama-server and setup-llama leave them."""
    places = {}
    for script in ("setup-llama-server", "setup-llama"):
        done = subprocess.run([ROOT / "Scripts" / script, "--print"], capture_output=True, text=True)
        places |= dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    server, model = Path(places.get("LLAMA_SERVER", "")), Path(places.get("MODEL", ""))
    if not (server.is_file() and model.is_file()) or shutil.which(str(server)) is None:
        pytest.skip("there is no llama-server; Scripts/setup-llama-server fetches one")
    log = tmp_path_factory.mktemp("llama") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [server, "-m", model, "--port", "0", "-c", "4096", "-np", "1", "-t", "2", "--jinja"], stdout=output, stderr=output
        )
    try:
        address = ""
        for _ in range(600):
            found = re.search(rb"listening on (http://[\d.]+:\d+)", log.read_bytes())
            if found:
                address = found[1].decode()
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        assert address, log.read_text()
        yield address
    finally:
        process.kill()
        process.wait()


@pytest.mark.long
def test_a_real_server_finds_the_prefix_again(agents: AgentStore, llama_server: str) -> None:
    def send(body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            llama_server + "/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=300) as response:
            answer: dict[str, Any] = json.load(response)
            return answer

    with agents.run("r", user="ann") as run:
        runtime = Runtime(
            run, send, model="m", system=SYSTEM, settings={"temperature": 0, "max_tokens": 8, "cache_prompt": True}
        )
        for number in range(5):
            runtime.say(f"Say the number {number}.", volatile={"time": time.time_ns()})
            runtime.step()
        assert all(turn.tokens_cached >= 0.9 * turn.expected for turn in runtime.turns[1:]), runtime.turns
        assert runtime.report()["hit_rate"] > 0.6
