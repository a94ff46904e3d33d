"""The scheduler's side with a remote tier: requests wait for what is fetched, for as long as they may, and find what workers can load."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from test_scheduler import BLOCK, RANKS, REGION, Request, identity

import kvstore
from kvstore.vllm.options import Options
from kvstore.vllm.scheduler import SchedulerSide

sys.path.append(str(Path(__file__).parents[1]))

from conftest import started as begun  # noqa: E402
from remote_server import Proxy, objects, server, wait_for_objects  # noqa: E402, F401

# 64 blocks of these.
CHUNK = 1024
PROMPT = list(range(2 * CHUNK + 40))

# Another process, which looks when it is told to.
SEEN = """
import json, sys
import kvstore
path, ranks, block, region, count = sys.argv[1], *map(int, sys.argv[2:6])
with kvstore.Store(path, capacity="256MiB", host="16MiB") as store:
    print("ready", flush=True)
    sys.stdin.readline()
    found = []
    for rank in range(ranks):
        namespace = store.existing_namespace(kvstore.Identity(
            tokens_per_block=block, region_bytes=(region,), tensor_parallel_rank=rank, tensor_parallel_size=2))
        found.append(namespace.match(kvstore.Prompt(list(range(count))), peek=True).tokens if namespace else 0)
print(json.dumps(found))
"""


def settings(path: Path, url: str, wait: float = 60, **more: Any) -> dict[str, Any]:
    return {
        "path": str(path),
        "disk_bytes": "256MiB",
        "host_bytes": "64MiB",
        "remote": url,
        "remote_writes": "all",
        "remote_wait_seconds": wait,
        "remote_look_up_timeout_seconds": min(wait, 30),
        "remote_transfer_timeout_seconds": 60,
        **more,
    }


class Other:
    """A process that has the store open; `tokens` are what each rank's worker would find there now."""

    def __init__(self, path: Path) -> None:
        self._process = begun(SEEN, path, len(RANKS), BLOCK, REGION, len(PROMPT), stdin=subprocess.PIPE)
        assert self._process.stdout and self._process.stdout.readline() == "ready\n"

    def tokens(self) -> list[int]:
        output, errors = self._process.communicate("\n", timeout=300)
        assert self._process.returncode == 0, errors
        return list(json.loads(output))


def scheduler(options: Options) -> SchedulerSide:
    side = SchedulerSide(options, BLOCK)
    side.workers({rank: identity(rank) for rank in RANKS})
    return side


