"""Adapters of the second level of LMCache's server, driven as its own benchmark of them does (`lmcache bench l2`)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from ..peer import Hits, Peer
from ..workload import Blocks, Tokens
from .lmcache_objects import WAIT_SECONDS, memory_object


class LMCacheFS(Peer):
    name = "lmcache-fs"
    title = "LMCache L2, fs"
    environment = "lmcache"
    durability = "page cache: no sync"
    tokens_per_block = 256
    note = "chunks of 256 tokens, its default"
    specification: ClassVar[dict[str, Any]] = {"type": "fs"}

    @classmethod
    def prepare(cls) -> None:
        import lmcache.cli.commands.bench.l2_adapter_bench.data
        import lmcache.v1.distributed.l2_adapters
        import lmcache.v1.multiprocess.token_hasher  # noqa: F401
        from lmcache.v1.distributed.l2_adapters.fs_l2_adapter import FSL2AdapterConfig  # noqa: F401
        from lmcache.v1.distributed.l2_adapters.fs_native_l2_adapter import FSNativeL2AdapterConfig  # noqa: F401

    def _config(self) -> Any:
        from lmcache.v1.distributed.l2_adapters.fs_l2_adapter import FSL2AdapterConfig
        from lmcache.v1.distributed.l2_adapters.fs_native_l2_adapter import FSNativeL2AdapterConfig

        kind = FSL2AdapterConfig if self.specification["type"] == "fs" else FSNativeL2AdapterConfig
        return kind.from_dict({**self.specification, "base_path": str(self.place.folder / "objects")})

    def open(self, memory: Blocks) -> None:
        from lmcache.v1.distributed.l2_adapters import create_l2_adapter
        from lmcache.v1.multiprocess.token_hasher import TokenHasher

        (self.place.folder / "objects").mkdir(exist_ok=True)
        self.adapter = create_l2_adapter(self._config())
        self.hasher = TokenHasher(self.tokens_per_block)
        self.tasks: dict[int, Any] = {}

    def close(self) -> None:
        self.adapter.close()

    def prompt(self, tokens: Tokens) -> list[int]:
        return [int(token) for token in tokens]

    def keys(self, prompt: list[int]) -> list[Any]:
        from lmcache.v1.distributed.api import ObjectKey

        return [
            ObjectKey(chunk_hash=self.hasher.hash_to_bytes(value), model_name="peers", kv_rank=0)
            for value in self.hasher.compute_chunk_hashes(prompt)
        ]

    def put(self, keys: list[Any], first: int, blocks: Blocks) -> None:
        objects = [memory_object(blocks[index]) for index in range(len(blocks))]
        # The objects live until their task has ended.
        self.tasks[self.adapter.submit_store_task(keys[first : first + len(blocks)], objects)] = objects

    def finish(self) -> None:
        from lmcache.cli.commands.bench.l2_adapter_bench.data import wait_eventfd

        while self.tasks:
            if not wait_eventfd(self.adapter.get_store_event_fd(), WAIT_SECONDS):
                raise TimeoutError(f"{len(self.tasks)} store tasks did not end")
            for task, result in self.adapter.pop_completed_store_tasks().items():
                self.tasks.pop(task, None)
                if not result.is_successful():
                    raise RuntimeError(f"a store task failed: {result}")

    def get(self, keys: list[Any], first: int, target: Blocks) -> Hits:
        from lmcache.cli.commands.bench.l2_adapter_bench.data import wait_eventfd

        objects = [memory_object(target[index]) for index in range(len(target))]
        task = self.adapter.submit_load_task(keys[first : first + len(target)], objects)
        while (found := self.adapter.query_load_result(task)) is None:
            if not wait_eventfd(self.adapter.get_load_event_fd(), WAIT_SECONDS):
                raise TimeoutError("a load task did not end")
        hits = np.zeros(len(target), bool)
        hits[list(found.get_indices_list())] = True
        return hits

    def lookup(self, prompt: list[int]) -> int:
        import torch
        from lmcache.cli.commands.bench.l2_adapter_bench.data import wait_eventfd
        from lmcache.v1.distributed.api import MemoryLayoutDesc

        keys = self.keys(prompt)
        layout = {0: MemoryLayoutDesc(shapes=[torch.Size([self.place.block_bytes])], dtypes=[torch.uint8])}
        task = self.adapter.submit_lookup_and_lock_task(keys, layout)
        while (found := self.adapter.query_lookup_and_lock_result(task)) is None:
            if not wait_eventfd(self.adapter.get_lookup_and_lock_event_fd(), WAIT_SECONDS):
                raise TimeoutError("a look-up did not end")
        indices = set(found.get_indices_list())
        self.adapter.submit_unlock(keys)
        return next((index for index in range(len(keys)) if index not in indices), len(keys)) * self.tokens_per_block


class LMCacheFSNative(LMCacheFS):
    name = "lmcache-fs-native"
    title = "LMCache L2, fs_native"
    specification: ClassVar[dict[str, Any]] = {"type": "fs_native"}
    scale = False


class LMCacheFSNativeDirect(LMCacheFS):
    name = "lmcache-fs-native-direct"
    title = "LMCache L2, fs_native, O_DIRECT"
    durability = "device cache: O_DIRECT, no sync"
    specification: ClassVar[dict[str, Any]] = {"type": "fs_native", "use_odirect": True}


class LMCacheRawBlock(LMCacheFS):
    name = "lmcache-raw-block"
    title = "LMCache L2, raw_block"
    durability = "checkpoint of its index every 60 s"
    specification: ClassVar[dict[str, Any]] = {"type": "raw_block"}

    @classmethod
    def missing(cls) -> str | None:
        from importlib.util import find_spec

        if find_spec("lmcache_rust_raw_block_io") is None:
            return "its Rust extension is in no published package of LMCache 0.5.6"
        return "not driven yet"
