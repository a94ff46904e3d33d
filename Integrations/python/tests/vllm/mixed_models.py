"""Small models of random weights with layers of several kinds, by the shapes of those that people run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

VOCABULARY = 4096
WINDOW = 256

# Weights of a size at which the next token depends on those before it.
_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
    "initializer_range": 0.08,
    "hidden_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
}


def _gemma3() -> Any:
    from transformers import Gemma3TextConfig

    return Gemma3TextConfig(
        **{**_COMMON, "tie_word_embeddings": True},
        intermediate_size=512,
        num_hidden_layers=6,
        head_dim=64,
        sliding_window=WINDOW,
        query_pre_attn_scalar=64,
        layer_types=["sliding_attention"] * 5 + ["full_attention"],
    )


def _gemma4() -> Any:
    """Heads of two sizes, and last layers that use the KV of earlier ones."""
    from transformers import Gemma4TextConfig

    return Gemma4TextConfig(
        **{**_COMMON, "tie_word_embeddings": True},
        intermediate_size=512,
        num_hidden_layers=6,
        head_dim=64,
        per_layer_config={index: {"head_dim": 128} for index in (2, 5)},
        sliding_window=WINDOW,
        vocab_size_per_layer_input=VOCABULARY,
        hidden_size_per_layer_input=32,
        num_kv_shared_layers=2,
        layer_types=["sliding_attention", "sliding_attention", "full_attention"] * 2,
    )


def _gpt_oss() -> Any:
    from transformers import GptOssConfig

    return GptOssConfig(
        **_COMMON,
        intermediate_size=256,
        num_hidden_layers=4,
        head_dim=64,
        sliding_window=128,
        num_local_experts=4,
        num_experts_per_tok=2,
        layer_types=["sliding_attention", "full_attention"] * 2,
    )


def _windows_only() -> Any:
    from transformers import MistralConfig

    return MistralConfig(
        **_COMMON, intermediate_size=512, num_hidden_layers=4, head_dim=64, sliding_window=WINDOW
    )


def _qwen3_next() -> Any:
    from transformers import Qwen3NextConfig

    return Qwen3NextConfig(
        **_COMMON,
        intermediate_size=512,
        num_hidden_layers=4,
        head_dim=64,
        linear_num_value_heads=4,
        linear_num_key_heads=2,
        linear_key_head_dim=64,
        linear_value_head_dim=64,
        linear_conv_kernel_dim=4,
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=128,
        shared_expert_intermediate_size=128,
        decoder_sparse_step=1,
        layer_types=["linear_attention"] * 3 + ["full_attention"],
    )


def _mamba() -> Any:
    from transformers import MambaConfig

    return MambaConfig(
        vocab_size=VOCABULARY, hidden_size=256, num_hidden_layers=2, bos_token_id=1, eos_token_id=2, pad_token_id=0
    )


KINDS = {
    "gemma3": _gemma3,
    "gemma4": _gemma4,
    "gpt-oss": _gpt_oss,
    "windows": _windows_only,
    "qwen3-next": _qwen3_next,
    "mamba": _mamba,
}


def write_mixed_model(folder: Path, kind: str, *, seed: int = 7) -> None:
    """Writes the model; equal seeds write equal weights."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(KINDS[kind](), torch_dtype=torch.bfloat16)
    model.to(torch.bfloat16).save_pretrained(folder)


if __name__ == "__main__":
    write_mixed_model(Path(sys.argv[2]), sys.argv[1])
