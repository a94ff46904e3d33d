"""How blocks get from vLLM's memory to the store and back: in place, or through pinned memory beside a GPU.

    KV cache in host memory      store ◄──────── scatter list ────────► blocks in place
    KV cache in GPU memory       store ◄──► pinned slots ◄── copies on a stream of their own ──► blocks
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Any

import torch

from ..errors import Status
from ..memory import Spans
from ..namespace import Namespace
from ..prompt import Prompt
from .layout import KVLayout, Region

_STAGING_BYTES = 64 << 20


class Memory(ABC):
    """vLLM's KV cache, as the store reads and fills it."""

    def __init__(self, layout: KVLayout, load_timeout_seconds: float) -> None:
        self._layout = layout
        self._load_timeout_seconds = load_timeout_seconds

    @abstractmethod
    def ready(self) -> Any:
        """Called in vLLM's thread after a step: what a save waits for until the step's KV is in memory."""

    @abstractmethod
    def restore(
        self,
        namespace: Namespace,
        prompt: Prompt,
        block_ids: list[int],
        first_block: int,
        first_region: int,
        region_count: int,
    ) -> int:
        """Fills these blocks, or some regions of each; returns how many leading ones are good."""

    @abstractmethod
    def offload(
        self, namespace: Namespace, prompt: Prompt, block_ids: list[int], first_block: int, ready: Any
    ) -> Status:
        """Stores these blocks."""


class HostMemory(Memory):
    """A KV cache in host memory: nothing is copied on the way."""

    def ready(self) -> Any:
        return None

    def restore(
        self,
        namespace: Namespace,
        prompt: Prompt,
        block_ids: list[int],
        first_block: int,
        first_region: int,
        region_count: int,
    ) -> int:
        return namespace.restore(
            prompt,
            self._layout.spans(block_ids, first_region, region_count),
            first_block=first_block,
            block_count=len(block_ids),
            first_region=first_region,
            region_count=region_count,
            timeout_seconds=self._load_timeout_seconds,
        ).blocks_done

    def offload(
        self, namespace: Namespace, prompt: Prompt, block_ids: list[int], first_block: int, ready: Any
    ) -> Status:
        return namespace.offload(
            prompt, self._layout.spans(block_ids), first_block=first_block, block_count=len(block_ids)
        ).status


class StagedMemory(Memory):
    """A KV cache in GPU memory: blocks pass through pinned memory, a few at a time.

    Each thread that moves blocks has staging memory and a stream of its own. With a KV cache in host memory it does the
    same without pinning and streams; the tests use that.
    """

    def __init__(
        self, layout: KVLayout, load_timeout_seconds: float, device: torch.device, kv_caches: list[torch.Tensor]
    ) -> None:
        super().__init__(layout, load_timeout_seconds)
        self._device = device
        self._cuda = device.type == "cuda"
        self._pages = [_pages(region, kv_caches) for region in layout.regions]
        self._blocks = max(1, _STAGING_BYTES // layout.block_bytes)
        self._mine = threading.local()

    def ready(self) -> Any:
        if not self._cuda:
            return None
        event = torch.cuda.Event()
        event.record()
        return event

    def restore(
        self,
        namespace: Namespace,
        prompt: Prompt,
        block_ids: list[int],
        first_block: int,
        first_region: int,
        region_count: int,
    ) -> int:
        count = region_count or len(self._layout.regions) - first_region
        good = 0
        while good < len(block_ids):
            part = block_ids[good : good + self._blocks]
            slots, spans = self._stage(len(part), first_region, count)
            done = namespace.restore(
                prompt,
                spans,
                first_block=first_block + good,
                block_count=len(part),
                first_region=first_region,
                region_count=count,
                timeout_seconds=self._load_timeout_seconds,
            ).blocks_done
            self._copy([(self._pages[first_region + r][part[b]], slots[b][r]) for b in range(done) for r in range(count)])
            good += done
            if done < len(part):
                break
        return good

    def offload(
        self, namespace: Namespace, prompt: Prompt, block_ids: list[int], first_block: int, ready: Any
    ) -> Status:
        size = namespace.identity.tokens_per_block
        count = len(self._layout.regions)
        for start in range(0, len(block_ids), self._blocks):
            part = block_ids[start : start + self._blocks]
            slots, spans = self._stage(len(part), 0, count)
            self._copy([(slots[b][r], self._pages[r][part[b]]) for b in range(len(part)) for r in range(count)], ready)
            first = first_block + start
            status = namespace.offload(
                prompt.prefix(tokens=(first + len(part)) * size), spans, first_block=first, block_count=len(part)
            ).status
            if status != Status.OK:
                return status
        return Status.OK

    def _stage(self, blocks: int, first_region: int, region_count: int) -> tuple[list[list[torch.Tensor]], Spans]:
        """Slots for so many blocks in this thread's staging memory: a tensor for each block and region, and their list."""
        buffer = getattr(self._mine, "buffer", None)
        if buffer is None:
            size = self._blocks * self._layout.block_bytes
            buffer = self._mine.buffer = torch.empty(size, dtype=torch.uint8, pin_memory=self._cuda)
        slots, addresses, sizes, at = [], [], [], 0
        for _ in range(blocks):
            slot = []
            for region in self._layout.regions[first_region : first_region + region_count]:
                slot.append(buffer[at : at + region.byte_count])
                addresses.append(buffer.data_ptr() + at)
                sizes.append(region.byte_count)
                at += region.byte_count
            slots.append(slot)
        return slots, Spans.at(addresses, sizes)

    def _copy(self, pairs: list[tuple[torch.Tensor, torch.Tensor]], ready: Any = None) -> None:
        """Copies each second tensor into the first, and returns when that is done."""
        if not self._cuda:
            for target, source in pairs:
                target.copy_(source)
            return
        stream = getattr(self._mine, "stream", None)
        if stream is None:
            stream = self._mine.stream = torch.cuda.Stream(self._device)
        if ready is not None:
            stream.wait_event(ready)
        with torch.cuda.stream(stream):
            for target, source in pairs:
                target.copy_(source, non_blocking=True)
        stream.synchronize()


def _pages(region: Region, kv_caches: list[torch.Tensor]) -> torch.Tensor:
    """The region of every block as rows of bytes, over the tensor that holds it."""
    for tensor in kv_caches:
        storage = tensor.untyped_storage()
        start = region.address - storage.data_ptr()
        if 0 <= start < storage.nbytes():
            rows = (storage.nbytes() - start - region.byte_count) // region.stride + 1
            flat = torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(storage)
            return flat.as_strided((rows, region.byte_count), (region.stride, 1), start)
    raise ValueError("a region outside of the KV cache")


def memory_of(
    layout: KVLayout, kv_caches: dict[str, torch.Tensor], *, staging: bool = False, load_timeout_seconds: float = 0
) -> Memory:
    """The way of copying that fits where the KV cache is."""
    tensors = list(kv_caches.values())
    device = tensors[0].device
    if device.type == "cpu" and not staging:
        return HostMemory(layout, load_timeout_seconds)
    if device.type in ("cpu", "cuda"):
        return StagedMemory(layout, load_timeout_seconds, device, tensors)
    raise ValueError(f"kvstore: a KV cache on device type {device.type} is not supported")
