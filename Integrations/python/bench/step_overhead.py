"""What the connector costs an engine in which nothing hits: a real vLLM with it and one without, request by request.

    PYTHONPATH=... python step_overhead.py [--model llama|gemma3|gpt-oss|qwen3-next] [--pairs 30] [--requests 3]
        [--cores 0] [--offload none|prompt|all] [--tokens 32] [--prompt-tokens 1024] [--control] [--json FILE]

Both engines run at the same time, and only one of them has requests: each prompt is new, and both get the same ones, one after
the other, which of the engines first is left to chance. In its turn an engine answers --requests prompts without a pause, so
that what it saves of one is saved beside the next; between the turns there is one. Prints the ratio of the times with ÷ without:
of the whole turn (the prompts and each generated token) and to the first tokens; the median of the pairs, their quartiles, and
how sure the median is (a bootstrap's middle 95 %). As a control, two engines without the connector are compared by the same rule
with --control. With --offload none nothing is stored, so that what is left is the look-up and the bookkeeping of each step.
Both compute on the same --cores: left alone, vLLM keeps one more core free where there is a connector.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "vllm"))

from restart_workload import tokens, write  # noqa: E402
from engine import Engine  # noqa: E402

PAUSE_SECONDS = 0.2
"""Between turns: what one has saved is written by then."""

OPTIONS: dict[str, dict[str, Any]] = {"qwen3-next": {"block_size": 256}}


def described(ratios: list[float]) -> str:
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(2000))
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.4f}, quartiles {low:.4f}–{high:.4f}, median between {medians[50]:.4f} and {medians[-51]:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="llama")
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--requests", type=int, default=3)
    parser.add_argument("--cores", default="0")
    parser.add_argument("--offload", default="all")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--prompt-tokens", type=int, default=1024)
    parser.add_argument("--control", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = options.cores
    chance = random.Random(1)
    pairs: list[dict[str, Any]] = []
    engine = OPTIONS.get(options.model, {})
    with tempfile.TemporaryDirectory(prefix="kvstore-step-") as folder:
        work = Path(folder)
        write(work / "model", options.model)
        store = {"path": str(work / "store"), "disk_bytes": "4GiB", "offload": options.offload}
        with (
            Engine(work / "model", None, work / "without", **engine) as without,
            Engine(work / "model", None if options.control else store, work / "with", **engine) as with_store,
        ):
            for index in range(-2, options.pairs):
                prompts = [tokens(f"pair {index} {number}", options.prompt_tokens) for number in range(options.requests)]
                pair: dict[str, Any] = {"load": os.getloadavg()[0]}
                order = [("without", without), ("with", with_store)]
                chance.shuffle(order)
                for name, running in order:
                    time.sleep(PAUSE_SECONDS)
                    answers = [running.generate(prompt, tokens=options.tokens)[0] for prompt in prompts]
                    assert not any(answer["cached"] for answer in answers)
                    pair[name] = {
                        "seconds": sum(answer["seconds"] for answer in answers),
                        "ttft": sum(answer["first_token_seconds"] for answer in answers),
                    }
                # The first ones of a process compile kernels.
                if index >= 0:
                    pairs.append(pair)
    if options.json:
        options.json.write_text(json.dumps({"options": {**vars(options), "json": None}, "pairs": pairs}))
    loads = [pair["load"] for pair in pairs]
    print(f"{options.model}, cores {options.cores}, offload {options.offload}, {len(pairs)} pairs, load {min(loads):.1f} to {max(loads):.1f}")
    for name, what in (("requests", "seconds"), ("first tokens", "ttft")):
        print(f"{name}: {described([pair['with'][what] / pair['without'][what] for pair in pairs])}")


if __name__ == "__main__":
    main()
