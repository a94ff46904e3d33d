"""What of vLLM's configuration is not in a namespace's identity, and why it cannot matter to the bytes of KV.

Everything else is in, also what a later vLLM adds. Keys are "Class.field"; a class stands for those that inherit from it.
"""

from __future__ import annotations

_PLACE = "where this process runs, or how it is reached; differs from start to start"
_RANK = "ranks and sizes that matter are fields of the record"
_TEXT = "turns text into tokens or back; a block's tokens are compared"
_PICK = "how the next token is chosen, limited or reported; a block's tokens are compared"
_ROOM = "how many blocks there is room for, or how long they are kept"
_BATCH = "which tokens are computed together: within one engine, that differs from request to request"
_WATCH = "logs, metrics, traces and profiles"
_LOAD = "how files are read; what was read is in the digest of the weights"
_STATE = "filled in while the engine runs"
_MOVE = "moves KV or other data between processes; the layout of KV is a field of the record"
_SAME = "in the record elsewhere"
_KERNELS = "how kernels are captured; they compute the same"


def _all(reason: str, owner: str, names: str) -> dict[str, str]:
    return {f"{owner}.{name}": reason for name in names.split()}


LEFT_OUT: dict[str, str] = {
    **_all(_PLACE, "VllmConfig", "instance_id shutdown_timeout"),
    **_all(_WATCH, "VllmConfig", "observability_config logging_config profiler_config kv_events_config"),
    **_all(_PICK, "VllmConfig", "structured_outputs_config reasoning_config watermark_config"),
    **_all(_MOVE, "VllmConfig", "kv_transfer_config"),
    **_all(_SAME, "VllmConfig", "speculative_config"),
    **_all(_TEXT, "ModelConfig", "tokenizer tokenizer_mode tokenizer_revision skip_tokenizer_init io_processor_plugin"),
    **_all(_PLACE, "ModelConfig", "served_model_name hf_token allowed_local_media_path allowed_media_domains"),
    **_all(_PICK, "ModelConfig", "generation_config override_generation_config logits_processors logprobs_mode"),
    **_all(_PICK, "ModelConfig", "max_logprobs return_sampling_mask use_fp64_gumbel"),
    **_all(_PLACE, "ModelConfig", "renderer_num_workers enable_sleep_mode sleep_mode_backend"),
    **_all(_PLACE, "ModelConfig", "sleep_mode_offload_cudagraph sleep_preserve_parameter_names"),
    **_all(_SAME, "ModelConfig", "enforce_eager"),
    **_all(_SAME, "ModelConfig", "model _hf_config_revision"),
    **_all(_SAME, "PreTrainedConfig", "_name_or_path _commit_hash transformers_version"),
    **_all(_SAME, "PretrainedConfig", "_name_or_path _commit_hash transformers_version"),
    **_all(_ROOM, "CacheConfig", "num_gpu_blocks num_gpu_blocks_override num_cpu_blocks gpu_memory_utilization"),
    **_all(_ROOM, "CacheConfig", "kv_cache_memory_bytes kv_cache_size_tokens kv_cache_max_concurrency"),
    **_all(_ROOM, "CacheConfig", "enable_prefix_caching prefix_caching_hash_algo prefix_cache_retention_interval"),
    **_all(_ROOM, "CacheConfig", "kv_offloading_size kv_offloading_backend prefix_match_unit hash_block_size"),
    **_all(_SAME, "CacheConfig", "_block_size_resolved user_specified_block_size"),
    **_all(_RANK, "ParallelConfig", "rank world_size node_rank nnodes data_parallel_rank data_parallel_rank_local"),
    **_all(_RANK, "ParallelConfig", "data_parallel_index data_parallel_size_local"),
    **_all(_PLACE, "ParallelConfig", "data_parallel_master_ip data_parallel_master_port data_parallel_rpc_port"),
    **_all(_PLACE, "ParallelConfig", "data_parallel_backend data_parallel_external_lb data_parallel_hybrid_lb"),
    **_all(_PLACE, "ParallelConfig", "master_addr master_port _api_process_count _api_process_rank _coord_store_port"),
    **_all(_PLACE, "ParallelConfig", "_data_parallel_master_port_list assigned_physical_gpu_ids placement_group"),
    **_all(_PLACE, "ParallelConfig", "distributed_timeout_seconds cpu_distributed_timeout_seconds numa_bind"),
    **_all(_PLACE, "ParallelConfig", "numa_bind_cpus numa_bind_nodes ray_runtime_env ray_workers_use_nsight"),
    **_all(_PLACE, "ParallelConfig", "disable_nccl_for_dp_synchronization"),
    **_all(_PLACE, "ParallelConfig", "distributed_executor_backend max_parallel_loading_workers"),
    **_all(_BATCH, "SchedulerConfig", "max_num_batched_tokens max_num_seqs max_num_scheduled_tokens policy"),
    **_all(_BATCH, "SchedulerConfig", "max_num_active_seqs max_num_queued_reqs max_num_queued_tokens"),
    **_all(_BATCH, "SchedulerConfig", "enable_chunked_prefill long_prefill_token_threshold async_scheduling"),
    **_all(_BATCH, "SchedulerConfig", "max_num_encoder_input_tokens encoder_cache_size scheduler_reserve_full_isl"),
    **_all(_BATCH, "SchedulerConfig", "prefill_schedule_interval stream_interval watermark scheduler_cls"),
    **_all(_BATCH, "SchedulerConfig", "long_prefill_token_threshold_adaptive"),
    **_all(_LOAD, "LoadConfig", "download_dir use_tqdm_on_load ignore_patterns pt_load_map_location"),
    **_all(_LOAD, "LoadConfig", "safetensors_load_strategy safetensors_prefetch_block_size"),
    **_all(_LOAD, "LoadConfig", "safetensors_prefetch_num_threads"),
    **_all(_ROOM, "LoRAConfig", "max_loras max_cpu_loras"),
    **_all(_STATE, "CompilationConfig", "static_forward_context static_all_moe_layers traced_files"),
    **_all(_STATE, "CompilationConfig", "enabled_custom_ops disabled_custom_ops compilation_time"),
    **_all(_STATE, "CompilationConfig", "encoder_compilation_time"),
    **_all(_PLACE, "CompilationConfig", "cache_dir local_cache_dir debug_dump_path compile_cache_save_format"),
    **_all(_KERNELS, "CompilationConfig", "cudagraph_mode cudagraph_capture_sizes max_cudagraph_capture_size"),
    **_all(_KERNELS, "CompilationConfig", "cudagraph_num_of_warmups cudagraph_copy_inputs"),
    **_all(_BATCH, "CompilationConfig", "compile_ranges_endpoints"),
}
"""Field to reason."""

