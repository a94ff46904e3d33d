"""This store, through its Python package."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..peer import Hits, Peer
from ..workload import Blocks, Tokens


class KVStore(Peer):
    name = "kvstore"
    title = "kvstore"
    environment = "kvstore"
    durability = "synced, survives power loss"
    note = "every block's checksum, key, tokens and namespace are verified"

    @classmethod
    def missing(cls) -> str | None:
        try:
            import kvstore

            kvstore.version()
        except (ImportError, OSError) as error:
            return str(error)
        return None

    def open(self, memory: Blocks) -> None:
        import kvstore

        self.store = kvstore.Store(
            self.place.folder / "store",
            capacity=self.place.byte_count * 5 // 4 + (512 << 20),
            host=self.place.byte_count + (64 << 20),
        )
        identity = kvstore.Identity(
            model_name="peers", tokens_per_block=self.tokens_per_block, region_bytes=(self.place.block_bytes,)
        )
        self.namespace = self.store.namespace(identity)

    def close(self) -> None:
        self.store.close()

    def keys(self, prompt: Tokens) -> Any:
        import kvstore

        return kvstore.Prompt(prompt)

    def _spans(self, blocks: Blocks) -> Any:
        import kvstore

        start, size = blocks.ctypes.data, self.place.block_bytes
        return kvstore.Spans.at([start + index * size for index in range(len(blocks))], size)

    def put(self, keys: Any, first: int, blocks: Blocks) -> None:
        prefix = keys.prefix(tokens=(first + len(blocks)) * self.tokens_per_block)
        done = self.namespace.offload(prefix, self._spans(blocks), first_block=first)
        if done.blocks_done != len(blocks):
            raise RuntimeError(f"{done.status.name}: {done.blocks_done} of {len(blocks)} blocks were taken")

    def finish(self) -> None:
        flush = self.store.flush()
        dropped = sum(getattr(flush, name) for name in flush.__slots__ if name.startswith("blocks_dropped"))
        if dropped:
            raise RuntimeError(f"{dropped} blocks were dropped: {flush}")

    def get(self, keys: Any, first: int, target: Blocks) -> Hits:
        done = self.namespace.restore(keys, self._spans(target), first_block=first, block_count=len(target))
        return np.arange(len(target)) < done.blocks_done

    def lookup(self, prompt: Tokens) -> int:
        import kvstore

        match = self.namespace.match(kvstore.Prompt(prompt))
        self.store.release(match.lease)
        return match.tokens
