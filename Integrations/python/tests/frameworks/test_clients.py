"""The examples with pydantic-ai, the OpenAI Agents SDK and smolagents, against a small server of this test that answers as OpenAI's
chat completions do: with a call of the tool, and then by its result. No model is behind it."""

from __future__ import annotations

import http.server
import importlib.util
import json
import runpy
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, open_store

from kvstore.agent import AgentStore

EXAMPLES = {"pydantic_ai": "with_pydantic_ai.py", "agents": "with_openai_agents.py", "smolagents": "with_smolagents.py"}


def reply(body: dict[str, Any], number: int) -> dict[str, Any]:
    known = "42 euro" in json.dumps(body["messages"])
    names = [tool["function"]["name"] for tool in body["tools"]]
    name, arguments = ("final_answer", {"answer": "It is 42 euro."}) if known else ("price", {"item": "pump"})
    call = {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
    message: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [call]}
    if name not in names:
        message = {"role": "assistant", "content": "It is 42 euro."}
    choice = {"index": 0, "finish_reason": "tool_calls" if message["content"] is None else "stop", "message": message}
    usage = {"prompt_tokens": 30, "completion_tokens": 4, "total_tokens": 34}
    return {"id": f"c{number}", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}


@pytest.fixture
def server() -> Iterator[tuple[str, list[Any]]]:
    requests: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            requests.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            body = json.dumps(reply(requests[-1], len(requests))).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving.daemon_threads = True
    threading.Thread(target=serving.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{serving.server_port}/v1", requests
    serving.shutdown()
    serving.server_close()


@pytest.mark.parametrize("package", EXAMPLES)
def test_an_agent_that_is_run_again_asks_no_model_and_calls_no_tool(
    package: str, path: Path, server: tuple[str, list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    address, requests = server
    ask = runpy.run_path(str(ROOT / "docs/examples/agent" / EXAMPLES[package]))["ask"]
    for user, asked in (("ann", 2), ("ann", 2), ("bob", 4)):
        with open_store(path) as opened, AgentStore(opened) as agents:
            assert ask(agents, user, address, "What does a pump cost?") == "It is 42 euro."
        assert len(requests) == asked, (user, [request["messages"] for request in requests])
    assert capsys.readouterr().out.count("looked up pump") == 2
