"""What a store saves a small agent workload after a restart, beside the engine alone and LMCache.

    PYTHONPATH=... python restart_workload.py [--models full,sliding,recurrent] [--arms alone,kvstore,lmcache] [--rounds 3]
        [--cores 0] [--sessions 2] [--steps 5] [--restart-after 3] [--json FILE]

A real vLLM on CPU with a small model of random weights runs the same conversations in each arm, with vLLM's own prefix cache
on in all of them; the arms take turns, in another order each round. Each session starts with the same 512 tokens; a step
appends 1,200 tokens (a tool's output) and an answer of 64. The engine, and LMCache's server, is stopped and started again in the
middle. Prints a table for the docs: how many tokens the engine says that its KV cache has room for; then of the steps before the
restart, of the first step after it, and of those that follow: the prompt tokens that were computed, and the sum of the times to
first token divided by that of the engine alone in the same round, the median of the rounds and their range. A model that an arm
cannot run has a line that says so. All arms compute on the same --cores ("0,1": two threads). Left alone, vLLM keeps one core
free, and one more where there is a connector; and none where that leaves nothing, so that an engine alone would compute on one
of two cores, and one with a connector on both. LMCache stores in files of its own (its `fs` adapter). On a CPU it transfers one
group of KV cache only, so that with it the model with windows runs without vLLM's hybrid KV cache manager.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "vllm"))

from engine import Engine  # noqa: E402
from tiny_model import write_model  # noqa: E402

SHARED_TOKENS, STEP_TOKENS, ANSWER_TOKENS, GENERATED_TOKENS = 512, 1200, 64, 16
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("llama", {}),
    "sliding": ("gemma3", {}),
    "recurrent": ("qwen3-next", {"block_size": 256}),
}
LENGTH_MAX = 8192
FOR_LMCACHE: dict[str, dict[str, Any]] = {"sliding": {"disable_hybrid_kv_cache_manager": True}}
CHUNK_TOKENS = 256
"""LMCache's unit; its default."""


def tokens(seed: object, count: int) -> list[int]:
    generator = random.Random(str(seed))
    return [generator.randrange(3, 4096) for _ in range(count)]


def write(folder: Path, kind: str) -> None:
    if kind == "llama":
        write_model(folder, seed=1)
    else:
        script = Path(__file__).resolve().parent.parent / "tests/vllm/mixed_models.py"
        subprocess.run([sys.executable, str(script), kind, str(folder)], check=True, capture_output=True)


@contextlib.contextmanager
def connector(arm: str, work: Path) -> Iterator[dict[str, Any] | None]:
    """The settings of the engine's connector, with the server that it talks to."""
    if arm == "alone":
        yield None
    elif arm == "kvstore":
        yield {"path": str(work / "store"), "disk_bytes": "2GiB"}
    else:
        with lmcache_server(work) as port:
            extra = {"lmcache.mp.host": "tcp://127.0.0.1", "lmcache.mp.port": port, "lmcache.mp.save_decode_cache": True}
            module = "lmcache.integration.vllm.lmcache_mp_connector"
            yield {
                "connector": {
                    "kv_connector": "LMCacheMPConnector",
                    "kv_connector_module_path": module,
                    "kv_connector_extra_config": extra,
                }
            }


