"""A prompt that one process has computed, restored by another one, whose store is empty, from a Redis or Valkey; in C and in Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import pytest

sys.path.append(str(Path(__file__).parents[1]))

from remote_server import Proxy, server, wait_for_objects  # noqa: E402, F401
from test_c_adapter import LLAMA, Runs, engine, runs  # noqa: E402, F401

# The small model's blocks: 64 of them are a chunk.
BLOCK, CHUNK = 16, 1024
SHAPE = ("block", BLOCK, "count", CHUNK + 40, "context", "n_ctx", 2048)

# Chunks that a prompt of six blocks and its state take.
SENT = {"lfm2": 3, "mamba": 3}

in_c = pytest.mark.skipif(not LLAMA, reason="KVSTORE_LLAMA names no llama.cpp")


@in_c
def test_another_machine_restores_what_one_has_computed(runs: Runs, server: Any, tmp_path: Path) -> None:  # noqa: F811
    a, b = tmp_path / "a", tmp_path / "b"
    first = runs(*SHAPE, "remote", server.url(), "sent", 1, store=a)
    assert (first["restored"], first["sent"]) == (0, 1)
    local = runs(*SHAPE, store=a)
    again = runs(*SHAPE, "remote", server.url(), store=b)
    assert (again["restored"], again["fetched"], again["unfinished"]) == (CHUNK, 1, 0)
    # With the very batches of a prefix from disk.
    front = runs("block", BLOCK, "count", CHUNK + 8, "context", "n_ctx", 2048, store=tmp_path / "c")
    assert front["stored"] == CHUNK
    assert again["logits"] == runs(*SHAPE, store=tmp_path / "c")["logits"]
    assert local["restored"] == CHUNK + 32
    # It is here now.
    server.kill()
    assert runs(*SHAPE, store=b)["restored"] == CHUNK + 32
    # Other weights find nothing of it.
    other = gguf.write_model(tmp_path / "other.gguf", second_seed=99)[0]
    server.start()
    assert runs(*SHAPE, "remote", server.url(), model=other, store=tmp_path / "d")["restored"] == 0


@in_c
@pytest.mark.parametrize("kind", ["lfm2", "mamba"])
def test_recurrent_layers_and_their_states(runs: Runs, server: Any, tmp_path: Path, kind: str) -> None:  # noqa: F811
    """A prefix goes there up to its checkpoint, with it, and is found as it is on the machine's own disk."""
    path = gguf.write_kind(tmp_path / "model.gguf", kind)
    # The blocks, and the state behind them.
    first = runs("block", 64, "remote", server.url(), "sent", SENT[kind], model=path, store=tmp_path / "a")
    assert (first["restored"], first["stored"]) == (0, 384)
    again = runs("block", 64, "remote", server.url(), model=path, store=tmp_path / "b")
    assert (again["restored"], again["logits"], again["unfinished"]) == (384, first["logits"], 0)
    server.kill()
    dead = runs("block", 64, "remote", server.url(), model=path, store=tmp_path / "c")
    assert (dead["restored"], dead["logits"]) == (0, first["logits"])


@in_c
def test_a_server_that_is_stopped_or_dead_or_cuts(runs: Runs, server: Any, tmp_path: Path) -> None:  # noqa: F811
    first = runs(*SHAPE, "remote", server.url(), "sent", 1, store=tmp_path / "a")
    with Proxy(server.port) as between:
        # In the middle of the chunk.
        between.set(cut=100_000)
        cut = runs(*SHAPE, "remote", between.url(), store=tmp_path / "cut")
        assert (cut["restored"], cut["logits"]) == (0, first["logits"]) and cut["misses"] >= 1
    server.stop()
    stopped = runs(*SHAPE, "remote", server.url(), "wait", 500, store=tmp_path / "stopped")
    assert (stopped["restored"], stopped["logits"]) == (0, first["logits"])
    server.go_on()
    server.kill()
    dead = runs(*SHAPE, "remote", server.url(), store=tmp_path / "dead")
    assert (dead["restored"], dead["logits"]) == (0, first["logits"]) and dead["misses"] >= 1


