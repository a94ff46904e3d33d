"""LMCache's tiers in the engine's process: memory, and a file per chunk on a local disk."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ..peer import Hits, Peer
from ..workload import Blocks, Tokens
from .lmcache_objects import Countdown, Loop

DTYPE = "uint8"


class LMCacheCPU(Peer):
    name = "lmcache-cpu"
    title = "LMCache, CPU memory"
    environment = "lmcache"
    durability = "memory only"
    persistent = False
    tokens_per_block = 256
    note = "chunks of 256 tokens, its default; get: its object is copied into the engine's memory"
    extra: ClassVar[dict[str, Any]] = {}

    @classmethod
    def prepare(cls) -> None:
        import lmcache.v1.storage_backend.local_cpu_backend
        import lmcache.v1.storage_backend.local_disk_backend
        import lmcache.v1.token_database  # noqa: F401

    def _settings(self) -> dict[str, Any]:
        return {"local_cpu": True}

    def open(self, memory: Blocks) -> None:
        import torch
        from lmcache.v1.config import LMCacheEngineConfig
        from lmcache.v1.metadata import LMCacheMetadata
        from lmcache.v1.storage_backend.local_cpu_backend import LocalCPUBackend
        from lmcache.v1.token_database import ChunkedTokenDatabase

        gigabytes = self.place.byte_count * 1.25 / 2**30 + 0.5
        self.config = LMCacheEngineConfig.from_defaults(
            chunk_size=self.tokens_per_block, max_local_cpu_size=gigabytes, **self._settings()
        )
        self.metadata = LMCacheMetadata(
            model_name="peers",
            world_size=1,
            local_world_size=1,
            worker_id=0,
            local_worker_id=0,
            kv_dtype=torch.uint8,
            kv_shape=(1, 2, self.tokens_per_block, 1, self.place.block_bytes // (2 * self.tokens_per_block)),
        )
        self.database = ChunkedTokenDatabase(self.config, self.metadata)
        self.cpu = LocalCPUBackend(self.config, self.metadata, dst_device="cpu")
        self.backend: Any = self.cpu
        self.shape, self.dtype = torch.Size([self.place.block_bytes]), torch.uint8

    def prompt(self, tokens: Tokens) -> list[int]:
        return [int(token) for token in tokens]

    def keys(self, prompt: list[int]) -> list[Any]:
        return [key for _, _, key in self.database.process_tokens(prompt)]

    def _submit(self, keys: list[Any], objects: list[Any]) -> None:
        self.backend.batched_submit_put_task(keys, objects)

    def put(self, keys: list[Any], first: int, blocks: Blocks) -> None:
        objects = []
        for block in blocks:
            one = self.cpu.allocate(self.shape, self.dtype)
            if one is None:
                raise MemoryError("LMCache has no memory for a chunk")
            # Not by torch, whose threads wait by spinning.
            np.copyto(one.tensor.numpy(), block)
            objects.append(one)
        self._submit(keys[first : first + len(blocks)], objects)
        for one in objects:
            one.ref_count_down()

    def get(self, keys: list[Any], first: int, target: Blocks) -> Hits:
        hits = np.zeros(len(target), bool)
        for index in range(len(target)):
            one = self.backend.get_blocking(keys[first + index])
            if one is not None:
                np.copyto(target[index], one.tensor.numpy())
                one.ref_count_down()
                hits[index] = True
        return hits

    def lookup(self, prompt: list[int]) -> int:
        found = 0
        for _, end, key in self.database.process_tokens(prompt):
            if not self.backend.contains(key):
                break
            found = end
        return found


class LMCacheDisk(LMCacheCPU):
    name = "lmcache-disk"
    title = "LMCache, local disk"
    durability = "page cache: no sync"
    note = "its index is in memory: nothing is found after a restart, and its cold get is in the process that put"
    # Asked in the process that put them there.
    persistent = False
    on_disk = True
    direct = False

    def _settings(self) -> dict[str, Any]:
        return {
            "local_cpu": False,
            "local_disk": str(self.place.folder / "chunks"),
            "max_local_disk_size": self.place.byte_count * 1.25 / 2**30 + 0.5,
            "extra_config": {"use_odirect": self.direct},
        }

    def open(self, memory: Blocks) -> None:
        from lmcache.v1.storage_backend.local_disk_backend import LocalDiskBackend

        super().open(memory)
        self.loop = Loop()
        self.countdown = Countdown()
        self.backend = LocalDiskBackend(self.config, self.loop.loop, self.cpu, dst_device="cpu")

    def close(self) -> None:
        self.backend.close()
        self.loop.close()

    def _submit(self, keys: list[Any], objects: list[Any]) -> None:
        self.countdown.submitted(len(keys))
        self.backend.batched_submit_put_task(keys, objects, on_complete_callback=self.countdown.done)

    def finish(self) -> None:
        self.countdown.wait()

    def get(self, keys: list[Any], first: int, target: Blocks) -> Hits:
        hits = np.zeros(len(target), bool)
        # Its memory holds what is in flight; so many at a time, as the engine's requests ask.
        for start in range(0, len(target), 64):
            chosen = keys[first + start : first + min(start + 64, len(target))]
            for index, one in enumerate(self.backend.batched_get_blocking(chosen), start):
                if one is not None:
                    np.copyto(target[index], one.tensor.numpy())
                    one.ref_count_down()
                    hits[index] = True
        return hits


class LMCacheDiskDirect(LMCacheDisk):
    name = "lmcache-disk-direct"
    title = "LMCache, local disk, O_DIRECT"
    durability = "device cache: O_DIRECT, no sync"
    direct = True
    scale = False
