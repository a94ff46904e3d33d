"""Two vLLM engines with empty stores of their own and one Redis or Valkey: what one computes, the other one restores from there.

Whatever becomes of the server, the other one computes what it cannot have, and goes on.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from engine import Engine, stats
from tiny_model import write_model

sys.path.append(str(Path(__file__).parents[1]))

from remote_server import Proxy, server, wait_for_objects  # noqa: E402, F401

from kvstore.vllm.options import Options  # noqa: E402

pytestmark = pytest.mark.slow

BLOCK = 128
# Blocks of the small model take half a MiB.
CHUNK = 8 * BLOCK


def tokens(seed: int, count: int) -> list[int]:
    generator = random.Random(seed)
    return [generator.randrange(3, 4096) for _ in range(count)]


def settings(path: Path, url: str, **more: Any) -> dict[str, Any]:
    return {
        "path": str(path),
        "disk_bytes": "512MiB",
        "host_bytes": "64MiB",
        "remote": url,
        "remote_writes": "all",
        # A busy computer is no reason to miss.
        "remote_wait_seconds": 60,
        "remote_look_up_timeout_seconds": 30,
        "remote_transfer_timeout_seconds": 60,
        **more,
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (one["tokens"], one["logprobs"]) == (other["tokens"], other["logprobs"])


def test_what_one_engine_computes_another_one_restores(tmp_path: Path, server: Any) -> None:  # noqa: F811
    """With a shared key, a tenant's prompts, too: for that tenant."""
    write_model(tmp_path / "model", seed=1)
    key = tmp_path / "key"
    key.write_bytes(os.urandom(32))
    key.chmod(0o600)
    more = {"remote_key_file": str(key)}
    prompt, salted = tokens(1, 2 * CHUNK + 100), tokens(2, CHUNK + 50)
    with Engine(tmp_path / "model", settings(tmp_path / "a", server.url(), **more), tmp_path / "log-a") as first:
        assert first.generate(prompt)[0]["cached"] == 0
        hit = first.generate(prompt)[0]
        first.generate(salted, salt="tenant")
        tenants = first.generate(salted, salt="tenant")[0]
        # What is being saved ends with a step.
        first.generate(tokens(9, 8))
        # A record for each namespace.
        wait_for_objects(server, 1 + 2 + 1 + 1)
    with Engine(tmp_path / "model", settings(tmp_path / "b", server.url(), **more), tmp_path / "log-b") as second:
        found = second.generate(prompt)[0]
        assert found["cached"] == 2 * CHUNK and same(found, hit)
        assert second.generate(salted)[0]["cached"] == 0
        assert second.generate(salted, salt="another")[0]["cached"] == 0
        found = second.generate(salted, salt="tenant")[0]
        assert found["cached"] == CHUNK and same(found, tenants)
        # It is here now, whatever is there.
        server.do("FLUSHALL")
        found = second.again(prompt, 2 * CHUNK)
        assert found["cached"] == 2 * CHUNK and same(found, hit)


def test_a_server_that_stops_stalls_and_dies(tmp_path: Path, server: Any) -> None:  # noqa: F811
    """No request waits for it longer than was set, and none fails."""
    write_model(tmp_path / "model", seed=1)
    prompts = [tokens(seed, 3 * CHUNK + 100) for seed in range(4)]
    with Engine(tmp_path / "model", settings(tmp_path / "a", server.url()), tmp_path / "log-a") as first:
        cold = [first.generate(prompt)[0] for prompt in prompts]
        first.generate(tokens(9, 8))
        wait_for_objects(server, 1 + 4 * 3)
    limits = {"remote_wait_seconds": 4, "remote_look_up_timeout_seconds": 2, "remote_transfer_timeout_seconds": 2}
    with (
        Proxy(server.port) as between,
        Engine(tmp_path / "model", settings(tmp_path / "b", between.url(), **limits), tmp_path / "log-b") as second,
    ):
        # Stalls in the second chunk: the first one is used, or none where the machine is that busy.
        between.set(stall=6 << 20)
        found = second.generate(prompts[0])[0]
        assert found["cached"] <= CHUNK and found["tokens"][0] == cold[0]["tokens"][0]
        between.set()
        server.stop()
        started = time.monotonic()
        found = second.generate(prompts[1])[0]
        waited = time.monotonic() - started - cold[1]["seconds"]
        assert found["cached"] == 0 and same(found, cold[1])
        print(f"with a server that is stopped: {waited:.2f} s more than cold")
        server.go_on()
        server.kill()
        for prompt, computed in zip(prompts[2:], cold[2:], strict=True):
            found = second.generate(prompt)[0]
            assert found["cached"] == 0 and same(found, computed)
        # What is here is here.
        again = second.again(prompts[2], 3 * CHUNK)
        assert again["cached"] == 3 * CHUNK
    assert stats(tmp_path / "b")["blocks_stored"] >= 2 * 24


@pytest.mark.parametrize(("kind", "options"), [("gemma3", {}), ("qwen3-next", {"block_size": 256})])
def test_windows_and_states_go_there_too(
    tmp_path: Path, server: Any, kind: str, options: dict[str, Any]  # noqa: F811
) -> None:
    # In a process of its own: what is imported here would be inherited.
    script = Path(__file__).with_name("mixed_models.py")
    subprocess.run([sys.executable, str(script), kind, str(tmp_path / "model")], check=True, capture_output=True)
    # Of windows, what fills chunks goes there; with a state, all up to it.
    prompt = tokens(3, 1100)
    with Engine(tmp_path / "model", settings(tmp_path / "a", server.url()), tmp_path / "log-a", **options) as first:
        first.generate(prompt)
        hit = first.generate(prompt)[0]
        assert hit["cached"] == 1024
        first.generate(tokens(9, 8))
        wait_for_objects(server, {"gemma3": 2, "qwen3-next": 4}[kind])
    with Engine(tmp_path / "model", settings(tmp_path / "b", server.url()), tmp_path / "log-b", **options) as second:
        found = second.generate(prompt)[0]
        assert found["cached"] == 1024 and same(found, hit)


def test_a_bad_setting_is_an_error_at_the_start(tmp_path: Path) -> None:
    base = {"path": str(tmp_path / "store")}
    for more, said in (
        ({"remote": "cache:6379"}, "redis://HOST:PORT"),
        ({"remote": "redis://:secret@cache"}, "remote_credentials_file"),
        ({"remote_writes": "all"}, "without remote"),
        ({"remote": "redis://cache", "read_only": True}, "read_only"),
        ({"remote": "redis://cache", "remote_nonsense": 1}, "unknown setting remote_nonsense"),
    ):
        with pytest.raises(ValueError, match=said):
            Options.of({**base, **more})
    options = Options.of({**base, "remote": "redis://cache", "remote_key_file": str(tmp_path / "none")})
    with pytest.raises(ValueError, match="remote_key_file cannot be used"):
        options.open(1 << 20)
