"""What tells the KV of one engine from that of another: everything that changes its bytes, or what they mean."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ..namespace import Identity
from ..weights import IdentityUnknownError, files_digest, weight_files
from .layout import KVLayout
from .options import Options

# Counts changes of what this connector puts into a block; one that changes it makes all that is stored a miss.
FORMAT = 1


def engine_identity(vllm_config: Any, spec: Any, layout: KVLayout, kv_caches: dict[str, Any], options: Options) -> Identity:
    """The identity record of this worker's blocks; salt and adapter are added for each request."""
    import torch
    import vllm

    model, cache, parallel = vllm_config.model_config, vllm_config.cache_config, vllm_config.parallel_config
    refuse_what_is_not_supported(vllm_config)
    first = next(iter(kv_caches.values()))
    # The cache dtype "fp8" is stored as uint8: the name says which format it is.
    kv_dtype = str(first.dtype).removeprefix("torch.")
    return Identity(
        region_bytes=tuple(region.byte_count for region in layout.regions),
        tokens_per_block=spec.block_size,
        model_name=str(model.model),
        weights_digest=weights_digest(vllm_config, options),
        kv_dtype=kv_dtype,
        kv_quantization=str(cache.cache_dtype),
        layout=layout.description,
        rope=_canonical(_rope(model)),
        engine_format=(
            f"vllm {vllm.__version__}, torch {torch.__version__}, {first.device.type}, "
            f"{_backend(vllm_config, kv_caches, spec)}, kvstore {FORMAT}"
        ),
        engine_bytes=hashlib.sha256(_canonical(_other(vllm_config)).encode()).digest(),
        layer_count=len(kv_caches),
        kv_head_count=getattr(spec, "num_kv_heads", 0) or 0,
        head_size=getattr(spec, "head_size", 0) or 0,
        tensor_parallel_rank=_rank("get_tp_group"),
        tensor_parallel_size=parallel.tensor_parallel_size,
        pipeline_parallel_rank=_rank("get_pp_group"),
        pipeline_parallel_size=parallel.pipeline_parallel_size,
    )


def refuse_what_is_not_supported(vllm_config: Any) -> None:
    """Raises ValueError for engines whose KV this connector cannot store, and says why."""
    parallel = vllm_config.parallel_config
    for name in ("decode_context_parallel_size", "prefill_context_parallel_size"):
        if getattr(parallel, name, 1) > 1:
            raise ValueError(
                f"kvstore: {name} is {getattr(parallel, name)}; a block's tokens are then spread over ranks, "
                "which this connector does not support"
            )
    if getattr(vllm_config.cache_config, "calculate_kv_scales", False):
        raise ValueError(
            "kvstore: with calculate_kv_scales the meaning of stored bytes changes at every start; use scales from "
            "the checkpoint, or another kv_cache_dtype"
        )


def weights_digest(vllm_config: Any, options: Options) -> bytes:
    """What tells these weights from others: the setting, else the files."""
    model, load = vllm_config.model_config, vllm_config.load_config
    if options.weights_digest is not None:
        return bytes.fromhex(options.weights_digest)
    if str(load.load_format) == "dummy":
        return hashlib.sha256(f"dummy {model.seed}".encode()).digest()
    files = weight_files(str(model.model), model.revision)
    if not files:
        raise IdentityUnknownError(
            f'kvstore: the weight files of {model.model} were not found; set "weights_digest" (hexadecimal) in '
            "kv_connector_extra_config to something that changes with the weights"
        )
    return files_digest(files)


class AdapterDigests:
    """Digests of adapters by their content; read once for each state of their files."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], bytes] = {}

    def digest(self, lora_request: Any) -> bytes | None:
        """The digest of a request's adapter: empty without one, None if its files cannot be read."""
        if lora_request is None:
            return b""
        folder = Path(lora_request.lora_path)
        try:
            files = sorted(file for file in folder.rglob("*") if file.is_file())
            state = tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)
            if not state:
                return None
            if state not in self._known:
                digest = hashlib.sha256()
                for file in files:
                    digest.update(_canonical([str(file.relative_to(folder)), file.stat().st_size]).encode())
                    digest.update(file.read_bytes())
                self._known[state] = digest.digest()
            return self._known[state]
        except OSError:
            return None


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def _rope(model: Any) -> dict[str, Any]:
    config = model.hf_text_config
    names = ("rope_parameters", "rope_theta", "rope_scaling", "partial_rotary_factor", "rope_local_base_freq")
    return {name: getattr(config, name) for name in names if getattr(config, name, None) is not None}


def _other(vllm_config: Any) -> dict[str, Any]:
    """What else changes the KV: the model's configuration, how its weights are used, a draft model's layers."""
    model = vllm_config.model_config
    config = model.hf_config.to_dict()
    for name in ("_name_or_path", "transformers_version"):
        config.pop(name, None)
    speculative = vllm_config.speculative_config
    return {
        "hf_config": config,
        "dtype": str(model.dtype),
        "quantization": str(model.quantization),
        "load_format": str(vllm_config.load_config.load_format),
        "speculative": None
        if speculative is None
        else [str(speculative.method), str(speculative.model), str(getattr(speculative, "revision", None))],
    }


def _backend(vllm_config: Any, kv_caches: dict[str, Any], spec: Any) -> str:
    """The attention backend of each layer, and on CPU the instruction set, which orders the bytes of a block."""
    context = vllm_config.compilation_config.static_forward_context
    names: dict[str, None] = {}
    for name in kv_caches:
        backend = getattr(context.get(name), "attn_backend", None)
        names[backend.get_name() if backend is not None else "unknown"] = None
    text = "+".join(names)
    if next(iter(kv_caches.values())).device.type == "cpu":
        try:
            from vllm.v1.attention.backends.cpu_attn import _get_attn_isa

            text += " " + _get_attn_isa(
                vllm_config.model_config.dtype, spec.block_size, spec.head_size, vllm_config.cache_config.cache_dtype
            )
        except (ImportError, AttributeError, TypeError) as reason:
            raise IdentityUnknownError(
                "kvstore: this version of vLLM does not tell which instruction set its CPU attention uses, which "
                f"orders the bytes of a block: {reason}"
            ) from reason
    return text


def _rank(group: str) -> int:
    from vllm.distributed import parallel_state

    return int(getattr(parallel_state, group)().rank_in_group)
