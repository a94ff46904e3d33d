"""Where the KV of a block lies in vLLM's memory.

    layer 0  [ block 0 | block 1 | block 2 | ... ]     one region of each block
    layer 1  [ block 0 | block 1 | block 2 | ... ]     one region of each block
    ...

vLLM has a tensor for each layer, whose backend orders heads, tokens and K/V as it likes. The store takes the bytes as
they are: what matters here is only where each block begins and that it is one piece.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ..memory import Spans


@dataclass(frozen=True, slots=True)
class Region:
    """One piece of every block: block b lies at address + b × stride."""

    address: int
    stride: int
    byte_count: int


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

    @property
    def block_bytes(self) -> int:
        """Bytes of one block over all layers."""
        return sum(region.byte_count for region in self.regions)

    def spans(self, block_ids: list[int], first_region: int = 0, region_count: int = 0) -> Spans:
        """The scatter list of these blocks, block by block, straight into vLLM's memory."""
        regions = self.regions[first_region : first_region + region_count if region_count else None]
        address = np.array([region.address for region in regions], dtype=np.uint64)
        stride = np.array([region.stride for region in regions], dtype=np.uint64)
        size = np.array([region.byte_count for region in regions], dtype=np.uint64)
        words = np.empty((len(block_ids), len(regions), 3), dtype=np.uint64)
        words[:, :, 0] = address + np.array(block_ids, dtype=np.uint64)[:, None] * stride
        words[:, :, 1] = words[:, :, 2] = size
        return Spans.from_words(words)


def kv_layout(kv_caches: dict[str, Any], block_count: int) -> KVLayout:
    """Finds the regions in vLLM's tensors, layer by layer; `block_count` is the number of blocks of the pool."""
    regions: list[Region] = []
    layers: dict[str, tuple[int, int]] = {}
    seen: dict[tuple[int, tuple[int, ...]], str] = {}
    descriptions = []
    for name, tensor in kv_caches.items():
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
        layers[name] = (len(regions), len(parts))
        regions += [_region(name, part, block_count) for part in parts]
        descriptions.append(
            f"{len(parts)}x{list(parts[0].shape[1:])}/{list(parts[0].stride()[1:])}/{parts[0].shape[0] // block_count}"
        )
    # Most models have the same for every layer.
    unique = list(dict.fromkeys(descriptions))
    description = unique[0] if len(unique) == 1 else ";".join(descriptions)
    return KVLayout(tuple(regions), layers, description)


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
