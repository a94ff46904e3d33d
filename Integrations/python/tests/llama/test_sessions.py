"""What a client says of a conversation reaches the store through llama-cpp-python: in a program, and over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import gguf
import pytest
from test_server import MODEL, SYSTEM, Server

import kvstore
from kvstore import Hints
from kvstore.llama_sessions import hints_of

PREFIX = Path(os.environ.get("KVSTORE_PREFIX") or Path(__file__).resolve().parents[4] / ".build-install")
KINDS = ["llama", "lfm2", "mamba"]


def inspect(what: str, *words: object) -> Any:
    """What `kvstore inspect` shows beside the engine."""
    said = subprocess.run(
        [PREFIX / "bin/kvstore", "inspect", what, *map(str, words), "--json"], capture_output=True, text=True, check=True
    )
    return json.loads(said.stdout)


def payload(path: Path) -> int:
    with kvstore.Store(path, capacity="128MiB", host="16MiB") as outside:
        return int(outside.stats()["payload_bytes_stored"])


PROGRAM = """
import json, random, sys
import llama_cpp, kvstore, kvstore.llama_cpp
from kvstore import Hints

def tokens(seed, count):
    generator = random.Random(seed)
    return [generator.randrange(3, 500) for _ in range(count)]

model, path = sys.argv[1:]
kvstore.llama_cpp.allow_block_copies()
llama = llama_cpp.Llama(model, n_ctx=4096, n_threads=1, n_threads_batch=1, verbose=False, seed=1)
store = kvstore.Store(path, capacity="128MiB", host="16MiB")
cache = kvstore.llama_cpp.KVStoreCache(llama, model, store)
llama.set_cache(cache)
shared = tokens(1, 513)

def ask(prompt, **hints):
    cache.hints = Hints(**hints)
    llama.create_completion(prompt, max_tokens=4, temperature=0)
    store.flush()
    return store.stats()["payload_bytes_stored"]

seen = {"shared": ask(shared)}
first = shared + tokens(2, 1025)
seen["conversation"] = ask(first, session="run 17", priority=7, ttl_seconds=3600)
seen["second turn"] = ask(first + tokens(3, 300), session="run 17")
summary = shared + tokens(4, 513)
seen["compacted"] = ask(summary, session="run 17", compacted=True)
seen["pinned"] = ask(summary, session="run 17", pin_seconds=600)
seen["other"] = ask(shared + tokens(5, 1025), session="run 18")
seen["ended"] = ask(shared + tokens(5, 1025), session="run 18", end=True)
cache.close()
store.close()
print(json.dumps(seen))
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_s_hints(tmp_path: Path, kind: str) -> None:
    """A session that ends or is compacted frees what nobody else can reach, the states of recurrent layers included."""
    model, path = tmp_path / "model.gguf", tmp_path / "store"
    write = {"llama": lambda: gguf.write_model(model), "mamba": lambda: gguf.write_recurrent(model, kind)}
    write.get(kind, lambda: gguf.write_hybrid(model, kind))()
    done = subprocess.run([sys.executable, "-c", PROGRAM, model, path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    print(kind, seen)
    assert seen["shared"] < seen["conversation"] < seen["second turn"]
    # What is left is the front that both share, and the summary, which is as long.
    assert seen["compacted"] - seen["shared"] <= 1.05 * seen["shared"]
    assert seen["pinned"] == seen["compacted"]
    assert seen["ended"] - seen["pinned"] <= 0.05 * (seen["other"] - seen["pinned"]), seen
    sessions = {session["name"]: session for session in inspect("sessions", path)["sessions"]}
    assert (sessions["run 17"]["step_count"], sessions["run 18"]["step_count"]) == (4, 2)
    assert sessions["run 18"]["is_ended"]
    # The second turn computes its own tokens, and at most one block.
    step = sessions["run 17"]["steps"][1]
    assert 300 <= step["computed_token_count"] < 300 + 300, step
    assert len(inspect("pins", path)["pins"]) == 1


def test_headers() -> None:
    headers = [(b"x-kvstore-session", b"a b"), (b"X-KVStore-TTL", b"60"), (b"x-kvstore-end", b"1"), (b"accept", b"*/*")]
    assert hints_of(headers) == Hints(session="a b", ttl_seconds=60.0, end=True)
    assert hints_of([(b"x-kvstore-ttl", b"soon"), (b"x-kvstore-priority", b"200")]) == Hints()
    assert hints_of([(b"accept", b"*/*")]) is None


@pytest.mark.skipif(not MODEL, reason="KVSTORE_LLAMA_MODEL names no model")
def test_a_conversation_over_http(tmp_path: Path) -> None:
    """In the server's own words: its record, and its end."""
    server = Server(tmp_path / "store", tmp_path / "log")

    def chat(text: str, stream: bool = False, **headers: str) -> None:
        body = {"messages": [{"role": "user", "content": text}], "max_tokens": 4, "temperature": 0, "stream": stream}
        request = urllib.request.Request(
            f"http://127.0.0.1:{server._port}/v1/chat/completions",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **{f"x-kvstore-{key}": value for key, value in headers.items()}},
        )
        with urllib.request.urlopen(request, timeout=300) as response:
            response.read()

    def within(condition: Any) -> bool:
        deadline = time.monotonic() + 60
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    store = tmp_path / "store"
    chat(SYSTEM)
    assert within(lambda: payload(store) > 0)
    time.sleep(1)
    shared = payload(store)
    chat(SYSTEM + " Tell me about Paris." * 40, session="paris", stream=True)
    assert within(lambda: payload(store) > shared)
    chat(SYSTEM + " Tell me about Paris." * 40, session="paris", end="1")
    assert within(lambda: payload(store) <= shared), (shared, payload(store))
    server.stop()
    (session,) = inspect("sessions", store)["sessions"]
    assert (session["name"], session["step_count"], session["is_ended"]) == ("paris", 2, True)
