"""llama.cpp's models with recurrent layers, alone or beside attention, for kvstore.llama_cpp.

Such a layer has one state for a whole sequence. What is stored of a block is what attention has of its tokens: the blob of the
scratch sequence without the recurrent part, which llama.cpp writes last. The state goes to a side section, where evaluation
stands exactly at the end of a block; a prefix can be restored up to such a place.
"""

from __future__ import annotations

import ctypes
from typing import Any

from llama_cpp import llama_cpp as api

from . import llama_loaded as loaded
from .memory import Spans
from .namespace import Namespace
from .prompt import Prompt

TOKENS_PER_BLOCK = 256
"""Cutting a block out copies the whole state, so that blocks are longer."""
CHECKPOINT_TOKENS = 4096
"""A state is stored at each multiple, and at the last end of a block of each prompt."""

_SECTION = "recurrent"
_PARTIAL_ONLY = 1
# Magic and sequence id: the same before both parts.
_HEADER_BYTES = 8
_MARGIN_BYTES = 4096


class RecurrentState:
    """Blocks and states of one context."""

    def __init__(self, context: Any, sequence: int, scratch: int) -> None:
        self._context, self._sequence, self._scratch = context, sequence, scratch
        self._sections: tuple[Namespace, Namespace] | None = None
        empty = self._part_bytes(scratch)
        self._empty = (ctypes.c_uint8 * empty)()
        if api.llama_state_seq_get_data_ext(context, self._empty, empty, scratch, _PARTIAL_ONLY) != empty:
            raise ValueError("kvstore: llama.cpp does not write the state of an empty sequence")
        # llama.cpp tells neither size: one token, and another one, show them.
        sizes = [self._measure(position) for position in range(2)]
        self._remove(scratch)
        self.state_bytes_max = sizes[0][1] + _MARGIN_BYTES
        self.block_bytes = sizes[0][0] + (sizes[1][0] - sizes[0][0]) * (TOKENS_PER_BLOCK - 1)
        self._whole = (ctypes.c_uint8 * (self.block_bytes + self.state_bytes_max))()

    def section(self, namespace: Namespace) -> Namespace:
        """The states of this namespace's prefixes."""
        if self._sections is None or self._sections[0] is not namespace:
            if self._sections is not None:
                self._sections[1].close()
            self._sections = (namespace, namespace.section(_SECTION, self.state_bytes_max))
        return self._sections[1]

    def cut(self, blob: Any) -> int:
        """What attention has in the scratch sequence; 0 if it is not a whole block."""
        if self._attention_bytes() != self.block_bytes:
            return 0
        taken = api.llama_state_seq_get_data(self._context, self._whole, len(self._whole), self._scratch)
        if taken < self.block_bytes:
            return 0
        ctypes.memmove(blob, self._whole, self.block_bytes)
        return self.block_bytes

    def join(self, blob: Any, size: int) -> bool:
        """Puts a block into the scratch sequence, with the state of an empty one."""
        if size != self.block_bytes:
            return False
        tail = len(self._empty) - _HEADER_BYTES
        ctypes.memmove(self._whole, blob, size)
        ctypes.memmove(ctypes.byref(self._whole, size), ctypes.byref(self._empty, _HEADER_BYTES), tail)
        taken = loaded.unwatched("llama_state_seq_set_data")(self._context, self._whole, size + tail, self._scratch)
        return bool(taken == size + tail)

    def save(self, namespace: Namespace, prompt: Prompt) -> None:
        """Stores the state behind the prompt, which is whole blocks and what the sequence holds."""
        section = self.section(namespace)
        place = Prompt(digests=[section.section_digest(prompt)])
        if section.match(place, peek=True).blocks:
            return
        size = api.llama_state_seq_get_data_ext(
            self._context, self._whole, self.state_bytes_max, self._sequence, _PARTIAL_ONLY
        )
        if size:
            section.offload(place, Spans.at([ctypes.addressof(self._whole)], size))

    def load(self, namespace: Namespace, prompt: Prompt, blocks: int) -> bool:
        """Brings the state behind so many blocks of the prompt, all of which are in the sequence."""
        section = self.section(namespace)
        spans = Spans.at([ctypes.addressof(self._whole)], self.state_bytes_max)
        if section.restore(Prompt(digests=[section.section_digest(prompt, blocks)]), spans).blocks_done != 1:
            return False
        (size,) = spans.lengths()
        load = loaded.unwatched("llama_state_seq_set_data_ext")
        return bool(load(self._context, self._whole, size, self._sequence, _PARTIAL_ONLY) == size)

    # ------------------------------------------------------------ private

    def _measure(self, position: int) -> tuple[int, int]:
        """Bytes of attention and of state in the scratch sequence, with one token more."""
        batch = api.llama_batch_init(1, 0, 1)
        batch.n_tokens = 1
        batch.token[0], batch.pos[0], batch.logits[0] = 0, position, 0
        batch.n_seq_id[0], batch.seq_id[0][0] = 1, self._scratch
        done = loaded.unwatched("llama_decode")(self._context, batch)
        api.llama_batch_free(batch)
        if done != 0:
            raise ValueError("kvstore: a token could not be computed in the scratch sequence, which tells how large a state is")
        api.llama_synchronize(self._context)
        return self._attention_bytes(), self._part_bytes(self._scratch)

    def _attention_bytes(self) -> int:
        whole = api.llama_state_seq_get_size(self._context, self._scratch)
        return int(whole - self._part_bytes(self._scratch) + _HEADER_BYTES)

    def _part_bytes(self, sequence: int) -> int:
        return int(api.llama_state_seq_get_size_ext(self._context, sequence, _PARTIAL_ONLY))

    def _remove(self, sequence: int) -> None:
        loaded.unwatched("llama_memory_seq_rm")(api.llama_get_memory(self._context), sequence, -1, -1)
