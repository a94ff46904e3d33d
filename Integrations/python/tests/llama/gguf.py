"""Writes small GGUF files: a Llama of random weights whose next token depends on every token before it, and LoRA adapters."""

from __future__ import annotations

import struct
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

VOCABULARY, EMBEDDING, FEED_FORWARD, LAYERS, HEADS, KV_HEADS, HEAD_SIZE = 512, 128, 256, 3, 4, 2, 64
CONTEXT = 8192

_U32, _I32, _F32, _BOOL, _STRING, _ARRAY, _U64 = 4, 5, 6, 7, 8, 9, 10
_FORMATS = {_U32: "<I", _I32: "<i", _F32: "<f", _BOOL: "<?", _U64: "<Q"}
_ALIGNMENT = 32


def _weight(random: np.random.Generator, rows: int, columns: int, gain: float = 1.0) -> np.ndarray:
    return (random.standard_normal((rows, columns)) * (gain / np.sqrt(columns))).astype(np.float16)


def metadata() -> dict[str, tuple[int, Any]]:
    """What the model's file says of it; all of it decides something, or is a name."""
    return {
        "general.architecture": (_STRING, "llama"),
        "general.name": (_STRING, "tiny"),
        "llama.context_length": (_U32, CONTEXT),
        "llama.embedding_length": (_U32, EMBEDDING),
        "llama.block_count": (_U32, LAYERS),
        "llama.feed_forward_length": (_U32, FEED_FORWARD),
        "llama.attention.head_count": (_U32, HEADS),
        "llama.attention.head_count_kv": (_U32, KV_HEADS),
        "llama.attention.key_length": (_U32, HEAD_SIZE),
        "llama.attention.value_length": (_U32, HEAD_SIZE),
        "llama.attention.layer_norm_rms_epsilon": (_F32, 1e-5),
        "llama.rope.freq_base": (_F32, 10000.0),
        "llama.rope.dimension_count": (_U32, HEAD_SIZE),
        "llama.vocab_size": (_U32, VOCABULARY),
        "tokenizer.ggml.model": (_STRING, "llama"),
        "tokenizer.ggml.tokens": (
            _ARRAY,
            (_STRING, ["<unk>", "<s>", "</s>", *(f"t{number}" for number in range(VOCABULARY - 3))]),
        ),
        "tokenizer.ggml.scores": (_ARRAY, (_F32, [0.0] * VOCABULARY)),
        "tokenizer.ggml.token_type": (_ARRAY, (_I32, [2, 3, 3] + [1] * (VOCABULARY - 3))),
        "tokenizer.ggml.bos_token_id": (_U32, 1),
        "tokenizer.ggml.eos_token_id": (_U32, 2),
    }


def long_rope(original_context: int | None) -> dict[str, tuple[int, Any]]:
    """Metadata of LongRoPE; without the original context llama.cpp takes the training context."""
    scaling: dict[str, tuple[int, Any]] = {"llama.rope.scaling.type": (_STRING, "longrope")}
    if original_context is not None:
        scaling["llama.rope.scaling.original_context_length"] = (_U32, original_context)
    return scaling


