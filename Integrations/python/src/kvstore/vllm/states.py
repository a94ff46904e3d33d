"""The state of recurrent layers, which is no KV of tokens: one for the whole prefix, at the end of a block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from .groups import States

SECTION = "recurrent"
"""The name of their side sections in the store."""

_ALIGNMENT = 64


class StateMemory:
    """The states in vLLM's memory. They are copied out and in: one state of all layers is one piece in the store."""

    def __init__(self, kv_caches: Mapping[str, Any], groups: tuple[States, ...]) -> None:
        self._pieces: list[tuple[int, torch.Tensor, int, int]] = []
        descriptions = []
        at = 0
        for states in groups:
            for name in states.layers:
                found = kv_caches.get(name, ())
                for tensor in (found,) if isinstance(found, torch.Tensor) else found:
                    size = tensor[0].numel() * tensor.element_size()
                    self._pieces.append((states.group, tensor, at, size))
                    descriptions.append(f"{list(tensor.shape[1:])}/{str(tensor.dtype).removeprefix('torch.')}")
                    at += -(-size // _ALIGNMENT) * _ALIGNMENT
        self.byte_count = at
        """Of one state of all layers; pieces begin at multiples of 64 bytes."""
        self.description = ";".join(descriptions)

    def read(self, blocks: Mapping[int, int], ready: Any = None) -> np.ndarray[Any, Any]:
        """The state that these blocks hold, one of each KV cache group; `ready` as from Memory.ready."""
        content = np.zeros(self.byte_count, dtype=np.uint8)
        if ready is not None:
            ready.synchronize()
        for group, tensor, at, size in self._pieces:
            state = tensor[blocks[group]].reshape(-1).view(torch.uint8)
            torch.from_numpy(content[at : at + size]).copy_(state)
        return content

    def write(self, blocks: Mapping[int, int], content: np.ndarray[Any, Any]) -> None:
        """Puts a state that was read into these blocks."""
        for group, tensor, at, size in self._pieces:
            target = tensor[blocks[group]]
            state = torch.from_numpy(content[at : at + size]).view(tensor.dtype).reshape(target.shape)
            target.copy_(state)
        if self._pieces and self._pieces[0][1].device.type == "cuda":
            torch.cuda.synchronize(self._pieces[0][1].device)
