"""Mooncake Store: a master and one client with a memory segment on this machine, TCP, without and with its SSD offload."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np

from ..peer import Hits, ServerPeer
from ..workload import Blocks, Tokens

CALL_BLOCKS = 64
WAIT_SECONDS = 120.0


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Mooncake(ServerPeer):
    name = "mooncake"
    title = "Mooncake Store, memory"
    durability = "memory only"
    persistent = False
    note = "one client, whose own segment holds the blocks; zero-copy calls on registered memory"
    ssd = False

    @classmethod
    def missing(cls) -> str | None:
        try:
            import mooncake.store  # noqa: F401
        except ImportError as error:
            return str(error)
        return None

    @classmethod
    def prepare(cls) -> None:
        import mooncake.store  # noqa: F401

    def open(self, memory: Blocks) -> None:
        import mooncake
        from mooncake.store import MooncakeDistributedStore

        port = _free_port()
        program = Path(mooncake.__path__[0]) / "mooncake_master"
        arguments = ["-rpc_port", str(port), "-metrics_port", str(_free_port()), "-rpc_address", "127.0.0.1"]
        # Nothing is evicted: the segment is larger than what is put.
        arguments += ["-metrics_host", "127.0.0.1", f"-enable_offload={'true' if self.ssd else 'false'}"]
        process = self.start([str(program), *arguments])
        end = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError as error:
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError("mooncake_master did not start") from error
                time.sleep(0.002)
        # Once a second is the most often; 16 keys, so that what a test puts fills its buckets (256 MiB or 500 keys else).
        os.environ["MOONCAKE_OFFLOAD_HEARTBEAT_INTERVAL_SECONDS"] = "1"
        os.environ["MOONCAKE_OFFLOAD_BUCKET_KEYS_LIMIT"] = "16"
        folder = self.place.folder / "ssd"
        if self.ssd:
            folder.mkdir(exist_ok=True)
        self.store = MooncakeDistributedStore()
        # A segment that never reaches the watermark of 0.95.
        segment = max(self.place.byte_count * 5 // 4, 64 << 20) // (16 << 20) * (16 << 20) + (64 << 20)
        status = self.store.setup(
            "127.0.0.1", "P2PHANDSHAKE", segment, 128 << 20, "tcp", "", f"127.0.0.1:{port}", None, self.ssd, str(folder)
        )
        if status or self.store.register_buffer(memory.ctypes.data, memory.nbytes):
            raise RuntimeError(f"Mooncake's setup answered {status}")

    def close(self) -> None:
        self.store.close()
        self.stop()

    def keys(self, prompt: Tokens) -> list[str]:
        return [key.hex() for key in super().keys(prompt)]

    @staticmethod
    def _addresses(blocks: Blocks) -> list[int]:
        return [blocks.ctypes.data + index * blocks.shape[1] for index in range(len(blocks))]

    def put(self, keys: list[str], first: int, blocks: Blocks) -> None:
        chosen = keys[first : first + len(blocks)]
        answers = self.store.batch_put_from(chosen, self._addresses(blocks), [blocks.shape[1]] * len(blocks))
        if any(answers):
            raise RuntimeError(f"batch_put_from answered {sorted(set(answers))}")

    def get(self, keys: list[str], first: int, target: Blocks) -> Hits:
        hits = np.zeros(len(target), bool)
        for start in range(0, len(target), CALL_BLOCKS):
            part = target[start : start + CALL_BLOCKS]
            chosen = keys[first + start : first + start + len(part)]
            answers: Any = self.store.batch_get_into(chosen, self._addresses(part), [part.shape[1]] * len(part))
            hits[start : start + len(part)] = [answer == part.shape[1] for answer in answers]
        return hits

    def lookup(self, prompt: Tokens) -> int:
        answers = [answer == 1 for answer in self.store.batch_is_exist(self.keys(prompt))]
        return (answers.index(False) if False in answers else len(answers)) * self.tokens_per_block


class MooncakeSSD(Mooncake):
    name = "mooncake-ssd"
    title = "Mooncake Store, SSD offload"
    durability = "on SSD, no sync promised"
    persistent = True
    ssd = True
    note = "put: until the master reports the SSD copy; its heartbeat, at most once a second, starts the copying"

    def open(self, memory: Blocks) -> None:
        super().open(memory)
        self.waiting: list[str] = []

    def put(self, keys: list[str], first: int, blocks: Blocks) -> None:
        super().put(keys, first, blocks)
        self.waiting += keys[first : first + len(blocks)]

    def finish(self) -> None:
        end = time.monotonic() + WAIT_SECONDS
        while self.waiting:
            self.waiting = [
                key
                for key in self.waiting
                if not any(replica.is_local_disk_replica() for replica in self.store.get_replica_desc(key))
            ]
            if self.waiting:
                if time.monotonic() > end:
                    raise TimeoutError(f"{len(self.waiting)} blocks did not reach the SSD")
                time.sleep(0.01)