def asked(side: SchedulerSide, request: Request, seconds: float = 120) -> tuple[int, bool]:
    """As vLLM asks: again in each step, until there is an answer."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, is_async = side.matched_tokens(request, 0)
        if found is not None:
            return found, is_async
        time.sleep(0.001)
    raise AssertionError("it waits for ever")


@pytest.fixture
def filled(tmp_path: Path, server: Any) -> None:  # noqa: F811
    """What both ranks of another machine have stored."""
    options = Options.of(settings(tmp_path / "a", server.url()))
    with options.open(REGION) as store:
        for rank in RANKS:
            content = [bytes([block % 251, rank[1]]) * (REGION // 2) for block in range(2 * CHUNK // BLOCK)]
            store.namespace(identity(rank)).offload(kvstore.Prompt(PROMPT[: 2 * CHUNK]), content)
        store.flush()
        wait_for_objects(server, len(RANKS) * (1 + 2))


def test_what_is_found_can_be_loaded_by_another_process(tmp_path: Path, server: Any, filled: None) -> None:  # noqa: F811
    side = scheduler(Options.of(settings(tmp_path / "b", server.url())))
    try:
        other = Other(tmp_path / "b")
        assert side.matched_tokens(Request("a", PROMPT), 0) == (None, False)
        assert asked(side, Request("a", PROMPT)) == (2 * CHUNK, True)
        # At once, not when the scheduler's process has come around to it.
        assert other.tokens() == [2 * CHUNK] * len(RANKS)
        # Without a salted namespace's key nothing of it is asked, and nothing is left behind.
        assert side.matched_tokens(Request("s", PROMPT, cache_salt="tenant"), 0) == (0, False)
        assert side._store is not None
        assert side._store.existing_namespace(identity(RANKS[0], salt=b"tenant")) is None
    finally:
        side.close()


def test_what_vllm_has_itself_is_used_again_too(tmp_path: Path, server: Any) -> None:  # noqa: F811
    """Without a word about what is written there, blocks go when a second request uses them, whoever had them."""
    options = Options.of({**settings(tmp_path / "a", server.url()), "remote_writes": "reused"})
    with options.open(REGION) as store:
        for rank in RANKS:
            store.namespace(identity(rank)).offload(kvstore.Prompt(PROMPT[:CHUNK]), [bytes(REGION)] * (CHUNK // BLOCK))
        store.flush()
        side = scheduler(options)
        try:
            request = Request("a", PROMPT[: CHUNK + 40])
            assert side.matched_tokens(request, CHUNK) == (0, False)
            assert objects(server) == 0
            side.allocated(request, (list(range(CHUNK // BLOCK + 3)),), 0)
            wait_for_objects(server, len(RANKS) * 2)
            assert store.stats()["leases_active"] == 0
        finally:
            side.close()


def test_one_that_is_stopped_keeps_nobody(tmp_path: Path, server: Any, filled: None) -> None:  # noqa: F811
    side = scheduler(Options.of(settings(tmp_path / "b", server.url(), wait=1)))
    try:
        server.stop()
        started = time.monotonic()
        assert asked(side, Request("a", PROMPT), 60) == (0, False)
        assert time.monotonic() - started >= 0.9
        # It is not asked for again.
        assert side.matched_tokens(Request("a", PROMPT), 0) == (0, False)
        # Others are asked for, and the answer comes sooner once it is left alone.
        for name in "bcd":
            assert asked(side, Request(name, [*map(ord, name), *PROMPT]), 60) == (0, False)
        assert side._store is not None and side._store.stats()["remote_misses"] >= 3
    finally:
        server.go_on()
        side.close()


def test_one_that_stalls_gives_what_came(tmp_path: Path, server: Any, filled: None) -> None:  # noqa: F811
    """The time is up while the second chunk does not come: the first one is used, or none of it."""
    with Proxy(server.port) as between:
        side = scheduler(Options.of(settings(tmp_path / "b", between.url(), wait=3)))
        try:
            other = Other(tmp_path / "b")
            between.set(stall=3 << 20)
            found, _ = asked(side, Request("a", PROMPT), 60)
            assert found in (0, CHUNK)
            assert min(other.tokens()) >= found
        finally:
            side.close()


def test_many_that_wait_cost_a_step_little(
    tmp_path: Path, server: Any, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:
    side = scheduler(Options.of(settings(tmp_path / "b", server.url(), wait=4)))
    try:
        server.stop()
        looks = []
        look = kvstore.Namespace.match

        def counted(*arguments: Any, **how: Any) -> Any:
            looks.append(how)
            return look(*arguments, **how)

        monkeypatch.setattr(kvstore.Namespace, "match", counted)
        requests = [Request(str(number), [number, *PROMPT]) for number in range(40)]
        started, steps, waiting = time.monotonic(), 0, True
        while waiting and time.monotonic() - started < 60:
            waiting = [request for request in requests if side.matched_tokens(request, 0)[0] is None] != []
            steps += 1
        seconds = time.monotonic() - started
        print(f"{len(looks)} looks, {steps} steps, {seconds:.2f} s")
        assert not waiting
        # One for each rank at first and at last, and else one request in two milliseconds.
        assert len(looks) <= len(RANKS) * (3 * len(requests) + seconds / 0.002)
    finally:
        server.go_on()
        side.close()
