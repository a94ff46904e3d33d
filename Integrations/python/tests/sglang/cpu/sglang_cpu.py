"""Stands in for what SGLang has for GPUs only: kernels that are imported and not called, and HiCache's copies of pages.

Everything else is SGLang's own: scheduler, radix tree, HiCache with its threads, and the storage's path through it.
"""

from __future__ import annotations

import ctypes
import importlib.abc
import importlib.machinery
import sys
import types
from typing import Any
from unittest.mock import MagicMock

ABSENT = ("torchvision", "sgl_kernel")
COPIES = (
    "transfer_kv_direct",
    "transfer_kv_all_layer_direct_lf_pf",
    "transfer_kv_per_layer_direct_pf_lf",
    "transfer_kv_all_layer",
    "transfer_kv_per_layer",
    "transfer_kv_all_layer_lf_pf",
    "transfer_kv_per_layer_pf_lf",
)
USERS = (
    "sglang.srt.mem_cache.pool_host.mha",
    "sglang.srt.mem_cache.pool_host.common",
    "sglang.srt.managers.cache_controller",
    "sglang.srt.mem_cache.hybrid_cache.hybrid_cache_controller",
)


# Its buffers on the host are pinned, which takes a GPU.
PINNED = "sglang.srt.lora.layers"


class Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules whose every name is a stand-in."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.split(".")[0] in ABSENT:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        module = types.ModuleType(spec.name)
        module.__path__ = []

        def stand_in(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return MagicMock(name=f"{spec.name}.{name}")

        module.__getattr__ = stand_in  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        pass


class Copies(importlib.abc.MetaPathFinder):
    """Puts the copies below into the modules that use them."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in USERS and name != PINNED:
            return None
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target) if finder is not self and hasattr(finder, "find_spec") else None
            if spec is not None:
                break
        execute = spec.loader.exec_module

        def and_replace(module: Any) -> None:
            execute(module)
            if name == PINNED:
                leave_unpinned()
                return
            for copy in COPIES:
                setattr(module, copy, globals()[copy])
            if name.endswith("common"):
                module._cuda_host_register = lambda *arguments, **named: None

        spec.loader.exec_module = and_replace
        return spec


def leave_unpinned() -> None:
    """torch's functions that make tensors, without pinning them."""
    import torch

    for name in ("tensor", "empty", "zeros", "ones", "full"):
        make = getattr(torch, name)

        def unpinned(*arguments: Any, make: Any = make, **named: Any) -> Any:
            named.pop("pin_memory", None)
            return make(*arguments, **named)

        setattr(torch, name, unpinned)
    torch.Tensor.pin_memory = lambda self, *_: self


def pages(sources: Any, targets: Any, size: int) -> list[tuple[int, int]]:
    """First slot of each page, from and to."""
    return list(zip(sources.cpu().tolist()[::size], targets.cpu().tolist()[::size], strict=True))


def transfer_kv_direct(
    src_layers: Any, dst_layers: Any, src_indices: Any, dst_indices: Any, page_size: int, **_: Any
) -> None:
    for source, target in zip(src_layers, dst_layers, strict=True):
        for a, b in pages(src_indices, dst_indices, page_size):
            target[b : b + page_size].copy_(source[a : a + page_size])


def transfer_kv_all_layer_direct_lf_pf(
    src_ptrs: Any, dst_ptrs: Any, src_indices: Any, dst_indices: Any, page_size: int, **_: Any
) -> None:
    layers = len(src_ptrs) // len(dst_ptrs)
    for part, target in enumerate(dst_ptrs):
        for layer in range(layers):
            source = src_ptrs[part * layers + layer]
            for a, b in pages(src_indices, dst_indices, page_size):
                page = target[b // page_size][layer]
                page.copy_(source[a : a + page_size].view_as(page))


def transfer_kv_per_layer_direct_pf_lf(
    src_ptrs: Any, dst_ptrs: Any, src_indices: Any, dst_indices: Any, layer_id: int, page_size: int, **_: Any
) -> None:
    for source, target in zip(src_ptrs, dst_ptrs, strict=True):
        for a, b in pages(src_indices, dst_indices, page_size):
            part = target[b : b + page_size]
            part.copy_(source[a // page_size][layer_id].view_as(part))


def rows(target: int, target_step: int, targets: Any, source: int, source_step: int, sources: Any, size: int) -> None:
    """A row of each token, from one place in memory to another."""
    for a, b in zip(sources.cpu().tolist(), targets.cpu().tolist(), strict=True):
        ctypes.memmove(target + b * target_step, source + a * source_step, size)


def transfer_kv_all_layer(
    src_k_layers: Any,
    dst_k_layers: Any,
    src_v_layers: Any,
    dst_v_layers: Any,
    src_indices: Any,
    dst_indices: Any,
    item_size: int,
    num_layers: int,
    **_: Any,
) -> None:
    for sources, targets in ((src_k_layers, dst_k_layers), (src_v_layers, dst_v_layers)):
        for source, target in zip(sources.tolist(), targets.tolist(), strict=True):
            rows(target, item_size, dst_indices, source, item_size, src_indices, item_size)


def transfer_kv_per_layer(
    src_k: Any, dst_k: Any, src_v: Any, dst_v: Any, src_indices: Any, dst_indices: Any, item_size: int, **_: Any
) -> None:
    for source, target in ((src_k, dst_k), (src_v, dst_v)):
        rows(target.data_ptr(), item_size, dst_indices, source.data_ptr(), item_size, src_indices, item_size)


def transfer_kv_all_layer_lf_pf(
    src_k_layers: Any,
    dst_k: Any,
    src_v_layers: Any,
    dst_v: Any,
    src_indices: Any,
    dst_indices: Any,
    item_size: int,
    dst_layout_dim: int,
    num_layers: int,
    **_: Any,
) -> None:
    for sources, target in ((src_k_layers, dst_k), (src_v_layers, dst_v)):
        for layer, source in enumerate(sources.tolist()):
            place = target.data_ptr() + layer * item_size
            rows(place, dst_layout_dim, dst_indices, source, item_size, src_indices, item_size)


def transfer_kv_per_layer_pf_lf(
    src_k: Any,
    dst_k: Any,
    src_v: Any,
    dst_v: Any,
    src_indices: Any,
    dst_indices: Any,
    layer_id: int,
    item_size: int,
    src_layout_dim: int,
    **_: Any,
) -> None:
    for source, target in ((src_k, dst_k), (src_v, dst_v)):
        place = source.data_ptr() + layer_id * item_size
        rows(target.data_ptr(), item_size, dst_indices, place, src_layout_dim, src_indices, item_size)


sys.meta_path[:0] = [Absent(), Copies()]
