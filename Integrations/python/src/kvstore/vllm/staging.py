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
from ..moving import Operation
from ..namespace import Namespace
from ..prompt import Prompt
from .layout import NULL_BLOCK, KVLayout, Region

_STAGING_BYTES = 64 << 20


class Memory(ABC):
    """vLLM's KV cache, as the store reads and fills it.

    Blocks are named by the ids that they have in each block table of the layout, a list for each.
    """

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
        tables: list[list[int]],
        first_block: int,
        first_region: int,
        region_count: int,
    ) -> int:
        """Fills these blocks, or some regions of each; returns how many leading ones are good."""

    def start_restore(
        self,
        namespace: Namespace,
        prompt: Prompt,
        tables: list[list[int]],
        first_block: int,
        first_region: int,
        region_count: int,
    ) -> Operation | None:
        """The same by a thread of the library's, which returns at once; None where blocks pass through other memory."""
        return None

    @abstractmethod
    def offload(
        self, namespace: Namespace, prompt: Prompt, tables: list[list[int]], first_block: int, ready: Any, **hints: Any
    ) -> Status:
        """Stores these blocks; hints as Namespace.offload takes them."""


class HostMemory(Memory):
    """A KV cache in host memory: nothing is copied on the way."""

    def __init__(self, layout: KVLayout, load_timeout_seconds: float) -> None:
        super().__init__(layout, load_timeout_seconds)
        # A block of the store may begin before the window that vLLM keeps: that part of it goes here.
        self._rest: torch.Tensor | None = None
        if layout.has_windows:
            self._rest = torch.empty(max(region.byte_count for region in layout.regions), dtype=torch.uint8)

    def ready(self) -> Any:
        return None

    def restore(
        self,
        namespace: Namespace,
        prompt: Prompt,
        tables: list[list[int]],
        first_block: int,
        first_region: int,
        region_count: int,
    ) -> int:
        return namespace.restore(
            prompt,
            self._spans(tables, first_region, region_count),
            first_block=first_block,
            block_count=self._layout.block_count(tables),
            first_region=first_region,
            region_count=region_count,
            timeout_seconds=self._load_timeout_seconds,
        ).blocks_done

    def start_restore(
        self,
        namespace: Namespace,
        prompt: Prompt,
        tables: list[list[int]],
        first_block: int,
        first_region: int,
        region_count: int,
    ) -> Operation | None:
        return namespace.start_restore(
            prompt,
            self._spans(tables, first_region, region_count),
            first_block=first_block,
            block_count=self._layout.block_count(tables),
            first_region=first_region,
            region_count=region_count,
            timeout_seconds=self._load_timeout_seconds,
        )

    def _spans(self, tables: list[list[int]], first_region: int, region_count: int) -> Spans:
        nowhere = 0 if self._rest is None else self._rest.data_ptr()
        return self._layout.spans(tables, first_region, region_count, nowhere)

    def offload(
        self, namespace: Namespace, prompt: Prompt, tables: list[list[int]], first_block: int, ready: Any, **hints: Any
    ) -> Status:
        count = self._layout.block_count(tables)
        return namespace.offload(
            prompt, self._layout.spans(tables), first_block=first_block, block_count=count, **hints
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
        tables: list[list[int]],
        first_block: int,
        first_region: int,
        region_count: int,
    ) -> int:
        count = region_count or len(self._layout.regions) - first_region
        blocks = self._layout.block_count(tables)
        good = 0
        while good < blocks:
            part = self._layout.cut(tables, good, self._blocks)
            asked = self._layout.block_count(part)
            slots, spans = self._stage(asked, first_region, count)
            done = namespace.restore(
                prompt,
                spans,
                first_block=first_block + good,
                block_count=asked,
                first_region=first_region,
                region_count=count,
                prefix_block_count=first_block + blocks,
                timeout_seconds=self._load_timeout_seconds,
            ).blocks_done
            lengths = spans.lengths()
            pairs = []
            for b in range(done):
                for r in range(count):
                    page = self._page(first_region + r, part, b)
                    # Of windows that have moved on, nothing came, or nobody wants it.
                    if page is not None and lengths[b * count + r]:
                        pairs.append((page, slots[b][r]))
            self._copy(pairs)
            good += done
            if done < asked:
                break
        return good

    def offload(
        self, namespace: Namespace, prompt: Prompt, tables: list[list[int]], first_block: int, ready: Any, **hints: Any
    ) -> Status:
        size = namespace.identity.tokens_per_block
        count = len(self._layout.regions)
        for start in range(0, self._layout.block_count(tables), self._blocks):
            part = self._layout.cut(tables, start, self._blocks)
            blocks = self._layout.block_count(part)
            slots, spans = self._stage(blocks, 0, count)
            pages = [(slots[b][r], self._page(r, part, b)) for b in range(blocks) for r in range(count)]
            self._copy([(slot, page) for slot, page in pages if page is not None], ready)
            first = first_block + start
            status = namespace.offload(
                prompt.prefix(tokens=(first + blocks) * size), spans, first_block=first, block_count=blocks, **hints
            ).status
            if status != Status.OK:
                return status
        return Status.OK

    def _page(self, region: int, tables: list[list[int]], block: int) -> torch.Tensor | None:
        """The bytes of a region of one of these blocks; None where vLLM has no block."""
        place = self._layout.regions[region]
        found = tables[place.table][block * self._layout.parts[place.table] + place.part]
        return None if found == NULL_BLOCK and self._layout.has_windows else self._pages[region][found]

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