@contextlib.contextmanager
def lmcache_server(work: Path) -> Iterator[int]:
    with socket.socket() as free, socket.socket() as web:
        free.bind(("127.0.0.1", 0))
        web.bind(("127.0.0.1", 0))
        port, http = free.getsockname()[1], web.getsockname()[1]
    (work / "lmcache").mkdir(exist_ok=True)
    adapter = json.dumps({"type": "fs", "base_path": str(work / "lmcache")})
    words = [sys.executable, "-c", "from lmcache.cli.main import main; main()", "server", "--host", "127.0.0.1"]
    words += ["--port", str(port), "--http-port", str(http), "--disable-observability", "--eviction-policy", "LRU"]
    words += ["--l1-size-gb", "1", "--l1-init-size-gb", "1", "--chunk-size", str(CHUNK_TOKENS)]
    words += ["--supported-transfer-mode", "auto", "--l2-adapter", adapter]
    with (work / "lmcache.log").open("ab") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError((work / "lmcache.log").read_text()[-2000:]) from None
                time.sleep(0.3)
        yield port
        # What goes to its second level does so behind the answers.
        time.sleep(5)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run(arm: str, model: Path, work: Path, engine: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Runs the workload; returns for each step what each session's request cost, and the room for KV."""
    work.mkdir()
    room = ""
    prompts = [tokens("shared", SHARED_TOKENS) for _ in range(options.sessions)]
    steps: list[list[dict[str, Any]]] = []
    for part in (range(options.restart_after), range(options.restart_after, options.steps)):
        with connector(arm, work) as settings, Engine(model, settings, work / "log", max_model_len=LENGTH_MAX, **engine) as running:
            without = re.search(r"kvstore: (running without the store: .*)", running.said())
            assert not without, f"Error: {without[1]}"
            room = re.findall(r"[CG]PU KV cache size: ([\d,]+) tokens", running.said())[-1]
            # The first requests of a process compile kernels: none that counts. One is new, and one comes back from the store.
            running.generate(tokens(f"warm-up {part}", 1500), tokens=4)
            running.generate(tokens("warm-up", 700), tokens=4)
            for step in part:
                costs = []
                for session, prompt in enumerate(prompts):
                    prompt += tokens(f"{session} {step}", STEP_TOKENS)
                    answer = running.generate(prompt, tokens=GENERATED_TOKENS)[0]
                    computed = len(prompt) - answer["cached"]
                    costs.append({"prompt": len(prompt), "computed": computed, "ttft": answer["first_token_seconds"]})
                    # All arms see the same conversation, whatever was generated.
                    prompt += tokens(f"{session} {step} answer", ANSWER_TOKENS)
                steps.append(costs)
    return {"steps": steps, "room": room, "load": os.getloadavg()[0]}


def total(steps: list[list[dict[str, Any]]], what: str) -> float:
    return float(sum(cost[what] for costs in steps for cost in costs))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default="full,sliding,recurrent")
    parser.add_argument("--arms", default="alone,kvstore,lmcache")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", default="0")
    parser.add_argument("--sessions", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--restart-after", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = options.cores
    arms = options.arms.split(",")
    results: dict[str, dict[str, list[Any]]] = {name: {arm: [] for arm in arms} for name in options.models.split(",")}
    refused: dict[tuple[str, str], str] = {}
    with tempfile.TemporaryDirectory(prefix="kvstore-agent-") as folder:
        work = Path(folder)
        for name in results:
            write(work / name, MODELS[name][0])
        for index in range(options.rounds):
            for name, of_arms in results.items():
                for arm in arms[index % len(arms) :] + arms[: index % len(arms)]:
                    if (name, arm) in refused:
                        continue
                    try:
                        place = work / f"{name}-{arm}-{index}"
                        engine = MODELS[name][1] | (FOR_LMCACHE.get(name, {}) if arm == "lmcache" else {})
                        of_arms[arm].append(run(arm, work / name, place, engine, options))
                    except AssertionError as reason:
                        lines = [line for line in str(reason).splitlines() if "Error" in line]
                        # The first one is the cause; those behind it say that the engine did not start.
                        refused[name, arm] = lines[0] if lines else str(reason).splitlines()[-1]
                    print(f"{name}, round {index + 1}: {arm}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
                    if options.json:
                        options.json.write_text(json.dumps(results))

    after = options.restart_after
    parts = {"before": slice(0, after), "first": slice(after, after + 1), "later": slice(after + 1, None)}
    print("| model | | room, tokens | " + " | ".join(f"{what} {part}" for what in ("computed", "TTFT") for part in parts) + " |")
    print("|---" * (3 + 2 * len(parts)) + "|")
    for name, of_arms in results.items():
        for arm, rounds in of_arms.items():
            if (name, arm) in refused or not rounds:
                print(f"| {name} | {arm} | {refused.get((name, arm), 'not run')} |" + " |" * 2 * len(parts))
                continue
            words = [name, arm, rounds[0]["room"]]
            words += [f"{total(rounds[0]['steps'][part], 'computed'):,.0f}" for part in parts.values()]
            for part in parts.values():
                pairs = zip(rounds, of_arms.get("alone", []), strict=False)
                ratios = [total(one["steps"][part], "ttft") / (total(other["steps"][part], "ttft") or 1) for one, other in pairs]
                words.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})" if ratios else "")
            print("| " + " | ".join(words) + " |")


if __name__ == "__main__":
    main()
