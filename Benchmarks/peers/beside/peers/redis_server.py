"""Valkey, or Redis where it is not there: the server's append-only file, synced at each write, or memory only."""

from __future__ import annotations

import os
import time
from typing import Any, ClassVar

import numpy as np

from ..peer import Hits, ServerPeer
from ..workload import Blocks, Tokens

DEPTH = 16
"""Commands in a pipeline."""
SOCKET = "server.sock"


class Redis(ServerPeer):
    name = "valkey"
    title = "Valkey, memory"
    durability = "memory only"
    persistent = False
    settings: ClassVar[tuple[str, ...]] = ("--appendonly", "no")
    note = "one client, Unix socket, 16 commands in a pipeline; redis-py with hiredis"

    @classmethod
    def missing(cls) -> str | None:
        if not os.environ.get("KVSTORE_PEERS_VALKEY"):
            return "neither valkey-server nor redis-server is here"
        try:
            import redis  # noqa: F401
        except ImportError as error:
            return str(error)
        return None

    def open(self, memory: Blocks) -> None:
        import redis

        # The path of a socket has 107 bytes at most, so it is a relative one; the process is this measure's own.
        os.chdir(self.place.folder)
        program = os.environ["KVSTORE_PEERS_VALKEY"]
        arguments = ["--port", "0", "--unixsocket", SOCKET, "--dir", str(self.place.folder), "--save", ""]
        process = self.start([program, *arguments, *self.settings])
        self.client = redis.Redis(unix_socket_path=SOCKET)
        end = time.monotonic() + 120
        while True:
            try:
                self.client.ping()
                return
            except (redis.ConnectionError, redis.BusyLoadingError) as error:
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"{program} did not start, status {process.poll()}") from error
                time.sleep(0.0005)

    def close(self) -> None:
        self.client.close()
        self.stop()

    def put(self, keys: list[bytes], first: int, blocks: Blocks) -> None:
        for start in range(0, len(blocks), DEPTH):
            pipeline = self.client.pipeline(transaction=False)
            for key, block in zip(keys[first + start : first + start + DEPTH], blocks[start : start + DEPTH], strict=False):
                pipeline.set(key, memoryview(block))
            pipeline.execute()

    def get(self, keys: list[bytes], first: int, target: Blocks) -> Hits:
        hits = np.zeros(len(target), bool)
        for start in range(0, len(target), DEPTH):
            chosen = keys[first + start : first + min(start + DEPTH, len(target))]
            pipeline = self.client.pipeline(transaction=False)
            for key in chosen:
                pipeline.get(key)
            for index, value in enumerate(pipeline.execute(), start):
                if value is not None and len(value) == target.shape[1]:
                    target[index] = np.frombuffer(value, np.uint8)
                    hits[index] = True
        return hits

    def lookup(self, prompt: Tokens) -> int:
        keys: list[Any] = self.keys(prompt)
        pipeline = self.client.pipeline(transaction=False)
        for key in keys:
            pipeline.exists(key)
        answers = [bool(answer) for answer in pipeline.execute()]
        return (answers.index(False) if False in answers else len(answers)) * self.tokens_per_block


class RedisFile(Redis):
    name = "valkey-aof"
    title = "Valkey, append-only file"
    durability = "synced, survives power loss"
    persistent = True
    settings: ClassVar[tuple[str, ...]] = ("--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0")
    note = "appendfsync always; read into memory when it starts"
