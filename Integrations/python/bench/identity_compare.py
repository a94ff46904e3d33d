"""What vLLM finds in a store once something has changed, with kvstore and with LMCache: right, wrong, or nothing.

    python identity_compare.py [--lmcache] FOLDER [CASE...]

Prints a line for each case: what was changed between storing and asking again, the tokens that came from the store, and
whether what vLLM then generated is what it generates without a store. docs/identity.md has the results and how
LMCache is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/vllm"))

from host import Host, Refused  # noqa: E402
from tiny_model import write_adapter, write_longrope_model, write_model  # noqa: E402

BLOCK = 128
LENGTH = 3 * BLOCK + 16


def tokens(seed: str) -> list[int]:
    generator = random.Random(seed)
    return [generator.randrange(3, 4096) for _ in range(LENGTH)]


@dataclass
class Case:
    """Something that changes between an engine that stores and one that looks up."""

    what: str
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    write: Callable[..., None] = write_model
    # What is done to the model's files in between.
    change: Callable[[Path], Any] | None = None
    # More of what is asked with: an adapter, a salt.
    asked: dict[str, Any] = field(default_factory=dict)
    asked_after: dict[str, Any] | None = None
    # Before something is stored, and, where it is one running engine that changes, after that.
    warm: list[dict[str, Any]] = field(default_factory=list)
    running: list[dict[str, Any]] = field(default_factory=list)


def cases(folder: Path) -> dict[str, Case]:
    """All of them. The folder has the model, other weights and an adapter, new ones for each case."""
    lora = {"enable_lora": True, "max_lora_rank": 16}
    adapter = {"adapter": {"lora_name": "a", "lora_int_id": 1, "lora_path": str(folder / "adapter")}}
    theta = {"rope_theta": 50000.0, "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0}}
    draft = {"method": "draft_model", "model": str(folder / "two"), "num_speculative_tokens": 2}

    def edit(model: Path) -> None:
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.1}))

    def exchange(model: Path) -> None:
        # As `cp -p` of another checkpoint of the same shape: size and time are those of before.
        file = model / "model.safetensors"
        was = file.stat()
        write_model(model, seed=2)
        os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))

    def other_adapter(_: Path) -> None:
        write_adapter(folder / "adapter", seed=2)

    return {
        "nothing": Case("nothing"),
        "longrope": Case(
            "LongRoPE, `--max-model-len` 2048, then 4096",
            {"max_model_len": 2048},
            {"max_model_len": 4096},
            write=write_longrope_model,
        ),
        "overrides": Case("`--hf-overrides` with another `rope_theta`", {}, {"hf_overrides": theta}),
        "config": Case("`rms_norm_eps` edited in `config.json`", change=edit),
        "weights": Case("other weights under the same path", change=lambda model: write_model(model, seed=2)),
        "weights-time": Case("other weights, size and time as before", change=exchange),
        "dtype": Case("`--dtype` bfloat16, then float16", {}, {"dtype": "float16"}),
        "kv-dtype": Case("`--kv-cache-dtype` auto, then fp8", {}, {"kv_cache_dtype": "fp8"}),
        "reload": Case(
            "`reload_weights` in the running engine",
            running=[{"what": "rpc", "method": "reload_weights", "weights_path": str(folder / "two")}],
        ),
        "lora-base": Case("asked with an adapter, then without", lora, lora, asked=adapter, asked_after={}),
        "lora-content": Case("an adapter's files replaced", lora, lora, change=other_adapter, asked=adapter),
        "lora-scale": Case(
            "an adapter's `lora_alpha` changed",
            lora,
            lora,
            change=lambda _: write_adapter(folder / "adapter", seed=1, alpha=64),
            asked=adapter,
        ),
        "lora-running": Case(
            "an adapter's files replaced under the engine that stores",
            lora,
            lora,
            asked=adapter,
            warm=[
                {"what": "generate", "prompt": tokens("warm"), **adapter},
                {"what": "write_adapter", "folder": str(folder / "adapter"), "seed": 2},
            ],
        ),
        "draft": Case("a draft model added", {}, {"speculative_config": draft}),
        "salt": Case("`cache_salt` of another tenant", asked={"salt": "one"}, asked_after={"salt": "two"}),
    }


def outcome(host: Host, store: dict[str, Any], folder: Path, name: str) -> str:
    """What became of one case, in words."""
    case = cases(folder)[name]
    model = folder / "model"
    shutil.rmtree(folder, ignore_errors=True)
    case.write(model, seed=1)
    write_model(folder / "two", seed=2)
    write_adapter(folder / "adapter", seed=1)
    # What is changed while an engine starts cannot be told.
    time.sleep(0.3)
    ask = {"what": "generate", "prompt": tokens(name)}
    first = {**ask, **case.asked}
    last = {**ask, **(case.asked if case.asked_after is None else case.asked_after)}
    # What is being saved ends with a step. vLLM's own cache is emptied: it is the store that is asked for.
    settle = [{"what": "generate", "prompt": tokens("other")[:8]}, {"what": "wait", "seconds": 2.0}, {"what": "reset"}]

    def run(with_store: bool, options: dict[str, Any], *calls: dict[str, Any]) -> list[Any]:
        options = {"num_gpu_blocks_override": 48, **options}
        return host.call("steps", model=str(model), store=store if with_store else None, calls=calls, options=options)

    storing = [*case.warm, first, *settle, first, *settle]
    if case.running:
        told = run(True, case.before, *storing, *case.running, {"what": "reset"}, last)
        truth = run(False, case.before, *case.running, last)[-1]
    else:
        told = run(True, case.before, *storing)
        if case.change:
            case.change(model)
            time.sleep(0.3)
        told += run(True, case.after, last)
        truth = run(False, case.after, last)[0]
    stored, found = told[len(case.warm) + 1 + len(settle)], told[-1]
    if found["cached"] == 0:
        return f"nothing ({stored['cached']} before the change)"
    near = found["tokens"] == truth["tokens"]
    return f"{found['cached']} tokens, {'right' if near else 'WRONG'} ({stored['cached']} before the change)"


@contextlib.contextmanager
def lmcache(folder: Path) -> Iterator[dict[str, Any]]:
    """An LMCache server with a folder on disk behind it, and what vLLM needs to be told of it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    files = folder / "lmcache"
    files.mkdir(parents=True)
    command = [sys.executable, "-m", "lmcache.v1.multiprocess.server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--chunk-size", str(BLOCK), "--l1-size-gb", "1", "--l1-init-size-gb", "1", "--eviction-policy", "LRU"]
    command += ["--supported-transfer-mode", "auto"]
    command += ["--l2-adapter", json.dumps({"type": "fs", "base_path": str(files)})]
    with (folder / "lmcache.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            time.sleep(15)
            yield {
                "kv_connector": "LMCacheMPConnector",
                "kv_connector_module_path": "lmcache.integration.vllm.lmcache_mp_connector",
                "kv_role": "kv_both",
                "kv_connector_extra_config": {"lmcache.mp.host": "tcp://127.0.0.1", "lmcache.mp.port": port},
            }
        finally:
            server.terminate()
            server.wait(60)


@contextlib.contextmanager
def kvstore(folder: Path) -> Iterator[dict[str, Any]]:
    yield {"path": str(folder / "store"), "disk_bytes": "1GiB", "host_bytes": "32MiB"}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lmcache", action="store_true")
    parser.add_argument("folder", type=Path, help="for models, stores and logs; is made anew")
    parser.add_argument("cases", nargs="*")
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    options.folder.mkdir(parents=True)
    host = Host(options.folder / "log", fork=True)
    try:
        with (lmcache if options.lmcache else kvstore)(options.folder) as store:
            for name, case in cases(options.folder / "files").items():
                if options.cases and name not in options.cases:
                    continue
                try:
                    came = outcome(host, store, options.folder / "files", name)
                except Refused as reason:
                    came = f"refused: {str(reason)[:150]}"
                print(f"{name} | {case.what} | {came}", flush=True)
    finally:
        host.close()


if __name__ == "__main__":
    main()