# Variables that these libraries read; what a later version of them reads is in as well, and what vLLM declares.
ENVIRONMENT: tuple[str, ...] = ("VLLM_", "TORCH", "PYTORCH_", "NVIDIA_TF32", "CUBLAS", "CUDNN_", "ONEDNN_", "DNNL_", "MKL_")
ENVIRONMENT += ("FLASHINFER_", "TRITON_", "AITER_", "MIOPEN_", "ROCM_", "HIPBLAS", "ATEN_", "FLA_", "FLASH_ATTENTION_")
# Kernels and ways of computing without a prefix of their own.
ENVIRONMENT += ("USE_", "FORCE_NUM_KV_SPLITS", "GDN_", "HIP_ONLINE_TUNING", "INKLING_", "LAMPORT_", "XHS_", "XPU_USE_")
ENVIRONMENT += ("TRTLLM_", "DG_JIT_USE_", "NCCL_ALGO", "NCCL_PROTO")
ENVIRONMENT += ("ARCH", "CUTE_", "FA_", "FMHA_", "MINIMAX_", "MM_SPARSE_ATTN_", "MSA_")

_VARIABLES = {
    _PLACE: "VLLM_HOST_IP VLLM_PORT VLLM_RPC_BASE_PATH VLLM_DP_MASTER_IP VLLM_DP_MASTER_PORT VLLM_LOOPBACK_IP "
    "VLLM_API_KEY VLLM_DIST_IDENT VLLM_OBJECT_STORAGE_SHM_BUFFER_NAME VLLM_CACHE_ROOT VLLM_CONFIG_ROOT VLLM_ASSETS_CACHE VLLM_XLA_CACHE_PATH VLLM_PLUGINS_CACHE "
    "VLLM_WORKER_MULTIPROC_METHOD VLLM_ENABLE_V1_MULTIPROCESSING VLLM_ENGINE_READY_TIMEOUT_S "
    "VLLM_ENGINE_ITERATION_TIMEOUT_S VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS VLLM_RPC_TIMEOUT VLLM_HTTP_TIMEOUT_KEEP_ALIVE "
    "VLLM_CPU_OMP_THREADS_BIND VLLM_CPU_NUM_OF_RESERVED_CPU VLLM_NIXL_SIDE_CHANNEL_HOST VLLM_NIXL_SIDE_CHANNEL_PORT "
    "VLLM_LORA_RESOLVER_CACHE_DIR VLLM_ALLOW_RUNTIME_LORA_UPDATING VLLM_SERVER_DEV_MODE TORCHINDUCTOR_CACHE_DIR "
    "TRITON_CACHE_DIR TORCH_HOME PYTORCH_KERNEL_CACHE_PATH PYTORCH_NVML_BASED_CUDA_CHECK "
    "CUDA_HOME CUDA_VISIBLE_DEVICES LD_LIBRARY_PATH LOCAL_RANK S3_ACCESS_KEY_ID S3_SECRET_ACCESS_KEY S3_ENDPOINT_URL "
    "MAX_JOBS NVCC_THREADS CMAKE_BUILD_TYPE MOONCAKE_PREFERRED_SEGMENT MOONCAKE_REQUESTER_LOCAL_HOSTNAME "
    "COMPILE_ONLY CUDACXX CUDA_MPS_PIPE_DIRECTORY MINFER_FMHA_CACHE_DIR NCCL_RAS_ENABLE",
    _RANK: "VLLM_DP_RANK VLLM_DP_RANK_LOCAL VLLM_DP_SIZE",
    _ROOM: "VLLM_CPU_KVCACHE_SPACE PYTORCH_ALLOC_CONF PYTORCH_CUDA_ALLOC_CONF",
    _WATCH: "VLLM_LOGGING_LEVEL VLLM_CONFIGURE_LOGGING VLLM_LOGGING_CONFIG_PATH VLLM_LOGGING_PREFIX VLLM_LOGGING_STREAM "
    "VLLM_LOGGING_COLOR VLLM_LOG_STATS_INTERVAL VLLM_LOG_BATCHSIZE_INTERVAL VLLM_NO_USAGE_STATS VLLM_DO_NOT_TRACK "
    "VLLM_USAGE_SOURCE VLLM_USAGE_STATS_SERVER VLLM_TRACE_FUNCTION VLLM_TORCH_PROFILER_DIR VLLM_DEBUG_LOG_API_SERVER_RESPONSE "
    "VLLM_DEBUG_DUMP_PATH TORCH_LOGS TORCH_TRACE TORCH_SHOW_CPP_STACKTRACES VLLM_RINGBUFFER_WARNING_INTERVAL "
    "NO_COLOR FORCE_COLOR VERBOSE DG_USE_NVIDIA_TOOLS FA_LOG_LEVEL GPU_TRACE PROTON_LAUNCH_METADATA_NOSYNC "
    "SKIP_COMPUTE_SANITIZER SM_TIMING",
}
ENVIRONMENT_LEFT_OUT: dict[str, str] = {name: why for why, names in _VARIABLES.items() for name in names.split()}
"""Environment variable to reason."""

