"""What tells the KV of one engine from that of another: everything that changes its bytes, or what they mean.

vLLM's whole configuration is in, as it stands in the worker once the model is loaded; left_out.py says what is not, and why.
"""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any

from .. import loaded
from ..effective import Effective, environment, nonce
from ..namespace import Identity
from ..weights import IdentityUnknownError, files_digest, weight_files
from .groups import CacheGroups, group_specs, store_groups
from .layout import KVLayout
from .left_out import DRAFTERS_WITHOUT_KV, ENVIRONMENT, ENVIRONMENT_LEFT_OUT, LEFT_OUT
from .options import Options
from .states import StateMemory

logger = logging.getLogger("vllm.kvstore")

# Counts changes of what this connector puts into a block; one that changes it makes all that is stored a miss.
FORMAT = 2


def engine_identity(
    vllm_config: Any,
    kv_cache_config: Any,
    groups: CacheGroups,
    layout: KVLayout,
    states: StateMemory,
    kv_caches: dict[str, Any],
    options: Options,
) -> Identity:
    """The identity record of this worker's blocks; salt and adapter are added for each request.

    All workers of the engine call it together: what one rank has loaded changes what the others compute.
    """
    import torch
    import vllm

    model, cache, parallel = vllm_config.model_config, vllm_config.cache_config, vllm_config.parallel_config
    refuse_what_is_not_supported(vllm_config)
    specs = _attention_specs(kv_cache_config, groups)
    spec = specs[0]
    first = kv_caches[next(iter(layout.layer_regions))]
    # The cache dtype "fp8" is stored as uint8: the name says which format it is.
    kv_dtype = str(first.dtype).removeprefix("torch.")
    record = {
        # Layers by name: ranks of a pipeline that have as many layers each may have other ones.
        "layers": list(kv_caches),
        "config": effective_config(vllm_config),
        "environment": effective_environment(),
        "numbers": torch.get_float32_matmul_precision(),
        "loaded": _of_all_ranks(_loaded(vllm_config, kv_caches)),
    }
    if groups.is_mixed:
        record["groups"] = [groups.description, states.description]
    return Identity(
        region_bytes=tuple(region.byte_count for region in layout.regions),
        tokens_per_block=groups.tokens_per_block,
        model_name=str(model.model),
        weights_digest=weights_digest(vllm_config, options),
        kv_dtype=kv_dtype,
        kv_quantization=str(cache.cache_dtype),
        layout=layout.description,
        rope=_canonical(_rope(model)),
        engine_format=(
            f"vllm {vllm.__version__}, torch {torch.__version__}, {first.device.type}, "
            f"{_backend(vllm_config, kv_caches, specs)}, kvstore {FORMAT}"
        ),
        engine_bytes=hashlib.sha256(_canonical(record).encode()).digest(),
        layer_count=len(kv_caches),
        kv_head_count=getattr(spec, "num_kv_heads", 0) or 0,
        head_size=getattr(spec, "head_size", 0) or 0,
        tensor_parallel_rank=_rank("get_tp_group"),
        tensor_parallel_size=parallel.tensor_parallel_size,
        pipeline_parallel_rank=_rank("get_pp_group"),
        pipeline_parallel_size=parallel.pipeline_parallel_size,
        groups=store_groups(groups, layout.regions),
    )


def effective_environment() -> dict[str, str]:
    """The variables of vLLM, also those that a later version declares, and of its libraries, without what is left out."""
    from vllm import envs

    return environment(ENVIRONMENT, ENVIRONMENT_LEFT_OUT, getattr(envs, "environment_variables", ()))


def effective_config(vllm_config: Any) -> str:
    """vLLM's configuration as text, without what is left out. Of values that have no content to go by, it says so."""
    effective = Effective(LEFT_OUT)
    parts = {"vllm": effective.record(vllm_config)}
    speculative = vllm_config.speculative_config
    if speculative is not None and getattr(speculative, "method", None) not in DRAFTERS_WITHOUT_KV:
        parts["speculative"] = effective.record(speculative, "speculative_config")
    if effective.unnameable:
        logger.warning(
            "kvstore: what these settings hold cannot be told, so that blocks of this process serve it alone: %s",
            ", ".join(sorted(set(effective.unnameable))),
        )
        parts["process"] = nonce().hex()
    return _canonical(parts)


def _loaded(vllm_config: Any, kv_caches: dict[str, Any]) -> dict[str, Any]:
    """The weights and the code of the models that own this rank's layers."""
    context = vllm_config.compilation_config.static_forward_context
    models = loaded.models_of(context.get(name) for name in kv_caches)
    if not models:
        raise IdentityUnknownError(
            "kvstore: this version of vLLM does not tell which model its layers belong to, and so not which weights it has "
            "loaded"
        )
    return {"weights": loaded.weights_digest(models).hex(), "code": loaded.code_digests(models)}