def write_model(
    path: Path,
    *,
    seed: int = 3,
    changes: dict[str, tuple[int, Any]] | None = None,
    long_factors: bool = False,
    parts: int = 1,
    second_seed: int | None = None,
) -> list[Path]:
    """Equal arguments write equal files. second_seed: of the weights behind the first layer. Returns the parts' paths."""
    random = np.random.default_rng(seed)

    weight = partial(_weight, random)

    ones = np.ones(EMBEDDING, np.float32)
    tensors: dict[str, np.ndarray] = {
        "token_embd.weight": random.standard_normal((VOCABULARY, EMBEDDING)).astype(np.float16),
        "output_norm.weight": ones,
        "output.weight": weight(VOCABULARY, EMBEDDING),
    }
    if long_factors:
        half = HEAD_SIZE // 2
        tensors["rope_factors_long.weight"] = np.array([1 + 0.5 * i for i in range(half)], np.float32)
        tensors["rope_factors_short.weight"] = np.ones(half, np.float32)
    for layer in range(LAYERS):
        if layer == 1 and second_seed is not None:
            random = np.random.default_rng(second_seed)
        name = f"blk.{layer}."
        tensors |= {
            name + "attn_norm.weight": ones,
            # A gain on Q and K makes attention pick a few tokens; one on V makes what it picks count.
            name + "attn_q.weight": weight(HEADS * HEAD_SIZE, EMBEDDING, 1.5),
            name + "attn_k.weight": weight(KV_HEADS * HEAD_SIZE, EMBEDDING, 1.5),
            name + "attn_v.weight": weight(KV_HEADS * HEAD_SIZE, EMBEDDING, 2.0),
            name + "attn_output.weight": weight(EMBEDDING, HEADS * HEAD_SIZE, 2.0),
            name + "ffn_norm.weight": ones,
            name + "ffn_gate.weight": weight(FEED_FORWARD, EMBEDDING),
            name + "ffn_up.weight": weight(FEED_FORWARD, EMBEDDING),
            name + "ffn_down.weight": weight(EMBEDDING, FEED_FORWARD),
        }
    values = {**metadata(), **(changes or {})}
    if parts == 1:
        _write(path, values, tensors)
        return [path]
    names = list(tensors)
    size = -(-len(names) // parts)
    paths = []
    for part in range(parts):
        split = {
            "split.no": (2, part),
            "split.count": (2, parts),
            "split.tensors.count": (_I32, len(names)),
        }
        paths.append(path.with_name(f"{path.name}-{part + 1:05}-of-{parts:05}.gguf"))
        own = {name: tensors[name] for name in names[part * size : (part + 1) * size]}
        _write(paths[-1], {**(values if part == 0 else {}), **split}, own)
    return paths


def write_hybrid(path: Path, kind: str, *, seed: int = 3) -> Path:
    """Layers with a state beside attention: "lfm2" has short convolutions, "granitehybrid" Mamba2."""
    random = np.random.default_rng(seed)
    attention = {"lfm2": (1, 3), "granitehybrid": (3,)}[kind]
    layers, heads, kv_heads, size = 4, 4, 2, EMBEDDING // 4
    inner, state, ranks = 2 * EMBEDDING, 64, 8

    weight = partial(_weight, random)

    def constant(*shape: int, value: float = 1.0) -> np.ndarray:
        return np.full(shape, value, np.float32)

    values: dict[str, tuple[int, Any]] = {
        "general.architecture": (_STRING, kind),
        "general.name": (_STRING, f"tiny {kind}"),
        "context_length": (_U32, CONTEXT),
        "embedding_length": (_U32, EMBEDDING),
        "block_count": (_U32, layers),
        "feed_forward_length": (_U32, FEED_FORWARD),
        "attention.head_count": (_U32, heads),
        "attention.head_count_kv": (_ARRAY, (_I32, [kv_heads if layer in attention else 0 for layer in range(layers)])),
        "attention.key_length": (_U32, size),
        "attention.value_length": (_U32, size),
        "attention.layer_norm_rms_epsilon": (_F32, 1e-5),
        "rope.freq_base": (_F32, 10000.0),
        "rope.dimension_count": (_U32, size),
        "vocab_size": (_U32, VOCABULARY),
    }
    tensors = {"token_embd.weight": random.standard_normal((VOCABULARY, EMBEDDING)).astype(np.float16)}
    if kind == "lfm2":
        values["shortconv.l_cache"] = (_U32, 3)
        tensors["token_embd_norm.weight"] = constant(EMBEDDING)
    else:
        numbers = {"conv_kernel": 4, "inner_size": inner, "state_size": state, "time_step_rank": ranks, "group_count": 1}
        values |= {f"ssm.{name}": (_U32, number) for name, number in numbers.items()}
        values |= {name: (_F32, 1.0) for name in ("logit_scale", "residual_scale", "embedding_scale")}
        values["attention.scale"] = (_F32, float(1 / np.sqrt(size)))
        tensors |= {"output_norm.weight": constant(EMBEDDING), "output.weight": weight(VOCABULARY, EMBEDDING)}
    for layer in range(layers):
        name = f"blk.{layer}."
        tensors |= {
            name + "attn_norm.weight": constant(EMBEDDING),
            name + "ffn_norm.weight": constant(EMBEDDING),
            name + "ffn_gate.weight": weight(FEED_FORWARD, EMBEDDING),
            name + "ffn_up.weight": weight(FEED_FORWARD, EMBEDDING),
            name + "ffn_down.weight": weight(EMBEDDING, FEED_FORWARD),
        }
        if layer in attention:
            tensors |= {
                name + "attn_q.weight": weight(heads * size, EMBEDDING, 1.5),
                name + "attn_k.weight": weight(kv_heads * size, EMBEDDING, 1.5),
                name + "attn_v.weight": weight(kv_heads * size, EMBEDDING, 2.0),
                name + "attn_output.weight": weight(EMBEDDING, heads * size, 2.0),
            }
            if kind == "lfm2":
                tensors |= {name + "attn_q_norm.weight": constant(size), name + "attn_k_norm.weight": constant(size)}
        elif kind == "lfm2":
            tensors |= {
                name + "shortconv.conv.weight": random.standard_normal((EMBEDDING, 3)).astype(np.float32),
                name + "shortconv.in_proj.weight": weight(3 * EMBEDDING, EMBEDDING, 1.5),
                name + "shortconv.out_proj.weight": weight(EMBEDDING, EMBEDDING, 2.0),
            }
        else:
            width = inner + 2 * state
            tensors |= {
                name + "ssm_in.weight": weight(2 * inner + 2 * state + ranks, EMBEDDING, 1.5),
                name + "ssm_conv1d.weight": (random.standard_normal((width, 4)) * 0.5).astype(np.float32),
                name + "ssm_conv1d.bias": constant(width, value=0.0),
                name + "ssm_dt.bias": constant(ranks, value=-2.0),
                name + "ssm_a": constant(ranks, 1, value=-0.3),
                name + "ssm_d": constant(ranks, 1),
                name + "ssm_norm.weight": constant(1, inner),
                name + "ssm_out.weight": weight(EMBEDDING, inner, 2.0),
            }
    keys = {key if key.startswith("general.") else f"{kind}.{key}": value for key, value in values.items()}
    keys |= {key: value for key, value in metadata().items() if key.startswith("tokenizer.")}
    _write(path, keys, tensors)
    return path


def write_recurrent(path: Path, kind: str, *, seed: int = 3) -> Path:
    """Layers with a state alone: "mamba", "mamba2"."""
    random = np.random.default_rng(seed)
    layers, inner, state, ranks, kernel = 3, 2 * EMBEDDING, 16, 8, 4

    weight = partial(_weight, random)

    def constant(*shape: int, value: float = 1.0) -> np.ndarray:
        return np.full(shape, value, np.float32)

    numbers = {"conv_kernel": kernel, "inner_size": inner, "state_size": state, "time_step_rank": ranks}
    if kind == "mamba2":
        numbers["group_count"] = 1
    values: dict[str, tuple[int, Any]] = {
        "general.architecture": (_STRING, kind),
        "general.name": (_STRING, f"tiny {kind}"),
        "context_length": (_U32, CONTEXT),
        "embedding_length": (_U32, EMBEDDING),
        "block_count": (_U32, layers),
        "feed_forward_length": (_U32, 0),
        "attention.head_count": (_U32, 0),
        "attention.layer_norm_rms_epsilon": (_F32, 1e-5),
        "vocab_size": (_U32, VOCABULARY),
        **{f"ssm.{name}": (_U32, number) for name, number in numbers.items()},
    }
    tensors = {
        "token_embd.weight": random.standard_normal((VOCABULARY, EMBEDDING)).astype(np.float16),
        "output_norm.weight": constant(EMBEDDING),
        "output.weight": weight(VOCABULARY, EMBEDDING),
    }
    for layer in range(layers):
        name = f"blk.{layer}."
        width = inner + (2 * state if kind == "mamba2" else 0)
        tensors |= {
            name + "attn_norm.weight": constant(EMBEDDING),
            name + "ssm_conv1d.weight": (random.standard_normal((width, kernel)) * 0.5).astype(np.float32),
            name + "ssm_conv1d.bias": constant(width, value=0.0),
            name + "ssm_out.weight": weight(EMBEDDING, inner, 2.0),
        }
        if kind == "mamba2":
            tensors |= {
                name + "ssm_in.weight": weight(2 * inner + 2 * state + ranks, EMBEDDING, 1.5),
                name + "ssm_dt.bias": constant(ranks, value=-2.0),
                # So that the state holds what was long before.
                name + "ssm_a": constant(ranks, 1, value=-0.003),
                name + "ssm_d": constant(ranks, 1),
                name + "ssm_norm.weight": constant(1, inner),
            }
        else:
            tensors |= {
                name + "ssm_in.weight": weight(2 * inner, EMBEDDING, 1.5),
                name + "ssm_x.weight": weight(ranks + 2 * state, inner, 1.5),
                name + "ssm_dt.weight": weight(inner, ranks),
                name + "ssm_dt.bias": constant(inner, value=-2.0),
                name + "ssm_a": constant(inner, state, value=-0.003),
                name + "ssm_d": constant(inner),
            }
    keys = {key if key.startswith("general.") else f"{kind}.{key}": value for key, value in values.items()}
    keys |= {key: value for key, value in metadata().items() if key.startswith("tokenizer.")}
    _write(path, keys, tensors)
    return path


def write_rwkv(path: Path, *, seed: int = 3) -> Path:
    """An RWKV 7, whose layers have a state of another kind, and nothing else."""
    random = np.random.default_rng(seed)
    kind, layers, rank, size = "rwkv7", 3, 8, 64

    weight = partial(_weight, random)

    def vector(value: float, *, spread: float = 0.0, shape: tuple[int, ...] = (EMBEDDING,)) -> np.ndarray:
        return (value + spread * random.standard_normal(shape)).astype(np.float32)

    values: dict[str, tuple[int, Any]] = {
        "general.architecture": (_STRING, kind),
        "general.name": (_STRING, f"tiny {kind}"),
        "context_length": (_U32, CONTEXT),
        "embedding_length": (_U32, EMBEDDING),
        "block_count": (_U32, layers),
        "feed_forward_length": (_U32, FEED_FORWARD),
        "attention.head_count": (_U32, 0),
        "attention.layer_norm_epsilon": (_F32, 1e-5),
        "vocab_size": (_U32, VOCABULARY),
        "wkv.head_size": (_U32, size),
        **{f"attention.{name}_lora_rank": (_U32, rank) for name in ("decay", "iclr", "value_residual_mix", "gate")},
    }
    tensors = {
        "token_embd.weight": random.standard_normal((VOCABULARY, EMBEDDING)).astype(np.float16),
        "output.weight": weight(VOCABULARY, EMBEDDING),
    }
    for name in ("token_embd_norm", "output_norm"):
        tensors |= {name + ".weight": vector(1), name + ".bias": vector(0)}
    for layer in range(layers):
        name = f"blk.{layer}."
        for norm in ("attn_norm", "attn_norm_2", "time_mix_ln"):
            tensors |= {name + norm + ".weight": vector(1), name + norm + ".bias": vector(0)}
        # So that the state holds what was long before.
        for mix, bias in {"w": -9.0, "a": -2.0, "v": 0.0}.items():
            tensors |= {
                f"{name}time_mix_{mix}0.weight": vector(bias, spread=0.5),
                f"{name}time_mix_{mix}1.weight": weight(rank, EMBEDDING),
                f"{name}time_mix_{mix}2.weight": weight(EMBEDDING, rank),
            }
        for part in ("key", "value", "receptance", "output"):
            tensors[f"{name}time_mix_{part}.weight"] = weight(EMBEDDING, EMBEDDING, 1.5)
        tensors |= {
            name + "time_mix_g1.weight": weight(rank, EMBEDDING),
            name + "time_mix_g2.weight": weight(EMBEDDING, rank, 2.0),
            name + "time_mix_lerp_fused.weight": vector(0.5, spread=0.2, shape=(6, 1, 1, EMBEDDING)),
            name + "time_mix_k_k.weight": vector(1, spread=0.2),
            name + "time_mix_k_a.weight": vector(1, spread=0.2),
            name + "time_mix_r_k.weight": vector(0, spread=0.5),
            name + "channel_mix_lerp_k.weight": vector(0.5, spread=0.2, shape=(1, 1, EMBEDDING)),
            name + "channel_mix_key.weight": weight(FEED_FORWARD, EMBEDDING),
            name + "channel_mix_value.weight": weight(EMBEDDING, FEED_FORWARD),
        }
    keys = {key if key.startswith("general.") else f"{kind}.{key}": value for key, value in values.items()}
    keys |= {key: value for key, value in metadata().items() if key.startswith("tokenizer.")}
    _write(path, keys, tensors)
    return path


def write_kind(path: Path, kind: str, *, seed: int = 3) -> Path:
    """A model of any kind by its name."""
    if kind == "llama":
        return write_model(path, seed=seed)[0]
    if kind == "rwkv7":
        return write_rwkv(path, seed=seed)
    return (write_recurrent if kind.startswith("mamba") else write_hybrid)(path, kind, seed=seed)


def write_lora(path: Path, seed: int) -> Path:
    """An adapter of the attention's K and V."""
    random = np.random.default_rng(seed)
    tensors = {}
    for layer in range(LAYERS):
        for name in ("attn_k", "attn_v"):
            tensor = f"blk.{layer}.{name}.weight"
            tensors[f"{tensor}.lora_a"] = (random.standard_normal((8, EMBEDDING)) * 0.2).astype(np.float32)
            tensors[f"{tensor}.lora_b"] = (random.standard_normal((KV_HEADS * HEAD_SIZE, 8)) * 0.2).astype(np.float32)
    values = {
        "general.architecture": (_STRING, "llama"),
        "general.type": (_STRING, "adapter"),
        "adapter.type": (_STRING, "lora"),
        "adapter.lora.alpha": (_F32, 16.0),
    }
    _write(path, values, tensors)
    return path


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _value(kind: int, value: Any) -> bytes:
    if kind == _STRING:
        return _text(value)
    if kind == _ARRAY:
        item, items = value
        return struct.pack("<IQ", item, len(items)) + b"".join(_value(item, one) for one in items)
    return struct.pack({2: "<H", **_FORMATS}[kind], value)


def _write(path: Path, values: dict[str, tuple[int, Any]], tensors: dict[str, np.ndarray]) -> None:
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values))
    for name, (kind, value) in values.items():
        head += _text(name) + struct.pack("<I", kind) + _value(kind, value)
    data = b""
    for name, tensor in tensors.items():
        # GGUF counts the dimensions from the innermost one.
        head += _text(name) + struct.pack("<I", tensor.ndim) + struct.pack(f"<{tensor.ndim}Q", *reversed(tensor.shape))
        head += struct.pack("<IQ", 0 if tensor.dtype == np.float32 else 1, len(data))
        data += tensor.tobytes() + bytes(-len(tensor.tobytes()) % _ALIGNMENT)
    path.write_bytes(head + bytes(-len(head) % _ALIGNMENT) + data)
