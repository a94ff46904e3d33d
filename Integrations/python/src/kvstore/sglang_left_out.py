"""What of SGLang's configuration is not in a namespace's identity, and why it cannot matter to the bytes of KV.

Everything else is in, also what a later SGLang adds. Keys are names of its published settings, whole groups of them, or
"Class.field" of objects.
"""

from __future__ import annotations

_PLACE = "where this process runs, or how it is reached; differs from start to start"
_WATCH = "logs, metrics, traces and profiles"
_LOAD = "how files are read; what was read is in the digest of the weights"
_ROOM = "how many pages there is room for, or how long they are kept"
_BATCH = "which tokens are computed together: within one engine, that differs from request to request"
_KERNELS = "how kernels are captured; they compute the same"
_SAME = "in the record elsewhere"
_MOVE = "moves KV or other data between processes; the pool's layout is a field of the record"
_CHECK = "a hash of fields that are in the record, by which transformers sees changes; Python salts it in each process"
_PICK = "how the next token is chosen; a page's tokens are in its key"


def _all(reason: str, group: str, names: str) -> dict[str, str]:
    return {f"{group}.{name}": reason for name in names.split()}


LEFT_OUT: dict[str, str] = {
    "serving": _PLACE,
    "observability": _WATCH,
    "device.random_seed": _PICK,
    "exec.kernel.sampling_backend": _PICK,
    "exec.kernel.grammar_backend": _PICK,
    **_all(_PLACE, "device", "base_gpu_id gpu_id_step gpu_id watchdog_timeout soft_watchdog_timeout sleep_on_idle use_ray"),
    **_all(_PLACE, "device", "custom_sigquit_handler numa_node gc_threshold"),
    **_all(_SAME, "model", "model_path"),
    **_all(_LOAD, "model", "download_dir startup_weight_load_mode is_startup_weight_load_overlap weight_cache_mode"),
    **_all(_LOAD, "model", "weight_loader_disable_mmap weight_loader_prefetch_checkpoints weight_cache_socket"),
    **_all(_LOAD, "model", "weight_loader_prefetch_num_threads weight_loader_drop_cache_after_load weight_cache_timeout"),
    **_all(_PLACE, "model", "engine_info_bootstrap_port"),
    **_all(_BATCH, "schedule", "max_running_requests max_queued_requests chunked_prefill_size max_prefill_tokens"),
    **_all(_BATCH, "schedule", "prefill_max_requests schedule_policy schedule_conservativeness enable_mixed_chunk"),
    **_all(_BATCH, "schedule", "disable_overlap_schedule num_continuous_decode_steps scheduler_recv_interval"),
    **_all(_BATCH, "schedule", "enable_priority_scheduling disable_priority_preemption retraction_policy"),
    **_all(_BATCH, "schedule", "enable_dynamic_chunking prefill_decode_interval prefill_decode_interval_min_bs"),
    **_all(_ROOM, "schedule", "mem_fraction_static max_total_tokens"),
    **_all(_ROOM, "memory", "hicache_ratio hicache_size hicache_host_memory_mode hicache_host_memory_fraction"),
    **_all(_ROOM, "memory", "hicache_write_policy hicache_io_backend hicache_storage_backend radix_eviction_policy"),
    **_all(_ROOM, "memory", "hicache_storage_prefetch_policy hicache_storage_backend_extra_config"),
    **_all(_ROOM, "memory", "hicache_storage_prefetch_retry_poll_interval hicache_storage_prefetch_retry_max_attempts"),
    **_all(_ROOM, "memory", "radix_eviction_policy_config _radix_eviction_policy_explicitly_set"),
    **_all(_KERNELS, "exec", "graph"),
    **_all(_PLACE, "parallel", "nccl_port dist_timeout dist_init_addr gated_launch_port nnodes node_rank"),
    **_all(_BATCH, "parallel", "pp_max_micro_batch_size pp_async_batch_depth load_balance_method"),
    **_all(_PLACE, "disagg", "disaggregation_bootstrap_port encoder_bootstrap_port"),
    **_all(_SAME, "ModelConfig", "model_path"),
    **_all(_CHECK, "GenerationConfig", "_original_object_hash"),
    **_all(_SAME, "PreTrainedConfig", "_name_or_path _commit_hash transformers_version"),
    **_all(_SAME, "PretrainedConfig", "_name_or_path _commit_hash transformers_version"),
}
"""Setting to reason."""

# Variables that these libraries read; what a later version of them reads is in as well, and what SGLang declares.
ENVIRONMENT: tuple[str, ...] = ("SGLANG_", "SGL_", "TORCH", "PYTORCH_", "NVIDIA_TF32", "CUBLAS", "CUDNN_", "ONEDNN_")
ENVIRONMENT += ("DNNL_", "MKL_", "FLASHINFER", "TRITON_", "AITER_", "MIOPEN_", "ROCM_", "HIPBLAS", "ATEN_", "FLA_")
# Kernels and ways of computing without a prefix of their own.
ENVIRONMENT += ("ASCEND_USE_", "CK_", "DG_JIT_USE_", "FMHA_", "MEGA_", "MINIMAX_", "TIMM_", "TRTLLM_", "USE_")
ENVIRONMENT += ("VIDEO_", "XHS_", "NCCL_ALGO", "NCCL_PROTO")

_VARIABLES = {
    _PLACE: "SGLANG_RUN_ID SGLANG_PORT SGLANG_HOST_IP SGLANG_LOCAL_IP_NIC SGLANG_CACHE_DIR SGLANG_DP_RANK "
    "SGLANG_BLOCK_NONZERO_RANK_CHILDREN TORCHINDUCTOR_CACHE_DIR TRITON_CACHE_DIR TORCH_HOME PYTORCH_KERNEL_CACHE_PATH "
    "PYTORCH_NVML_BASED_CUDA_CHECK TORCH_EXTENSIONS_DIR HF_HUB_DISABLE_XET DISABLE_OPENAPI_DOC EXA_API_KEY "
    "ASCEND_NPU_PHY_ID",
    _ROOM: "PYTORCH_ALLOC_CONF PYTORCH_CUDA_ALLOC_CONF",
    _MOVE: "ENABLE_ASCEND_TRANSFER_WITH_MOONCAKE MOONCAKE_MASTER MOONCAKE_CLIENT MOONCAKE_LOCAL_HOSTNAME "
    "MOONCAKE_TE_META_DATA_SERVER MOONCAKE_GLOBAL_SEGMENT_SIZE MOONCAKE_PROTOCOL MOONCAKE_DEVICE "
    "MOONCAKE_MASTER_METRICS_PORT MOONCAKE_CHECK_SERVER MOONCAKE_STANDALONE_STORAGE MOONCAKE_ENABLE_SSD_OFFLOAD "
    "MOONCAKE_OFFLOAD_FILE_STORAGE_PATH MOONCAKE_TENANT_ID",
    _WATCH: "SGLANG_LOGGING_CONFIG_PATH SGLANG_LOG_MS SGLANG_TORCH_PROFILER_DIR TORCH_LOGS TORCH_TRACE",
}
ENVIRONMENT_LEFT_OUT: dict[str, str] = {name: why for why, names in _VARIABLES.items() for name in names.split()}
"""Environment variable to reason."""

HARMLESS_CALLS = frozenset(
    """init_weights_update_group destroy_weights_update_group get_weights_by_name tp_rank device gpu_id model_config
    custom_weight_loaders get_model update_model_fields recapture_cuda_graph get_model_runner _model_update_group""".split()
)
"""What SGLang asks of the part that updates weights without doing so."""