def _of_all_ranks(ours: Any) -> Any:
    """What every rank says, in the order of the ranks: a rank's KV depends on what comes from the others."""
    import torch.distributed
    from vllm.distributed import parallel_state

    group = parallel_state.get_world_group()
    if group.world_size == 1:
        return [ours]
    said: list[Any] = [None] * group.world_size
    torch.distributed.all_gather_object(said, ours, group=group.cpu_group)
    return said


def refuse_what_is_not_supported(vllm_config: Any) -> None:
    """Raises ValueError for engines whose KV this connector cannot store, and says why."""
    model, parallel = vllm_config.model_config, vllm_config.parallel_config
    recurrent = model.is_hybrid or model.has_inner_state or model.is_attention_free
    why = ""
    if model.is_attention_free:
        why = "and no attention beside them; this connector stores models with at least some"
    elif recurrent and vllm_config.cache_config.mamba_cache_mode != "align":
        why = (
            "whose state vLLM keeps at the ends of blocks only with --enable-prefix-caching and --mamba-cache-mode align"
        )
    elif recurrent and vllm_config.speculative_config is not None:
        why = "whose states vLLM moves about when it guesses tokens; leave out --speculative-config"
    elif recurrent and vllm_config.scheduler_config.disable_hybrid_kv_cache_manager:
        why = "which need vLLM's hybrid KV cache manager; leave out --disable-hybrid-kv-cache-manager"
    if why:
        kinds = ", ".join(sorted(set(getattr(model.hf_text_config, "layer_types", None) or ["recurrent"])))
        raise ValueError(
            f"kvstore: {model.model} has recurrent layers ({kinds}), {why}. Or start vLLM without --kv-transfer-config"
        )
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
    """What tells these weights from others: the setting, else the files that they were read from."""
    model, load = vllm_config.model_config, vllm_config.load_config
    if options.weights_digest is not None:
        return bytes.fromhex(options.weights_digest)
    if str(load.load_format) == "dummy":
        return hashlib.sha256(f"dummy {model.seed}".encode()).digest()
    digests = [_files_digest(model)]
    speculative = vllm_config.speculative_config
    draft = getattr(speculative, "draft_model_config", None)
    if draft is not None and speculative.method not in DRAFTERS_WITHOUT_KV and draft.model != model.model:
        digests.append(_files_digest(draft))
    return digests[0] if len(digests) == 1 else hashlib.sha256(b"".join(digests)).digest()


def _files_digest(model: Any) -> bytes:
    files = weight_files(str(model.model_weights or model.model), model.revision)
    if not files:
        raise IdentityUnknownError(
            f'kvstore: the weight files of {model.model} were not found; set "weights_digest" (32 bytes in hexadecimal) in '
            "kv_connector_extra_config to something that changes with the weights"
        )
    if changed := loaded.changed_since_start(files):
        logger.warning(
            "kvstore: %s was changed since this engine began to start, and what of it was loaded cannot be told: "
            "blocks of this process serve it alone",
            ", ".join(str(file) for file in changed),
        )
        return nonce()
    return files_digest(files)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def _rope(model: Any) -> dict[str, Any]:
    config = model.hf_text_config
    names = ("rope_parameters", "rope_theta", "rope_scaling", "partial_rotary_factor", "rope_local_base_freq")
    return {name: getattr(config, name) for name in names if getattr(config, name, None) is not None}


def _attention_specs(kv_cache_config: Any, groups: CacheGroups) -> list[Any]:
    """The kinds of cache of the tables, in their order; of one whose layers differ, each."""
    specs: list[Any] = []
    for table in groups.tables:
        specs += group_specs(kv_cache_config.kv_cache_groups[table.group].kv_cache_spec)
    return specs


def _backend(vllm_config: Any, kv_caches: dict[str, Any], specs: list[Any]) -> str:
    """The attention backend of each layer, and on CPU the instruction set, which orders the bytes of a block."""
    context = vllm_config.compilation_config.static_forward_context
    names: dict[str, None] = {}
    for name in kv_caches:
        backend = getattr(context.get(name), "attn_backend", None)
        names[backend.get_name() if backend is not None else "unknown"] = None
    text = "+".join(names)
    if vllm_config.device_config.device_type == "cpu":
        try:
            from vllm.v1.attention.backends.cpu_attn import _get_attn_isa

            sets = [
                _get_attn_isa(
                    vllm_config.model_config.dtype, spec.block_size, spec.head_size, vllm_config.cache_config.cache_dtype
                )
                for spec in specs
            ]
            text += " " + "+".join(dict.fromkeys(sets))
        except (ImportError, AttributeError, TypeError) as reason:
            raise IdentityUnknownError(
                "kvstore: this version of vLLM does not tell which instruction set its CPU attention uses, which "
                f"orders the bytes of a block: {reason}"
            ) from reason
    return text


def _rank(group: str) -> int:
    from vllm.distributed import parallel_state

    return int(getattr(parallel_state, group)().rank_in_group)