DRAFTERS_WITHOUT_KV: dict[str, str] = {
    "ngram": "guesses from the tokens; has no model",
    "ngram_gpu": "guesses from the tokens; has no model",
    "suffix": "guesses from the tokens; has no model",
}
"""Ways of speculative decoding that have no layers with KV: the configuration of others is in the record."""

HARMLESS_CALLS = frozenset(
    """add_lora annotate_profile check_health execute_model_ray get_node_and_gpu_ids get_node_ip
    setup_device_if_necessary compile_or_warm_up_model compute_weight_checksums determine_available_memory
    execute_dummy_batch execute_model get_cache_block_size_bytes get_compilation_match_table get_encoder_timing_stats
    get_kv_cache_spec get_kv_connector_handshake_metadata get_model_inspection get_supported_kv_cache_layouts
    get_supported_tasks initialize_from_config list_loras pin_lora profile release_late_interaction_query_cache
    remove_lora reset_encoder_cache reset_mm_cache sample_tokens save_sharded_state save_tensorized_model
    set_kv_cache_layout shutdown sleep supports_draft_weight_updates synchronize_device take_draft_token_ids
    update_max_model_len vocab_size wake_up""".split()
)
"""What vLLM asks of a worker without changing its weights. After anything else they are other weights, for all we know."""
