"""Which environment variables an engine knows, and other values of them."""

from __future__ import annotations

import ast
import inspect
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_NAME = re.compile(r"[A-Z][A-Z0-9_]{2,}")

# What engines read beside their own variables and cannot matter: an identity has none of them. Whole names, or
# beginnings that end with "_".
ELSEWHERE: dict[str, str] = {
    name: why
    for why, names in {
        "where this process runs, how it is reached, who asks": """AWS_ CONDA_ EXA_API_KEY GITHUB_ HOSTNAME HOST_IP
            LOCAL_HOSTNAME MASTER_ MODELSCOPE_API_TOKEN MS_ OPENAI_API_KEY PATH PROGRAMFILES RAY_ REQUEST_TIMEOUT RUNNER_TEMP
            SYSTEMROOT TMPDIR UV WINDIR XDG_ AIP_PREDICT_ROUTE DUMPER_SERVER_PORT DEVICE_ID""",
        "which devices there are; what is computed on is in the record": """CUDA_DEVICE_ORDER CUDA_VISIBLE_DEVICES
            HIP_VISIBLE_DEVICES JAX_PLATFORMS ZE_""",
        "ranks are fields of the record": "LOCAL_RANK LOCAL_SIZE LOCAL_WORLD_SIZE RANK WORLD_SIZE",
        "moves data between processes or to devices": """ASCEND_MF_ CCL_ATL_TRANSPORT DEEPEP_HCCL_BUFFSIZE EP_ FLEXKV_
            GPU_PINNED_MIN_XFER_SIZE HCCL_BUFFSIZE HSA_USERPTR_FOR_PAGED_MEM LMCACHE_ MC_FORCE_TCP MOONCAKE_CONFIG_PATH MORI_
            NCCL_ASYNC_ERROR_HANDLING NCCL_CUMEM_ENABLE NCCL_GRAPH_ NCCL_IB_DISABLE NCCL_LAUNCH_MODE NCCL_MAX_ NCCL_MIN_
            NCCL_MNNVL_ENABLE NCCL_NO_CACHE NCCL_NVLS_ENABLE NVSHMEM_ SICL_NET_DEVICES UCX_ UMBP_ CUDA_DEVICE_MAX_CONNECTIONS""",
        "logs, metrics, traces, dumps": """CUDA_COREDUMP_ CUDA_ENABLE_USER_TRIGGERED_COREDUMP CUTE_DSL_LOG_ DO_NOT_TRACK
            LLGUIDANCE_LOG_LEVEL OTEL_ PROMETHEUS_ SAVE_TO_PYTORCH_BENCHMARK_FORMAT TENSOR_DUMP_ TLLM_LOG_LEVEL TRACEPARENT
            TRACESTATE WAVE_DUMP_MLIR""",
        "how files are loaded or what is compiled is kept": """CRIU_ CUDA_HOME CUDA_MODULE_LOADING CUDA_PATH DG_JIT_CACHE_DIR
            FLYDSL_RUNTIME_CACHE_DIR HF_XET_ LD_LIBRARY_PATH LD_PRELOAD OUTLINES_ RUNAI_ TILELANG_CLEANUP_TEMP_FILES""",
        "what is built for, when it is built": "CARGO_ CU_NUM CXXFLAGS GPU_ARCHS LIBTORCH_USE_PYTORCH RUSTFLAGS",
        "how many threads compute, which within one engine depends on the machine": "NUMEXPR_MAX_THREADS OMP_NUM_THREADS",
        "order within one process, or of requests": """PYTHONHASHSEED IN_BATCH_PREFIX_CACHING_ SYNC_TOKEN_IDS_ACROSS_TP
            TOKENIZERS_PARALLELISM""",
    }.items()
    for name in names.split()
}


def is_elsewhere(name: str) -> bool:
    return any(name == one or (one.endswith("_") and name.startswith(one)) for one in ELSEWHERE)


def variables_read(package: Path) -> set[str]:
    """The names that are written out where the environment is asked: os.environ[NAME], os.getenv(NAME), NAME in os.environ."""
    found: set[str] = set()
    for file in package.rglob("*.py"):
        text = file.read_text(errors="replace")
        if "env" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            asked: list[ast.expr] = []
            if isinstance(node, ast.Call) and re.search(r"environ|getenv|get_\w*env|\benv_", ast.unparse(node.func)):
                asked = node.args[:1]
            elif isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("environ"):
                asked = [node.slice]
            elif isinstance(node, ast.Compare) and ast.unparse(node.comparators[0]).endswith("environ"):
                asked = [node.left]
            for one in asked:
                if isinstance(one, ast.Constant) and isinstance(one.value, str) and _NAME.fullmatch(one.value):
                    found.add(one.value)
    return found


def wrong_variables(names: Iterable[str], left_out: Iterable[str], identity: Any) -> list[str]:
    """Of these, those that neither change an identity nor are on a list, or do both."""
    before, wrong = identity(), []
    for name in sorted(names):
        kept = os.environ.get(name)
        os.environ[name] = f"{kept}-another"
        try:
            changed = identity() != before
        finally:
            del os.environ[name]
            if kept is not None:
                os.environ[name] = kept
        if changed == (name in left_out or is_elsewhere(name)):
            wrong.append(name)
    return wrong


def other_values(name: str, getter: Any) -> list[str]:
    """Other values of a variable: those that its reader allows, as far as it says so, and some of its kind."""
    choices = inspect.getclosurevars(getter).nonlocals.get("choices") if getter else None
    if choices:
        listed = choices() if callable(choices) else choices
        return [one for one in listed if one != os.environ.get(name)][:3]
    try:
        value = getter() if getter else os.environ.get(name)
    except Exception:
        value = None
    if isinstance(value, bool):
        return ["0" if value else "1"]
    if isinstance(value, int):
        return [str(value + 1), str(value * 2)] if value > 1 else [str(1 - value) if value >= 0 else "1", "2"]
    if isinstance(value, float):
        return [str(value * 0.5), str(value + 0.25)]
    if isinstance(value, str) and value:
        return [value + "-another", "1"]
    return ["1", "0", "another"]
