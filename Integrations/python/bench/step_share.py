"""How much of an engine's steps the connector's calls take where nothing hits: a real vLLM in one process, its calls timed.

    PYTHONPATH=... python step_share.py [--model llama|gemma3|gpt-oss|qwen3-next] [--requests 40] [--tokens 32]
        [--prompt-tokens 1024] [--offload all|prompt|none]

Each prompt is new, so that each step has look-up, bookkeeping and saves, and no load. Prints the time in the connector's calls,
of scheduler and worker, divided by that of the steps that made them: of all together, and the median and the 90th percentile of
the steps, with prompts and without. Both are measured in the same step, so that a busy machine slows both. Then the CPU time of
all other threads, which save, divided by that of the one that computes: what they would take from it if they shared its core.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Before PyTorch is imported: one thread computes, so that all others are the connector's and the library's.
os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "vllm"))

from restart_workload import tokens, write  # noqa: E402
from step_overhead import OPTIONS  # noqa: E402

SETTLE_SECONDS = 2
"""What was saved is written by then."""

spent = 0.0
depth = 0


def timed(kind: Any, name: str) -> None:
    original = getattr(kind, name)

    def call(*arguments: Any, **named: Any) -> Any:
        global spent, depth
        depth += 1
        begun = time.perf_counter()
        try:
            return original(*arguments, **named)
        finally:
            depth -= 1
            if not depth:
                spent += time.perf_counter() - begun

    setattr(kind, name, call)


def main() -> None:
    global spent
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="llama")
    parser.add_argument("--requests", type=int, default=40)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--prompt-tokens", type=int, default=1024)
    parser.add_argument("--offload", default="all")
    options = parser.parse_args()
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    os.environ |= {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
    from vllm import LLM, SamplingParams
    from vllm.config import KVTransferConfig

    from kvstore.vllm import KVStoreConnector

    with tempfile.TemporaryDirectory(prefix="kvstore-share-") as folder:
        work = Path(folder)
        write(work / "model", options.model)
        transfer = KVTransferConfig(
            kv_connector="KVStoreConnector",
            kv_connector_module_path="kvstore.vllm",
            kv_role="kv_both",
            kv_connector_extra_config={"path": str(work / "store"), "disk_bytes": "4GiB", "offload": options.offload},
        )
        engine = LLM(
            str(work / "model"),
            skip_tokenizer_init=True,
            enforce_eager=True,
            max_model_len=4096,
            dtype="bfloat16",
            distributed_executor_backend="uni",
            kv_transfer_config=transfer,
            **OPTIONS.get(options.model, {}),
        ).llm_engine
        for name, method in vars(KVStoreConnector).items():
            if callable(method) and not name.startswith("_"):
                timed(KVStoreConnector, name)
        params = SamplingParams(max_tokens=options.tokens, temperature=0, ignore_eos=True, detokenize=False)
        steps: dict[str, list[tuple[float, float]]] = {"prompt": [], "token": []}
        begun_at = (0.0, 0.0)
        for index in range(-2, options.requests):
            if index == 0:
                time.sleep(SETTLE_SECONDS)
                begun_at = time.process_time(), time.thread_time()
            prompt = tokens(f"share {index}", options.prompt_tokens)
            engine.add_request(str(index), {"prompt_token_ids": prompt}, params)
            kind = "prompt"
            while engine.has_unfinished_requests():
                spent, begun = 0.0, time.perf_counter()
                made = any(output.outputs[0].token_ids for output in engine.step())
                # The first requests of a process compile kernels.
                if index >= 0:
                    steps[kind].append((spent, time.perf_counter() - begun))
                kind = "token" if made else kind
        computing = time.thread_time() - begun_at[1]
        time.sleep(SETTLE_SECONDS)
        beside = time.process_time() - begun_at[0] - computing
    loads = os.getloadavg()
    print(f"{options.model}, {options.requests} requests, load {loads[0]:.1f} (five minutes: {loads[1]:.1f})")
    for kind, pairs in {**steps, "all": steps["prompt"] + steps["token"]}.items():
        shares = [ours / all_of_it for ours, all_of_it in pairs]
        whole = sum(ours for ours, _ in pairs) / sum(all_of_it for _, all_of_it in pairs)
        middle, high = statistics.median(shares), statistics.quantiles(shares, n=10)[-1]
        print(f"{kind}: {len(pairs)} steps, {whole:.2%} of their time; median {middle:.2%}, 90th percentile {high:.2%}")
    print(f"threads beside: {beside:.2f} s of CPU time, {beside / computing:.2%} of that of the computing one")


if __name__ == "__main__":
    main()
