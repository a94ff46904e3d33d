"""vLLM: the file system tier of its KV offloading, and the look-up of its prefix cache."""

from __future__ import annotations

import time
from typing import Any, cast

import numpy as np

from ..peer import Hits, Peer
from ..workload import Blocks, Tokens

JOB_BLOCKS = 16
"""Blocks in a job: of a long prompt vLLM makes one job a step, and its threads take a job each."""
WAIT_SECONDS = 120.0


def _request(prompt: list[int], name: str) -> Any:
    """A request as the engine makes it: block hashes are computed here, with SHA-256, its default."""
    from vllm.sampling_params import SamplingParams
    from vllm.utils.hashing import sha256
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher
    from vllm.v1.request import Request

    return Request(
        request_id=name,
        prompt_token_ids=prompt,
        sampling_params=SamplingParams(max_tokens=1),
        pooling_params=None,
        block_hasher=get_request_block_hasher(16, sha256),
    )


def _prepare() -> None:
    import vllm.v1.core.kv_cache_manager
    import vllm.v1.kv_offload.tiering.fs.manager  # noqa: F401
    from vllm.utils.hashing import sha256
    from vllm.v1.core.kv_cache_utils import init_none_hash

    init_none_hash(sha256)
    _request(list(range(32)), "first")


class VLLMFileTier(Peer):
    name = "vllm-fs"
    title = "vLLM's fs tier"
    environment = "vllm"
    durability = "device cache: O_DIRECT, no sync"
    note = "its 16 + 16 threads; below its CPU tier, which would answer a warm get from memory"

    @classmethod
    def prepare(cls) -> None:
        _prepare()

    def open(self, memory: Blocks) -> None:
        from vllm.v1.kv_offload.base import OffloadingSpec
        from vllm.v1.kv_offload.config import (
            OffloadingCacheConfig,
            OffloadingConfig,
            OffloadingGroupConfig,
            OffloadingModelConfig,
            OffloadingParallelConfig,
        )
        from vllm.v1.kv_offload.tiering.fs.manager import FileSystemTierManager

        config = OffloadingConfig(
            groups=(OffloadingGroupConfig(self.tokens_per_block, ("layer",), 0),),
            worker_kv_bytes_per_block=self.place.block_bytes,
            enable_kv_cache_events=False,
            extra_config={},
            engine_id="peers",
            model=OffloadingModelConfig("peers", "float16"),
            cache=OffloadingCacheConfig(self.tokens_per_block, 1),
            parallel=OffloadingParallelConfig(0, 1, 1, 1, 1, 1, 0, 1, None, True),
        )

        class Spec(OffloadingSpec):
            def get_manager(self) -> Any:
                raise NotImplementedError

            def get_worker(self, kv_caches: Any) -> Any:
                raise NotImplementedError

        self.memory = memory
        self.tier = FileSystemTierManager(
            cast(Any, Spec)(config), memory.data, "fs", str(self.place.folder / "tier")
        )
        self.jobs: dict[int, range] = {}
        self.number = 0

    def close(self) -> None:
        self.tier.shutdown()

    def prompt(self, tokens: Tokens) -> list[int]:
        return [int(token) for token in tokens]

    def keys(self, prompt: list[int]) -> list[Any]:
        from vllm.v1.kv_offload.base import make_offload_key

        self.number += 1
        return [make_offload_key(value, 0) for value in _request(prompt, str(self.number)).block_hashes]

    def _job(self, keys: list[Any], blocks: Blocks, loads: bool) -> Any:
        from vllm.v1.kv_offload.base import ReqContext
        from vllm.v1.kv_offload.tiering.base import TransferJob

        self.number += 1
        chunk = (blocks.ctypes.data - self.memory.ctypes.data) // self.place.block_bytes
        ids = np.arange(chunk, chunk + len(blocks))
        return TransferJob(self.number, keys, ids, loads, ReqContext(str(self.number)))

    def _wait(self) -> dict[int, Any]:
        """The answers of all jobs by their first blocks."""
        end, answers = time.monotonic() + WAIT_SECONDS, {}
        while self.jobs:
            for result in self.tier.get_finished_jobs():
                answers[self.jobs.pop(result.job_id).start] = result
            if self.jobs:
                if time.monotonic() > end:
                    raise TimeoutError(f"{len(self.jobs)} jobs did not end")
                # vLLM polls once a step; this is much more often.
                time.sleep(0.0002)
        return answers

    def put(self, keys: list[Any], first: int, blocks: Blocks) -> None:
        job = self._job(keys[first : first + len(blocks)], blocks, loads=False)
        self.jobs[job.job_id] = range(first, first + len(blocks))
        self.tier.submit_store(job)

    def finish(self) -> None:
        if failed := [result for result in self._wait().values() if not result.success]:
            raise RuntimeError(f"{len(failed)} jobs failed")

    def get(self, keys: list[Any], first: int, target: Blocks) -> Hits:
        chosen = keys[first : first + len(target)]
        for start in range(0, len(target), JOB_BLOCKS):
            part = target[start : start + JOB_BLOCKS]
            job = self._job(chosen[start : start + len(part)], part, loads=True)
            self.jobs[job.job_id] = range(start, start + len(part))
            self.tier.submit_load(job)
        hits = np.ones(len(target), bool)
        for start, result in self._wait().items():
            if not result.success:
                kept = len(result.successful_keys or ())
                hits[start + kept : start + JOB_BLOCKS] = False
        return hits

    def lookup(self, prompt: list[int]) -> int:
        from vllm.v1.kv_offload.base import LookupResult, ReqContext

        keys = self.keys(prompt)
        context = ReqContext(str(self.number))
        answers = [self.tier.lookup(key, context) for key in keys]
        end = time.monotonic() + WAIT_SECONDS
        while LookupResult.RETRY in answers and time.monotonic() < end:
            self.tier.on_schedule_end(cast(Any, None))
            time.sleep(0.0002)
            answers = [self.tier.lookup(key, context) for key in keys]
        self.tier.on_request_finished(context)
        hits = [answer is LookupResult.HIT for answer in answers]
        return (hits.index(False) if False in hits else len(hits)) * self.tokens_per_block


