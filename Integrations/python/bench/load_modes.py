"""How long a request waits for a stored prefix in each way of loading: a real vLLM for each, request by request.

    PYTHONPATH=... python load_modes.py [--modes async,sync,layerwise] [--rounds 10] [--layers 16] [--tokens 3900] [--cores 0]
        [--before FOLDER] [--json FILE]

An engine fills a store. Then one for each mode reads from it, all at the same time, and only one of them has a request: in each
round each gets the same prompt, after its own prefix cache was emptied, in an order left to chance. Prints the time to first
token divided by that of the first mode in the same round: the median and the quartiles. --before: a folder with another version
of the package, installed, which is measured beside in each mode. All compute on the same --cores.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "vllm"))

import tiny_model  # noqa: E402
from engine import Engine  # noqa: E402
from restart_workload import tokens  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--modes", default="async,sync,layerwise")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=3900)
    parser.add_argument("--cores", default="0")
    parser.add_argument("--before", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = options.cores
    tiny_model.LAYERS = options.layers
    tiny_model.CONFIG["num_hidden_layers"] = options.layers
    paths = {"": os.environ.get("PYTHONPATH", "")}
    if options.before:
        paths[" before"] = f"{options.before}:{paths['']}"
    prompts = [tokens(f"prompt {index}", options.tokens) for index in range(4)]
    chance = random.Random(1)
    rounds: list[dict[str, float]] = []
    loads = []
    with tempfile.TemporaryDirectory(prefix="kvstore-load-") as folder, ExitStack() as stack:
        work = Path(folder)
        tiny_model.write_model(work / "model", seed=1)
        # With the memory of a few blocks: what is read comes from the disk.
        store: dict[str, Any] = {"path": str(work / "store"), "disk_bytes": "4GiB", "host_bytes": "64MiB"}
        with Engine(work / "model", store, work / "log", max_model_len=8192) as engine:
            for prompt in prompts:
                engine.generate(prompt, tokens=1)
        engines = {}
        for mode in options.modes.split(","):
            for name, path in paths.items():
                os.environ["PYTHONPATH"] = path
                engines[mode + name] = stack.enter_context(
                    Engine(work / "model", {**store, "load": mode, "read_only": True}, work / f"log {mode}{name}", max_model_len=8192)
                )
        for index in range(-2, options.rounds):
            order = list(engines)
            chance.shuffle(order)
            found = {}
            for name in order:
                engines[name].reset_prefix_cache()
                answer = engines[name].generate(prompts[index % len(prompts)], tokens=1)[0]
                assert answer["cached"] == (options.tokens - 1) // 128 * 128, (name, answer)
                found[name] = answer["first_token_seconds"]
            loads.append(os.getloadavg()[0])
            # The first ones of a process compile kernels.
            if index >= 0:
                rounds.append(found)
    if options.json:
        options.json.write_text(json.dumps({"rounds": rounds, "loads": loads}))
    print(f"{options.layers} layers, {options.tokens} tokens, {len(rounds)} rounds, load {min(loads):.1f} to {max(loads):.1f}")
    first = next(iter(engines))
    for name in engines:
        low, middle, high = statistics.quantiles([found[name] / found[first] for found in rounds], n=4)
        print(f"{name}: {statistics.median(found[name] for found in rounds):.3f} s, ÷ {first} {middle:.2f} ({low:.2f}–{high:.2f})")


if __name__ == "__main__":
    main()
