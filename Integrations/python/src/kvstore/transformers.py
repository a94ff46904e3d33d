"""Hugging Face transformers: the `past_key_values` of a model in a store.

    cache = kvstore.transformers.ModelCache(store, model)
    past, count = cache.restore(token_ids)          # a DynamicCache of the longest stored prefix, or None
    ...                                             # run the model from token `count` on
    cache.offload(token_ids, past)                  # what is new of it; whole blocks

For models whose layers all have full attention, and one sequence at a time. `model` may be on any device; its KV passes
through the host. Importing this module imports torch and transformers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from transformers import DynamicCache

from .namespace import Identity
from .prompt import Prompt
from .results import Transfer
from .store import Store


def model_digest(model: Any) -> bytes:
    """A digest of all that a model's KV depends on: each parameter and buffer as it is in memory, the configuration, the
    classes, the versions of the code. Reads every byte once, so keep it while the model does not change."""
    digest = hashlib.sha256()
    for text in (
        transformers.__version__,
        torch.__version__,
        repr(sorted(vars(model.config).items(), key=lambda item: item[0])),
        str(getattr(model.config, "_attn_implementation", "")),
        repr([(name, type(module).__module__, type(module).__qualname__) for name, module in model.named_modules()]),
    ):
        digest.update(len(text).to_bytes(8, "little") + text.encode())
    for name, tensor in sorted([*model.named_parameters(), *model.named_buffers()], key=lambda item: str(item[0])):
        head = repr((name, tuple(tensor.shape), str(tensor.dtype)))
        digest.update(len(head).to_bytes(8, "little") + head.encode())
        host = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
        digest.update(memoryview(host.numpy()))
    return digest.digest()


class ModelCache:
    """The KV of one model in a store, in blocks of `tokens_per_block` tokens."""

    def __init__(
        self, store: Store, model: Any, *, tokens_per_block: int = 16, digest: bytes | None = None, **identity: Any
    ) -> None:
        """digest: what `model_digest` said of this model, if it is known. identity: further fields, for example a salt."""
        config = model.config.get_text_config()
        # First: a configuration whose layers differ refuses to tell what is asked for below.
        kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
        if kinds != {"full_attention"} or getattr(config, "sliding_window", None):
            raise ValueError(f"only models whose layers all have full attention can be restored, and this one has {sorted(kinds)}")
        self._layers = int(config.num_hidden_layers)
        self._heads = int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
        self._head_size = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
        self._dtype = model.dtype
        self._device = model.device
        self._block = tokens_per_block
        size = self._heads * tokens_per_block * self._head_size * torch.empty(0, dtype=self._dtype).element_size()
        self.namespace = store.namespace(
            Identity(
                model_name=str(getattr(config, "name_or_path", "") or type(model).__name__),
                weights_digest=digest or model_digest(model),
                kv_dtype=str(self._dtype),
                layout="layer, k|v, head, token, element",
                engine_format="kvstore.transformers 1",
                layer_count=self._layers,
                kv_head_count=self._heads,
                head_size=self._head_size,
                tokens_per_block=tokens_per_block,
                region_bytes=(size,) * (2 * self._layers),
                **identity,
            )
        )

    def _memory(self, blocks: int) -> torch.Tensor:
        """blocks × regions × heads × tokens × elements, on the host."""
        return torch.empty(
            (blocks, 2 * self._layers, self._heads, self._block, self._head_size), dtype=self._dtype, device="cpu"
        )

    def restore(self, token_ids: Sequence[int] | Any) -> tuple[DynamicCache | None, int]:
        """What is stored of the prompt, and of how many tokens: at least one is left to compute, for its logits."""
        prompt = Prompt(_row(token_ids))
        with self.namespace.match(prompt, leave_one_token=True) as match:
            if not match:
                return None, 0
            memory = self._memory(match.blocks)
            done = self.namespace.restore(prompt, list(memory.flatten(0, 1)), block_count=match.blocks).blocks_done
        if not done:
            return None, 0
        cache = DynamicCache()
        for layer in range(self._layers):
            # To heads × tokens: the blocks' tokens one behind the other.
            keys, values = (
                memory[:done, 2 * layer + part].transpose(0, 1).flatten(1, 2).unsqueeze(0).to(self._device) for part in (0, 1)
            )
            cache.update(keys, values, layer)
        return cache, done * self._block

    def offload(self, token_ids: Sequence[int] | Any, cache: Any) -> Transfer | None:
        """Stores the whole blocks of the cache that are not stored yet; None: there are none. Durable after `Store.flush`."""
        row = _row(token_ids)
        tensors = [(layer.keys, layer.values) for layer in cache.layers]
        if len(tensors) != self._layers or any(pair[0].shape[0] != 1 for pair in tensors):
            raise ValueError(f"a cache of {self._layers} layers and one sequence is expected")
        blocks = min(len(row), int(tensors[0][0].shape[2])) // self._block
        prompt = Prompt(row[: blocks * self._block])
        first = self.namespace.match(prompt, peek=True).blocks if blocks else 0
        if first == blocks:
            return None
        memory = self._memory(blocks - first)
        start, end = first * self._block, blocks * self._block
        for layer, pair in enumerate(tensors):
            for part, tensor in enumerate(pair):
                pieces = tensor[0, :, start:end].unflatten(1, (blocks - first, self._block)).transpose(0, 1)
                memory[:, 2 * layer + part].copy_(pieces)
        return self.namespace.offload(prompt, list(memory.flatten(0, 1)), first_block=first)

    def close(self) -> None:
        """Closes the namespace; what is stored stays."""
        self.namespace.close()


def _row(token_ids: Any) -> list[int]:
    """Token ids as numbers, from a list or a tensor of one row."""
    numbers = token_ids.tolist() if hasattr(token_ids, "tolist") else list(token_ids)
    if len(numbers) == 1 and isinstance(numbers[0], list):
        numbers = numbers[0]
    if any(isinstance(number, list) for number in numbers):
        raise ValueError("one sequence at a time: token ids of one row are expected")
    return numbers
