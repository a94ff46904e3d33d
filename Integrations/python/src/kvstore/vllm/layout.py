"""Where the KV of a block lies in vLLM's memory.

    layer 0  [ block 0 | block 1 | block 2 | ... ]     one region of each block
    layer 1  [ block 0 | block 1 | block 2 | ... ]     one region of each block
    ...

vLLM has a tensor for each layer, whose backend orders heads, tokens and K/V as it likes. The store takes the bytes as
they are: what matters here is only where each block begins and that it is one piece. Layers of different block tables may
lie at the same address: vLLM gives a block to one table at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from ..memory import Spans
from .groups import Table

NULL_BLOCK = 0
"""The block that stands in vLLM's tables where there is none."""


@dataclass(frozen=True, slots=True)
class Region:
    """One piece of every block: block b of the table lies at address + b × stride."""

    address: int
    stride: int
    byte_count: int
    table: int = 0
    part: int = 0
    """Which of the table's blocks it is, where several make a block of the store."""


class UnsupportedLayoutError(ValueError):
    """A KV cache whose blocks are not in one piece for each layer."""


@dataclass(frozen=True, slots=True)
class KVLayout:
    """The regions of a block, in payload order, and which of them each layer has."""

    regions: tuple[Region, ...]
    layer_regions: dict[str, tuple[int, int]]
    """Layer name to its first region and their number."""
    description: str
    """Shape and strides within a block: part of what tells KV of different layouts apart."""
    parts: tuple[int, ...] = (1,)
    """Of each table, how many of its blocks make one of the store."""
    has_windows: bool = False
    """Tables may have null blocks."""

    @property
    def block_bytes(self) -> int:
        """Bytes of one block over all layers."""
        return sum(region.byte_count for region in self.regions)

    def block_count(self, tables: list[list[int]]) -> int:
        """How many blocks of the store these are."""
        return len(tables[0]) // self.parts[0]

    def cut(self, tables: list[list[int]], first: int, count: int) -> list[list[int]]:
        """The tables' blocks that make `count` blocks of the store from `first` on."""
        return [
            table[first * parts : (first + count) * parts] for table, parts in zip(tables, self.parts, strict=True)
        ]

    def spans(
        self, tables: list[list[int]], first_region: int = 0, region_count: int = 0, nowhere: int = 0
    ) -> Spans:
        """The scatter list of these blocks, block by block, straight into vLLM's memory.

        nowhere: an address for what lies in null blocks.
        """
        regions = self.regions[first_region : first_region + region_count if region_count else None]
        ids = [np.array(table, dtype=np.uint64) for table in tables]
        words = np.empty((self.block_count(tables), len(regions), 3), dtype=np.uint64)
        for index, region in enumerate(regions):
            blocks = ids[region.table][region.part :: self.parts[region.table]]
            address = np.uint64(region.address) + blocks * np.uint64(region.stride)
            words[:, index, 0] = np.where(blocks == NULL_BLOCK, np.uint64(nowhere), address) if nowhere else address
            words[:, index, 1:] = region.byte_count
        return Spans.from_words(words)


def kv_layout(kv_caches: dict[str, Any], block_count: int, tables: tuple[Table, ...] | None = None) -> KVLayout:
    """Finds the regions in vLLM's tensors, layer by layer; `block_count` is the number of blocks of the pool.

    Without tables all layers share one.
    """
    tables = tables or (Table(0, tuple(kv_caches), 1),)
    regions: list[Region] = []
    layers: dict[str, tuple[int, int]] = {}
    descriptions = []
    for number, table in enumerate(tables):
        seen: dict[tuple[int, tuple[int, ...]], str] = {}
        for name in table.layers:
            if name not in kv_caches:
                # Another rank of the pipeline has it.
                continue
            tensor = kv_caches[name]
            # Layers that share their KV are one tensor under several names.
            alias = (tensor.data_ptr(), tuple(tensor.stride()))
            if alias in seen:
                layers[name] = layers[seen[alias]]
                continue
            seen[alias] = name
            parts = [tensor]
            if tensor.shape[0] % block_count and tensor.shape[0] == 2 and tensor.shape[1] % block_count == 0:
                # [K or V, block, ...]
                parts = [tensor[0], tensor[1]]
            layers[name] = (len(regions), len(parts) * table.parts)
            found = [_region(name, part, block_count) for part in parts]
            regions += [replace(region, table=number, part=part) for region in found for part in range(table.parts)]
            descriptions.append(
                f"{len(parts)}x{list(parts[0].shape[1:])}/{list(parts[0].stride()[1:])}/{parts[0].shape[0] // block_count}"
            )
    # Most models have the same for every layer.
    unique = list(dict.fromkeys(descriptions))
    description = unique[0] if len(unique) == 1 else ";".join(descriptions)
    return KVLayout(
        tuple(regions),
        layers,
        description,
        tuple(table.parts for table in tables),
        any(table.window_tokens for table in tables),
    )


def _region(layer: str, tensor: Any, block_count: int) -> Region:
    size = tensor.element_size()
    if tensor.shape[0] % block_count:
        raise UnsupportedLayoutError(
            f"{layer}: a KV cache of shape {list(tensor.shape)} with {block_count} blocks: where a block lies is unknown"
        )
    # A kernel may cut a block of the pool into several of its own.
    kernel_blocks = tensor.shape[0] // block_count
    inner = prod(tensor.shape[1:])
    # In one piece: sorted by stride, each dimension is as far apart as those inside it are long.
    expected = 1
    for stride, length in sorted(zip(tensor.stride()[1:], tensor.shape[1:], strict=True)):
        if length != 1 and stride != expected:
            raise UnsupportedLayoutError(
                f"{layer}: a block of shape {list(tensor.shape[1:])} with strides {list(tensor.stride()[1:])} is not in one piece"
            )
        expected *= length
    if kernel_blocks > 1 and tensor.stride(0) != inner:
        raise UnsupportedLayoutError(f"{layer}: the {kernel_blocks} parts of a block are not side by side")
    return Region(
        address=tensor.data_ptr(),
        stride=kernel_blocks * tensor.stride(0) * size,
        byte_count=kernel_blocks * inner * size,
    )
