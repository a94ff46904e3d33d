"""SGLang: its file backend of HiCache, and the radix tree that it looks prompts up in."""

from __future__ import annotations

import importlib.util
import sys
import types
from array import array
from typing import Any

import numpy as np

from ..peer import Hits, Peer
from ..workload import Blocks, Tokens

STORAGE_BATCH = 128
"""Pages in a call of SGLang's cache controller (STORAGE_BATCH_SIZE)."""


class _Placeholder(types.ModuleType):
    """A module whose every name is an empty class."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def _without_torchvision() -> None:
    """SGLang's model configurations import what prepares images, whose builds on PyPI need CUDA. None of it is called."""
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is not None:
        return
    # transformers must have seen first that it is not there.
    import transformers.image_processing_utils  # noqa: F401

    for part in ("", ".transforms", ".transforms.functional", ".transforms.v2", ".transforms.v2.functional", ".io"):
        module = _Placeholder("torchvision" + part)
        module.__path__ = []
        sys.modules["torchvision" + part] = module


class HiCacheFile(Peer):
    name = "sglang-hicache-file"
    title = "SGLang HiCacheFile"
    environment = "sglang"
    durability = "page cache: no sync"
    note = "one thread, as SGLang's cache controller has; its metadata cache is off, the default"

    @classmethod
    def prepare(cls) -> None:
        _without_torchvision()
        from sglang.srt.mem_cache import hicache_storage  # noqa: F401
        from sglang.srt.mem_cache.utils import get_hash_str

        # Compiled when it is first used.
        get_hash_str(array("q", range(32)), None, 16)

    def open(self, memory: Blocks) -> None:
        from sglang.srt.mem_cache.hicache_storage import HiCacheFile as Backend
        from sglang.srt.mem_cache.hicache_storage import HiCacheStorageConfig

        config = HiCacheStorageConfig(
            tp_rank=0,
            tp_size=1,
            pp_rank=0,
            pp_size=1,
            attn_cp_rank=0,
            attn_cp_size=1,
            is_mla_model=False,
            enable_storage_metrics=False,
            is_page_first_layout=True,
            model_name="peers",
        )
        self.backend = Backend(config, str(self.place.folder / "pages"))

    def prompt(self, tokens: Tokens) -> Any:
        return array("q", tokens.astype(np.int64).tobytes())

    def keys(self, prompt: Any) -> list[str]:
        from sglang.srt.mem_cache.utils import get_hash_str

        width = self.tokens_per_block
        return list(get_hash_str(prompt[: len(prompt) // width * width], None, width))

    def put(self, keys: list[str], first: int, blocks: Blocks) -> None:
        import torch

        if not self.backend.batch_set(keys[first : first + len(blocks)], list(torch.from_numpy(blocks))):
            raise RuntimeError("HiCacheFile.batch_set answered False")

    def get(self, keys: list[str], first: int, target: Blocks) -> Hits:
        import torch

        hits = np.zeros(len(target), bool)
        tensors = list(torch.from_numpy(target))
        for start in range(0, len(target), STORAGE_BATCH):
            end = min(start + STORAGE_BATCH, len(target))
            try:
                found = self.backend.batch_get(keys[first + start : first + end], tensors[start:end])
            except OSError:
                # A short read ends the whole call.
                break
            hits[start:end] = [one is not None for one in found]
        return hits

    def lookup(self, prompt: Any) -> int:
        return int(self.backend.batch_exists(self.keys(prompt))) * self.tokens_per_block


class RadixTree(Peer):
    name = "sglang-radix"
    title = "SGLang radix tree"
    environment = "sglang"
    durability = "memory only"
    persistent = False
    holds_data = False
    note = "an index of what is in device memory; compares tokens, hashes nothing"

    @classmethod
    def prepare(cls) -> None:
        _without_torchvision()
        import sglang.srt.mem_cache.radix_cache  # noqa: F401

    def open(self, memory: Blocks) -> None:
        from sglang.srt.mem_cache.radix_cache import RadixCache

        self.tree = RadixCache.create_simulated(page_size=self.tokens_per_block)

    def prompt(self, tokens: Tokens) -> Any:
        return array("q", tokens.astype(np.int64).tobytes())

    def keys(self, prompt: Any) -> Any:
        return prompt

    def put(self, keys: Any, first: int, blocks: Blocks) -> None:
        from sglang.srt.mem_cache.base_prefix_cache import InsertParams
        from sglang.srt.mem_cache.radix_cache import RadixKey

        # The whole chain with its last blocks: the tree is filled by prompts, not by blocks.
        end = (first + len(blocks)) * self.tokens_per_block
        if end == len(keys):
            self.tree.insert(InsertParams(key=RadixKey(keys)))

    def lookup(self, prompt: Any) -> int:
        from sglang.srt.mem_cache.base_prefix_cache import MatchPrefixParams
        from sglang.srt.mem_cache.radix_cache import RadixKey

        return int(self.tree.match_prefix(MatchPrefixParams(key=RadixKey(prompt))).device_prefix_len)
