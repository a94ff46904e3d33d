"""What a store saves after a restart: tokens computed and time to first token, with and without it, in SGLang or llama-cpp-python.

    PYTHONPATH=... python restart.py {sglang | llama} [--models KIND...] [--prompts 5] [--tokens 2000] [--json FILE]

A real engine on CPU. For each kind of model an engine with a store computes the prompts and ends. Then two engines are started,
one with that store and one without, and get the prompts in turn, so that whatever else the machine does meets both; who comes
first alternates. The time is that of one token more than the prompt, on the client's side. Prints a table for the docs, with
the machine's load, and what room each engine says that it has.
Models have random weights, but for "gemma3-270m" (KVSTORE_LLAMA_MODEL, see Scripts/setup-llama).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent / "tests"
KINDS = {"sglang": ["llama", "gemma3"], "llama": ["llama", "gemma3-270m", "lfm2", "granitehybrid", "mamba"]}
CONTEXT = 4096


def tokens(seed: object, count: int, below: int) -> list[int]:
    generator = random.Random(str(seed))
    return [generator.randrange(3, below) for _ in range(count)]


# ---------------------------------------------------------------- engines


class SGLang:
    """A whole engine, without its GPU kernels."""

    vocabulary = 4096

    def __init__(self, model: Path, store: Path | None, log: Path) -> None:
        from engine import Engine

        storage = {
            "backend_name": "kvstore",
            "module_path": "kvstore.sglang",
            "class_name": "KVStoreHiCache",
            "interface_v1": 1,
            "hicache_storage_pass_prefix_keys": True,
            "path": str(store),
            "disk_bytes": "2GiB",
            "host_bytes": "256MiB",
            "model_path": str(model),
        }
        self._engine = Engine(model, storage if store else None, log, max_total_tokens=2 * CONTEXT)

    @staticmethod
    def write_model(folder: Path, kind: str) -> Path:
        if kind == "llama":
            from tiny_model import write_model

            write_model(folder / kind, seed=1)
        else:
            from mixed_models import write_mixed_model

            write_mixed_model(folder / kind, kind)
        return folder / kind

    def ask(self, prompt: list[int]) -> tuple[int, float]:
        answer = self._engine.generate(prompt, count=1)
        return len(prompt) - answer["cached"], answer["seconds"]

    def room(self) -> str:
        """The tokens of KV that it has room for."""
        found = re.findall(r"max_total_num_tokens=(\d+)", self._engine.said())
        return f"{found[-1]} tokens" if found else "?"

    def close(self) -> None:
        # What was computed last is stored behind the answer.
        time.sleep(3)
        self._engine.close()


class Llama:
    """llama-cpp-python in a process of its own: this file, told by lines of JSON."""

    vocabulary = 500

    def __init__(self, model: Path, store: Path | None, log: Path) -> None:
        self._log = log
        self._process = subprocess.Popen(
            [sys.executable, __file__, "child", str(model), str(store or "-")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("ab"),
            text=True,
        )
        assert self._line() == "started"

    @staticmethod
    def write_model(folder: Path, kind: str) -> Path:
        if kind == "gemma3-270m":
            return Path(os.environ["KVSTORE_LLAMA_MODEL"])
        import gguf

        # Larger than the tests' models, so that computing takes time.
        gguf.EMBEDDING, gguf.FEED_FORWARD, gguf.LAYERS = 512, 2048, 6
        path: Path = gguf.write_kind(folder / f"{kind}.gguf", kind)
        return path

    def ask(self, prompt: list[int]) -> tuple[int, float]:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(prompt) + "\n")
        self._process.stdin.flush()
        computed, seconds = json.loads(self._line())
        return int(computed), float(seconds)

    def room(self) -> str:
        """What its caches take in memory."""
        sizes = re.findall(r"(KV|RS) buffer size =\s*([\d.]+) MiB", self._log.read_text(errors="replace"))
        return f"{sum(float(size) for _, size in sizes):.0f} MiB"

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(120)

    def _line(self) -> str:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith("@"):
                return line[1:].strip()
        raise AssertionError(self._log.read_text(errors="replace")[-3000:])


def child(model: str, store: str) -> None:
    import llama_cpp

    import kvstore
    import kvstore.llama_cpp as adapter

    if store != "-":
        adapter.allow_block_copies()
    llama = llama_cpp.Llama(model, n_ctx=CONTEXT, n_threads=2, n_threads_batch=2, verbose=True, seed=1)
    opened = None
    if store != "-":
        opened = kvstore.Store(store, capacity="2GiB", host="256MiB")
        llama.set_cache(adapter.KVStoreCache(llama, model, opened))
    inner, evaluated = llama.eval, 0

    def count(batch: Any) -> None:
        nonlocal evaluated
        evaluated += len(batch)
        inner(batch)

    llama.eval = count
    print("@started", flush=True)
    for line in sys.stdin:
        evaluated, before = 0, time.monotonic()
        answer = llama.create_completion(json.loads(line), max_tokens=1, temperature=0, stream=True)
        next(iter(answer))
        seconds = time.monotonic() - before
        computed = evaluated
        for _ in answer:
            pass
        print("@" + json.dumps([computed, seconds]), flush=True)
    if opened is not None:
        opened.close()


# ---------------------------------------------------------------- measuring


def measure(engine: Any, kind: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    model = engine.write_model(folder, kind)
    prompts = [tokens(f"{kind} {index}", options.tokens, engine.vocabulary) for index in range(options.prompts)]
    store = folder / f"store-{kind}"
    first = engine(model, store, folder / f"first-{kind}")
    for prompt in prompts:
        first.ask(prompt)
    first.close()
    arms = {"without": engine(model, None, folder / f"without-{kind}"), "with": engine(model, store, folder / f"with-{kind}")}
    load = [os.getloadavg()[0]]
    for arm in arms.values():
        # The first request of a process compiles and allocates: none that counts.
        arm.ask(tokens("warm-up", 300, engine.vocabulary))
    seen: dict[str, list[tuple[int, float]]] = {name: [] for name in arms}
    for index, prompt in enumerate(prompts):
        for name in sorted(arms, reverse=index % 2 == 0):
            seen[name].append(arms[name].ask(prompt))
    load.append(os.getloadavg()[0])
    room = {name: arm.room() for name, arm in arms.items()}
    for arm in arms.values():
        arm.close()
    return {"kind": kind, "prompt": options.tokens, "seen": seen, "room": room, "load": load}


def row(result: dict[str, Any]) -> str:
    cells = [result["kind"]]
    for name in ("without", "with"):
        cells.append(f"{statistics.median(computed for computed, _ in result['seen'][name]):.0f}")
    for name in ("without", "with"):
        times = [seconds * 1000 for _, seconds in result["seen"][name]]
        cells.append(f"{statistics.median(times):.0f} ms ({min(times):.0f}–{max(times):.0f})")
    pairs = zip(result["seen"]["with"], result["seen"]["without"], strict=True)
    ratios = [one[1] / other[1] for one, other in pairs]
    cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})")
    cells += [result["room"]["without"], result["room"]["with"], "–".join(f"{value:.0f}" for value in result["load"])]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    if sys.argv[1:2] == ["child"]:
        child(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=KINDS)
    parser.add_argument("--models", nargs="*")
    parser.add_argument("--prompts", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sys.path[:0] = [str(TESTS / part) for part in ("sglang", "vllm", "llama")]
    if options.engine == "sglang":
        # Both parts of the tests have a module of that name.
        sys.path.remove(str(TESTS / "llama"))
    results = []
    print("| model | computed, without | with | first token, without | with | with ÷ without | room, without | with | load |")
    print("|---|---|---|---|---|---|---|---|---|")
    for kind in options.models or KINDS[options.engine]:
        with tempfile.TemporaryDirectory(prefix="kvstore-restart") as folder:
            results.append(measure(SGLang if options.engine == "sglang" else Llama, kind, options, Path(folder)))
        print(row(results[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