class VLLMPrefixCache(Peer):
    name = "vllm-prefix-cache"
    title = "vLLM's prefix cache"
    environment = "vllm"
    durability = "memory only"
    persistent = False
    holds_data = False
    note = "an index of what is in device memory; hashing included; leaves one block to compute"

    @classmethod
    def prepare(cls) -> None:
        _prepare()

    def open(self, memory: Blocks) -> None:
        import torch
        from vllm.v1.core.kv_cache_manager import KVCacheManager
        from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec

        width = self.tokens_per_block
        spec = FullAttentionSpec(block_size=width, num_kv_heads=1, head_size=1, dtype=torch.float16)
        config = KVCacheConfig(self.place.block_count + 1024, [], [KVCacheGroupSpec(["layer"], spec)])
        self.manager = KVCacheManager(config, 1 << 20, width, width)
        self.number = 0

    def prompt(self, tokens: Tokens) -> list[int]:
        return [int(token) for token in tokens]

    def keys(self, prompt: list[int]) -> list[int]:
        return prompt

    def put(self, keys: list[int], first: int, blocks: Blocks) -> None:
        if (first + len(blocks)) * self.tokens_per_block != len(keys):
            return
        self.number += 1
        request = _request(keys, str(self.number))
        if self.manager.allocate_slots(request, len(keys)) is None:
            raise MemoryError("vLLM's block pool is full")
        request.num_computed_tokens = len(keys)
        self.manager.free(request)

    def lookup(self, prompt: list[int]) -> int:
        self.number += 1
        found = self.manager.get_computed_blocks(_request(prompt, str(self.number)))
        return int(found[1])
