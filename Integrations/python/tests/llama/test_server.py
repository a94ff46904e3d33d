"""llama-cpp-python's OpenAI-compatible server over HTTP: chat, stop, start, chat on."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[1]))

from documented import command, others  # noqa: E402

MODEL = os.environ.get("KVSTORE_LLAMA_MODEL", "")
SYSTEM = "You are a careful assistant. " + " ".join(
    f"Rule {number}: answer question type {number} in at most {number + 3} words." for number in range(40)
)
FIRST = [{"role": "user", "content": SYSTEM + " Tell me about the city of Paris."}]


class Server:
    """A server in a process of its own."""

    def __init__(self, store: Path, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.log = log
        # The page's own command; what a test must choose comes last.
        places = {"/var/cache/kv": str(store), "model.gguf": MODEL}
        python, *arguments = command("llama-cpp-python.md", "python -m kvstore.llama_cpp", places)
        assert python == "python"
        arguments += ["--kvstore_host_bytes", "64MiB", "--seed", "1", "--host", "127.0.0.1", "--port", str(self._port)]
        with log.open("ab") as out:
            self._process = subprocess.Popen([sys.executable, *arguments], stdout=out, stderr=out)
        deadline = time.monotonic() + 300
        while True:
            try:
                self._request("/v1/models")
                return
            except OSError:
                assert self._process.poll() is None and time.monotonic() < deadline, self.log.read_text()[-3000:]
                time.sleep(0.2)

    def chat(self, messages: list[dict[str, str]]) -> tuple[str, int]:
        """The answer, and how many tokens of the prompt the server's log says that it evaluated."""
        seen = self.log.stat().st_size
        body = {"messages": messages, "max_tokens": 40, "temperature": 0}
        answer = self._request("/v1/chat/completions", body)
        said = self.log.read_bytes()[seen:].decode(errors="replace")
        # llama.cpp's own timings, printed for each request; the one token more is the first one generated.
        evaluated = re.findall(r"prompt eval time =.*?/\s*(\d+) tokens", said)
        assert evaluated, said[-3000:]
        return answer["choices"][0]["message"]["content"], int(evaluated[-1])

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(120)

    def _request(self, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}{path}",
            data=json.dumps(body).encode() if body else None,
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=300) as response:
            return json.loads(response.read())


def test_every_command_of_the_page_is_run() -> None:
    """Here, and those that install by Tests/packages."""
    installs = ("Scripts/install", "pip wheel", "pip install")
    assert others("llama-cpp-python.md", "python -m kvstore.llama_cpp", *installs) == []


@pytest.mark.skipif(not MODEL, reason="KVSTORE_LLAMA_MODEL names no model")
def test_a_conversation_goes_on_after_a_restart(tmp_path: Path) -> None:
    # Without a restart: what the second turn answers.
    server = Server(tmp_path / "other", tmp_path / "log-other")
    first, evaluated = server.chat(FIRST)
    assert evaluated > 500
    turn = [*FIRST, {"role": "assistant", "content": first}, {"role": "user", "content": "And about its river?"}]
    expected, kept = server.chat(turn)
    assert kept < 200
    server.stop()

    store = tmp_path / "store"
    server = Server(store, tmp_path / "log")
    assert server.chat(FIRST)[0] == first
    server.stop()
    # The whole first turn but its last block comes from the store.
    server = Server(store, tmp_path / "log-again")
    answer, again = server.chat(turn)
    assert answer == expected
    assert again < kept + 64 + 64
    # And from there on the same as ever.
    assert server.chat(turn)[0] == expected
    server.stop()
