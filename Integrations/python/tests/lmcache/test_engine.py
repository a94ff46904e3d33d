"""vLLM with LMCache's MP server, and the store behind it: a restart of both, and weights that are replaced under one name."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

sys.path += [str(Path(__file__).parents[1] / "vllm"), str(Path(__file__).parents[1])]

from documented import command, others  # noqa: E402
from engine import Engine  # noqa: E402
from tiny_model import write_model  # noqa: E402

from kvstore.weights import files_digest, weight_files  # noqa: E402

pytestmark = pytest.mark.slow

CHUNK = 128
generator = random.Random(1)
PROMPT = [generator.randrange(3, 4096) for _ in range(1000)]
STORED = 896


@contextmanager
def server(store: Path, digest: str, log: Path) -> Iterator[dict[str, Any]]:
    """The page's command, with what this machine needs behind it; yields the settings of vLLM's connector to it."""
    with socket.socket() as free, socket.socket() as web:
        free.bind(("127.0.0.1", 0))
        web.bind(("127.0.0.1", 0))
        port, http = free.getsockname()[1], web.getsockname()[1]
    places = {"/var/cache/kv": str(store), "DIGEST": digest, "200GiB": "1GiB"}
    words = command("lmcache.md", "lmcache server", places)
    program = "from lmcache.cli.main import main; main()"
    words = [sys.executable, "-c", program, *words[1:], "--host", "127.0.0.1", "--port", str(port)]
    words += ["--http-port", str(http), "--disable-observability"]
    words += ["--l1-size-gb", "1", "--l1-init-size-gb", "1", "--chunk-size", str(CHUNK), "--supported-transfer-mode", "auto"]
    with log.open("ab") as out:
        process = subprocess.Popen(words, stdout=out, stderr=out, start_new_session=True)
    deadline = time.monotonic() + 120
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.3)
    extra = {"lmcache.mp.host": "tcp://127.0.0.1", "lmcache.mp.port": port, "lmcache.mp.save_decode_cache": True}
    try:
        yield {
            "connector": {
                "kv_connector": "LMCacheMPConnector",
                "kv_connector_module_path": "lmcache.integration.vllm.lmcache_mp_connector",
                "kv_connector_extra_config": extra,
            }
        }
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def weights(model: Path) -> str:
    """What `kvstore weights-digest` prints."""
    return files_digest(weight_files(str(model))).hex()


def ask(model: Path, store: Path, digest: str, folder: Path) -> dict[str, Any]:
    with server(store, digest, folder / "server") as settings:
        with Engine(model, settings, folder / "log", num_gpu_blocks_override=64) as engine:
            answer = engine.generate(PROMPT)[0]
            # What goes to the second level does so behind the answer.
            time.sleep(3)
            engine.generate(PROMPT[:8])
    return answer


def test_weights_that_are_replaced_under_one_name(tmp_path: Path) -> None:
    """Both processes restarted: what was stored is found; after other weights it is not, and the answer is the right one."""
    assert others("lmcache.md", "lmcache server") == []
    model, store = tmp_path / "model", tmp_path / "store"
    write_model(model, seed=1)
    first = weights(model)
    cold = ask(model, store, first, tmp_path)
    warm = ask(model, store, first, tmp_path)
    assert (cold["cached"], warm["cached"]) == (0, STORED)
    assert warm["tokens"] == cold["tokens"]
    shutil.rmtree(model)
    write_model(model, seed=2)
    changed = weights(model)
    assert changed != first
    other = ask(model, store, changed, tmp_path)
    with Engine(model, None, tmp_path / "alone", num_gpu_blocks_override=64) as engine:
        right = engine.generate(PROMPT)[0]
    assert other["cached"] == 0
    assert other["tokens"] == right["tokens"] != cold["tokens"]
