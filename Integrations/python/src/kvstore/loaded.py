"""What an engine has loaded into this process: the models' weights and code, found from the objects themselves."""

from __future__ import annotations

import gc
import hashlib
import os
import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .effective import module_code_digest

if TYPE_CHECKING:
    import torch

# Packages whose code goes with their version, which is a part of every record.
_VERSIONED = ("torch", "builtins", "typing", "abc")
# Constants of Python modules that cannot matter, and why.
_LEFT_OUT = {"transformers.utils.hub.SESSION_ID": "made up by each process, to be sent to the Hugging Face hub"}
_CHUNK_WORDS = 1 << 20
_MIX = ((-7046029254386353131, -4658895280553007687), (-4417276706812531889, 6364136223846793005))
_LOW_HALF = 0xFFFF_FFFF
_CONTENT_NAME = re.compile(r"(?:sha256-)?[0-9a-f]{64}")


def models_of(layers: Iterable[Any] | None = None) -> list[Any]:
    """The models, each a module that is part of no other, which hold these layers; without layers, all of them.

    They are found among this process's objects: no version of an engine has to hand them out.
    """
    import torch

    above: dict[int, list[Any]] = {}
    modules: dict[int, Any] = {}
    for found in gc.get_objects():
        # Not isinstance: it would wake objects that pretend to be of another class until they are used.
        if issubclass(type(found), torch.nn.Module):
            modules[id(found)] = found
            for part in found.__dict__.get("_modules", {}).values():
                if part is not None:
                    above.setdefault(id(part), []).append(found)
    if layers is None:
        return [module for key, module in modules.items() if key not in above]
    roots: dict[int, Any] = {}
    seen: set[int] = set()
    waiting = [layer for layer in layers if layer is not None]
    while waiting:
        module = waiting.pop(0)
        if id(module) in seen:
            continue
        seen.add(id(module))
        if id(module) in above:
            waiting.extend(above[id(module)])
        elif issubclass(type(module), torch.nn.Module):
            roots[id(module)] = module
    return list(roots.values())


def weights_digest(models: Iterable[Any]) -> bytes:
    """A digest of all parameters and saved buffers of the models, every byte of them, where they lie.

    Some kernels keep weights in a form of their own that nobody can look into (oneDNN on CPU): these are not in it, so
    that a record needs the files' digest beside this one.
    """
    digest = hashlib.sha256()
    for model in models:
        for name, tensor in sorted(model.state_dict(keep_vars=True).items()):
            if not hasattr(tensor, "detach"):
                continue
            digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape), tuple(tensor.stride()))).encode())
            try:
                digest.update(_tensor_digest(tensor.detach()))
            except (RuntimeError, NotImplementedError, TypeError):
                # A tensor of a kind that has no bytes to read.
                digest.update(type(tensor).__name__.encode())
    return digest.digest()


def code_digests(models: Iterable[Any]) -> dict[str, str]:
    """The code that the models' classes come from, by Python module: what was loaded, not what lies on disk."""
    names: set[str] = set()
    for model in models:
        for kind in {type(module) for module in model.modules()}:
            names.update(base.__module__ for base in kind.__mro__)
    return {
        name: module_code_digest(sys.modules[name], _LEFT_OUT).hex()
        for name in sorted(names)
        if name in sys.modules and name.split(".")[0] not in _VERSIONED
    }


def changed_since_start(files: Iterable[Path]) -> list[Path]:
    """The files that were changed since this process began: what it has loaded of them cannot be told.

    Files of a cache that names them by the hash of their content never change.
    """
    began = _process_start()
    changed = []
    for file in files:
        real = file.resolve()
        named = real.parent.name == "blobs" and _CONTENT_NAME.fullmatch(real.name)
        if not named and real.stat().st_ctime >= began - 0.1:
            changed.append(file)
    return changed


def _process_start() -> float:
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return boot + ticks / os.sysconf("SC_CLK_TCK")


def _tensor_digest(tensor: torch.Tensor) -> bytes:
    import torch

    if tensor.numel() == 0:
        return b"empty"
    # In the order in which it lies in memory, so that no copy of it is made.
    order = sorted(range(tensor.dim()), key=lambda dim: -tensor.stride(dim))
    tensor = tensor.permute(order)
    if not tensor.is_contiguous():
        if tensor.dim() < 2:
            tensor = tensor.contiguous()
        else:
            digest = hashlib.sha256()
            for part in tensor:
                digest.update(_tensor_digest(part))
            return digest.digest()
    data = tensor.reshape(-1).view(torch.uint8)
    if data.device.type == "cpu":
        return hashlib.sha256(data.numpy()).digest()
    return device_digest(data)


def device_digest(data: torch.Tensor) -> bytes:
    """128 bits over bytes that are in a device's memory, computed there: its sums do not depend on their order."""
    import torch

    words = data.numel() // 8
    rest = data[words * 8 :].cpu().numpy().tobytes()
    whole = data[: words * 8]
    if whole.data_ptr() % 8:
        whole = whole.clone()
    whole = whole.view(torch.int64)
    sums = [torch.zeros((), dtype=torch.int64, device=data.device) for _ in _MIX]
    for first in range(0, words, _CHUNK_WORDS):
        chunk = whole[first : first + _CHUNK_WORDS]
        place = torch.arange(first + 1, first + 1 + chunk.numel(), dtype=torch.int64, device=data.device)
        for index, (one, other) in enumerate(_MIX):
            mixed = (chunk ^ (place * one)) * other
            mixed ^= (mixed >> 32) & _LOW_HALF
            mixed *= one
            mixed ^= (mixed >> 29) & _LOW_HALF
            sums[index] += mixed.sum()
    return b"".join(int(value).to_bytes(8, "little", signed=True) for value in sums) + rest


def instances_of(kind: type) -> list[Any]:
    """This process's objects of a class."""
    return [found for found in gc.get_objects() if issubclass(type(found), kind)]