PROGRAM = """
import json, sys, time
import llama_cpp
import numpy as np
import kvstore, kvstore.llama_cpp as adapter

model, path, url, sent, wait = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5])
adapter.allow_block_copies()
llama = llama_cpp.Llama(model, n_ctx=8192, n_threads=1, n_threads_batch=1, verbose=False, seed=1)
with kvstore.Store(path, capacity="256MiB", host="64MiB", remote=url or None, remote_writes="all",
                   remote_look_up_timeout_seconds=min(wait, 30)) as store:
    cache = adapter.KVStoreCache(llama, model, store, remote_wait_seconds=wait)
    llama.set_cache(cache)
    prompt = [3 + (index * 7919 + index * index) % 500 for index in range(4096 + 40)]
    before = store.stats()["restored_bytes"]
    llama.create_completion(prompt, max_tokens=1, temperature=0)
    end = time.monotonic() + 60
    seen, since = 0, time.monotonic()
    # Nothing tells how much is to come: a second without anything is the end of it.
    while sent and time.monotonic() < end and (seen < sent or time.monotonic() - since < 1):
        if store.stats()["remote_chunks_sent"] != seen:
            seen, since = store.stats()["remote_chunks_sent"], time.monotonic()
        time.sleep(0.01)
    stats = store.stats()
    logits = np.ctypeslib.as_array(llama._ctx.get_logits(), shape=(llama.n_vocab(),))
    print(json.dumps({"restored": store.stats()["restored_bytes"] - before, "fetched": stats["remote_chunks_fetched"],
                      "sent": stats["remote_chunks_sent"], "misses": stats["remote_misses"],
                      "logits": [float(value).hex() for value in logits]}))
"""


def asked(model: Path, store: Path, url: str, sent: int = 0, wait: float = 60) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, model, store, url, str(sent), str(wait)],
        capture_output=True,
        text=True,
        timeout=300,
        env=dict(os.environ),
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def test_in_python(server: Any, tmp_path: Path) -> None:  # noqa: F811
    model = gguf.write_model(tmp_path / "model.gguf")[0]
    # 32 of its blocks are a chunk.
    first = asked(model, tmp_path / "a", server.url(), 2)
    assert (first["restored"], first["sent"]) == (0, 2)
    second = asked(model, tmp_path / "b", server.url())
    assert second["restored"] > 0 and second["fetched"] == 2
    # As a restore from the own disk of the same length.
    local = asked(model, tmp_path / "b", "")
    assert local["restored"] >= second["restored"]
    assert max(abs(float.fromhex(a) - float.fromhex(b)) for a, b in zip(first["logits"], second["logits"], strict=True)) < 0.05
    server.stop()
    third = asked(model, tmp_path / "c", server.url(), wait=0.5)
    assert (third["restored"], third["logits"]) == (0, first["logits"])
    server.go_on()
    server.kill()
    fourth = asked(model, tmp_path / "d", server.url())
    assert (fourth["restored"], fourth["logits"]) == (0, first["logits"])


def test_in_python_with_states(server: Any, tmp_path: Path) -> None:  # noqa: F811
    model = gguf.write_kind(tmp_path / "model.gguf", "lfm2")
    first = asked(model, tmp_path / "a", server.url(), 2)
    assert first["restored"] == 0
    second = asked(model, tmp_path / "b", server.url())
    assert second["restored"] > 0 and second["fetched"] == first["sent"]
    assert max(abs(float.fromhex(a) - float.fromhex(b)) for a, b in zip(first["logits"], second["logits"], strict=True)) < 0.05


def test_options_of_the_server(tmp_path: Path) -> None:
    """A bad one ends the start with its name."""
    for words, said in (
        (["--kvstore_remote", "cache"], "redis://HOST:PORT"),
        (["--kvstore_remote_key_file", "key"], "without remote"),
        (["--kvstore_remote", "redis://cache", "--kvstore_remote_key_file", str(tmp_path / "none")], "remote_key_file cannot"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "kvstore.llama_cpp", "--kvstore", str(tmp_path / "store"), "--model", "none.gguf", *words],
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode != 0 and said in done.stderr, done.stderr[-2000:]
