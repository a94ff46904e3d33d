"""A whole SGLang in a process of its own, on CPU, told by lines of JSON what to generate."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ANSWER = "@answer "

CPU: dict[str, Any] = {
    "device": "cpu",
    "attention_backend": "torch_native",
    "sampling_backend": "pytorch",
    "disable_overlap_schedule": True,
    "disable_cuda_graph": True,
    "max_total_tokens": 4096,
    "mem_fraction_static": 0.3,
    "dtype": "bfloat16",
    "context_length": 4096,
    "page_size": 64,
}
"""What SGLang needs to run without a GPU, and with little memory."""


def environment() -> dict[str, str]:
    """Of a process that SGLang runs in on a CPU."""
    paths = [str(Path(__file__).parent / "cpu"), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    tools = os.pathsep.join(path + "/bin" for path in paths)
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PATH": tools + os.pathsep + os.environ["PATH"],
        "HF_HUB_OFFLINE": "1",
        "KVSTORE_SGLANG_CPU": "1",
        "SGLANG_USE_CPU_ENGINE": "1",
    }


class Engine:
    """The tests' end of it."""

    def __init__(
        self,
        model: Path,
        storage: dict[str, Any] | None,
        log: Path,
        *,
        variables: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        self.log = log
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, __file__, json.dumps({"model": str(model), "storage": storage, "options": options})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
            env={**environment(), **(variables or {})},
        )
        self._answer()

    def generate(
        self,
        prompt: list[int],
        *,
        salt: str | None = None,
        adapter: str | None = None,
        session: str | None = None,
        hints: dict[str, Any] | None = None,
        count: int = 8,
    ) -> dict[str, Any]:
        """So many tokens, and how many of the prompt's came from a cache."""
        named: dict[str, Any] = {"cache_salt": salt, "lora_path": adapter, "session_id": session}
        if hints is not None:
            action = {"action_id": "1", "action_type": "kvstore", "action_version": "1", "payload": hints}
            other = {"action_id": "2", "action_type": "another", "action_version": "1", "payload": {"end": True}}
            named["kv_hints"] = {"protocol_version": "1", "message_id": "1", "actions": [other, action]}
        named = {key: value for key, value in named.items() if value}
        return self._call("generate", prompt=prompt, named=named, count=count)

    def close_session(self, session: str) -> None:
        """What a client says when a conversation is over."""
        self._call("close", session=session)

    def flush(self) -> None:
        """Empties SGLang's own caches on device and host."""
        self._call("flush")

    def update_weights(self, folder: Path) -> None:
        """Other weights for the running engine, which may keep what it has cached of the old ones."""
        self._call("update", folder=str(folder))

    def close(self) -> None:
        """Ends the engine in order."""
        if self._process.poll() is None:
            assert self._process.stdin
            self._process.stdin.close()
            try:
                self._log.write(self._process.stdout.read())  # type: ignore[union-attr]
                self._process.wait(120)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._log.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def said(self) -> str:
        """Everything that the engine has written."""
        return self.log.read_text(errors="replace")

    def _call(self, what: str, **arguments: Any) -> Any:
        assert self._process.stdin
        self._process.stdin.write((json.dumps({"what": what, **arguments}) + "\n").encode())
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout
        while line := self._process.stdout.readline():
            self._log.write(line)
            self._log.flush()
            text = line.decode(errors="replace")
            if text.startswith(ANSWER):
                return json.loads(text.removeprefix(ANSWER))
        self._process.wait(60)
        raise AssertionError("the engine ended:\n" + "\n".join(self.said().splitlines()[-60:]))


def main() -> None:
    from sglang.srt.entrypoints.engine import Engine as SGLang

    settings = json.loads(sys.argv[1])
    storage: dict[str, Any] = {}
    if settings["storage"]:
        storage = {
            "enable_hierarchical_cache": True,
            "hicache_ratio": 2.0,
            "hicache_mem_layout": "page_first_direct",
            "hicache_io_backend": "direct",
            "hicache_storage_prefetch_policy": "wait_complete",
            "hicache_storage_backend": "dynamic",
            "hicache_storage_backend_extra_config": json.dumps(settings["storage"]),
        }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    engine = SGLang(
        **{
            "model_path": settings["model"],
            "skip_tokenizer_init": True,
            "host": "127.0.0.1",
            "port": port,
            "log_level": "info",
            **CPU,
            **storage,
            **settings["options"],
        }
    )

    def answer(value: Any) -> None:
        print("\n" + ANSWER + json.dumps(value), flush=True)

    answer("started")
    for line in sys.stdin:
        call = json.loads(line)
        if call["what"] == "update":
            answer(bool(engine.update_weights_from_disk(call["folder"])[0]))
            continue
        if call["what"] == "flush":
            engine.flush_cache()
            answer(None)
            continue
        if call["what"] == "close":
            engine.close_session(call["session"])
            answer(None)
            continue
        before = time.monotonic()
        made = engine.generate(
            input_ids=call["prompt"],
            sampling_params={"max_new_tokens": call["count"], "temperature": 0, "ignore_eos": True},
            return_logprob=True,
            **call["named"],
        )
        about = made["meta_info"]
        answer(
            {
                "cached": about["cached_tokens"],
                "seconds": time.monotonic() - before,
                "tokens": made["output_ids"],
                "logprobs": [float(step[0]).hex() for step in about["output_token_logprobs"]],
            }
        )
    engine.shutdown()


if __name__ == "__main__":
    main()
