"""What a store saves a small agent workload: several sessions that only append, and a restart in the middle.

    PYTHONPATH=... python agent_workload.py [--sessions 3] [--steps 10] [--restart-after 5] [--engine-blocks 40] [--json]

A real vLLM on CPU runs it twice, without and with a store, with vLLM's own prefix cache on both times. Each session
starts with the same 512 tokens; a step appends 200 tokens (a tool's output) and generates 64. The engine has room for
`--engine-blocks` blocks of 128 tokens, less than all sessions need, as servers do. Prints a table for the docs: prompt
tokens that had to be computed in each step, and the ratio of the median times to first token; --json has the times.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "vllm"))

from engine import Engine  # noqa: E402
from tiny_model import write_model  # noqa: E402

SHARED_TOKENS, STEP_TOKENS, GENERATED_TOKENS = 512, 200, 64


def tokens(seed: object, count: int) -> list[int]:
    generator = random.Random(str(seed))
    return [generator.randrange(3, 4096) for _ in range(count)]


def run(model: Path, store: dict[str, Any] | None, log: Path, options: argparse.Namespace) -> list[list[dict[str, Any]]]:
    """Runs the workload; returns for each step what each session's request cost."""
    prompts = [tokens("shared", SHARED_TOKENS) for _ in range(options.sessions)]
    steps: list[list[dict[str, Any]]] = []

    def start() -> Engine:
        engine = Engine(model, store, log, num_gpu_blocks_override=options.engine_blocks)
        # The first request of a process compiles kernels: none that counts.
        engine.generate(tokens("warm-up", 300), tokens=4)
        return engine

    engine = start()
    try:
        for step in range(options.steps):
            if step == options.restart_after:
                engine.close()
                engine = start()
            costs = []
            for session, prompt in enumerate(prompts):
                prompt += tokens(f"{session} {step}", STEP_TOKENS)
                answer = engine.generate(prompt, tokens=GENERATED_TOKENS)[0]
                costs.append(
                    {
                        "prompt": len(prompt),
                        "computed": len(prompt) - answer["cached"],
                        "ttft": answer["first_token_seconds"],
                    }
                )
                # Both arms see the same conversation, whatever was generated.
                prompt += tokens(f"{session} {step} answer", GENERATED_TOKENS)
            steps.append(costs)
    finally:
        engine.close()
    return steps


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--restart-after", type=int, default=5)
    parser.add_argument("--engine-blocks", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kvstore-agent-") as folder:
        work = Path(folder)
        write_model(work / "model", seed=1)
        without = run(work / "model", None, work / "log-without", options)
        store = {"path": str(work / "store"), "disk_bytes": "2GiB"}
        with_store = run(work / "model", store, work / "log-with", options)

    if options.json:
        print(json.dumps({"options": vars(options), "without": without, "with": with_store}))
        return
    print("| step | prompt tokens | computed without | with the store | TTFT with ÷ without |")
    print("|---|---|---|---|---|")

    def row(name: str, one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
        total = [sum(cost["prompt"] for cost in one)]
        total += [sum(cost["computed"] for cost in costs) for costs in (one, other)]
        ttft = [statistics.median(cost["ttft"] for cost in costs) for costs in (one, other)]
        print(f"| {name} | {total[0]:,} | {total[1]:,} | {total[2]:,} | {ttft[1] / ttft[0]:.2f} |")

    for step in range(options.steps):
        mark = " (restarted)" if step == options.restart_after else ""
        row(f"{step + 1}{mark}", without[step], with_store[step])
    everything = [[cost for costs in arm for cost in costs] for arm in (without, with_store)]
    row("all", *everything)
    computed = [sum(cost["computed"] for cost in arm) for arm in everything]
    print(f"\nPrompt tokens computed: {computed[1] / computed[0]:.2f} × of those without the store.")


if __name__ == "__main__":
    main()
