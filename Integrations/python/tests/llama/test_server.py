"""llama-cpp-python's OpenAI-compatible server over HTTP: chat, stop, start, chat on."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))

from documented import command  # noqa: E402
from served import Served, free_port  # noqa: E402

MODEL = os.environ.get("KVSTORE_LLAMA_MODEL", "")
SYSTEM = "You are a careful assistant. " + " ".join(
    f"Rule {number}: answer question type {number} in at most {number + 3} words." for number in range(40)
)
FIRST = [{"role": "user", "content": SYSTEM + " Tell me about the city of Paris."}]


class Server(Served):
    """The page's own command; what a test must choose comes last."""

    def __init__(self, store: Path, log: Path) -> None:
        port = free_port()
        places = {"/var/cache/kv": str(store), "model.gguf": MODEL}
        python, *arguments = command("llama-cpp-python.md", "python -m kvstore.llama_cpp", places)
        assert python == "python"
        arguments += ["--kvstore_host_bytes", "64MiB", "--seed", "1", "--host", "127.0.0.1", "--port", str(port)]
        super().__init__([sys.executable, *arguments], port, log, up="/v1/models", seconds=300)

    def chat(self, messages: list[dict[str, str]]) -> tuple[str, int]:
        """The answer, and how many tokens of the prompt the server's log says that it evaluated."""
        seen = self.log.stat().st_size
        body = {"messages": messages, "max_tokens": 40, "temperature": 0}
        answer = json.loads(self.ask("/v1/chat/completions", body))
        said = self.log.read_bytes()[seen:].decode(errors="replace")
        # llama.cpp's own timings, printed for each request; the one token more is the first one generated.
        evaluated = re.findall(r"prompt eval time =.*?/\s*(\d+) tokens", said)
        assert evaluated, said[-3000:]
        return answer["choices"][0]["message"]["content"], int(evaluated[-1])


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
