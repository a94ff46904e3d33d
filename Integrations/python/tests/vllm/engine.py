"""A vLLM engine in a process of its own, told by lines of JSON what to do.

As a program it is that process; `Engine` starts it and talks to it.
"""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

COMMAND = Path(os.environ.get("KVSTORE_PREFIX") or Path(__file__).resolve().parents[4] / ".build-install") / "bin/kvstore"
ANSWER = "@answer "
START_SECONDS = 600
CALL_SECONDS = 300


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether it comes to hold in that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def ask(*words: object) -> Any:
    """What the command answers, beside the engine."""
    said = subprocess.run([COMMAND, *map(str, words), "--json"], capture_output=True, text=True, check=True)
    return json.loads(said.stdout)


def stats(path: Path) -> dict[str, Any]:
    """The counters of a store, asked for beside the engine."""
    import kvstore

    with kvstore.Store(path, capacity="512MiB", host="32MiB") as outside:
        return outside.stats()


def found_damaged(path: Path) -> int:
    """Blocks and states of a store that were found damaged, by its own events."""
    import kvstore

    with kvstore.Store(path, capacity="512MiB", host="32MiB") as outside:
        return sum(event.block_count for event in outside.events(limit=65_536).events if event.reason == "corrupt")


class Engine:
    """A running engine; the tests' end of it."""

    def __init__(self, model: Path, store: dict[str, Any] | None, log: Path, **options: Any) -> None:
        self.log = log
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, __file__, json.dumps({"model": str(model), "store": store, "options": options})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
            env={
                **os.environ,
                "HF_HUB_OFFLINE": "1",
                "VLLM_CPU_KVCACHE_SPACE": "1",
                "VLLM_NO_USAGE_STATS": "1",
                "VLLM_LOGGING_LEVEL": "INFO",
            },
        )
        self._answer(START_SECONDS)

    def generate(
        self, *prompts: list[int], salt: str | None = None, tokens: int = 8, hints: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Generates for all prompts at once; each answer has `cached`, `tokens` and `logprobs` as exact text."""
        return self._call("generate", prompts=list(prompts), salt=salt, tokens=tokens, hints=hints)

    def begin(self, *prompts: list[int]) -> None:
        """Starts to generate and does not wait for it."""
        self._send("generate", {"prompts": list(prompts), "salt": None, "tokens": 8})

    def together(self, prompts: list[list[int]], *, tokens: int, abort: dict[int, int]) -> list[dict[str, Any] | None]:
        """Generates for all at once; by the number of a prompt, `abort` has the steps after which it is aborted."""
        return self._call("together", prompts=prompts, tokens=tokens, abort=abort, salt=None)

    def again(self, prompt: list[int], cached: int, *, seconds: float = 60) -> dict[str, Any]:
        """The answer without vLLM's own cache, once so many tokens of the prompt come from the store: what was saved just now
        is found when it has been committed, and the scheduler has heard of it."""
        deadline = time.monotonic() + seconds
        while True:
            self.reset_prefix_cache()
            answer = self.generate(prompt)[0]
            if answer["cached"] == cached or time.monotonic() > deadline:
                return answer

    def reset_prefix_cache(self) -> None:
        """Empties vLLM's own cache, so that only the store can help; waits while blocks of it are being saved."""
        deadline = time.monotonic() + 30
        while self._call("reset") is not True:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def sleep(self, level: int) -> None:
        """Sleeps, and wakes up again. On a CPU vLLM does all of it but to give memory away."""
        self._call("sleep", level=level)

    def pool(self) -> int:
        """How many blocks vLLM has in all."""
        return self._call("pool")

    def worker_process(self) -> int:
        """The process id of the worker, which moves the blocks."""
        import psutil

        found = [
            child.pid
            for child in psutil.Process(self._process.pid).children(recursive=True)
            if "Worker" in " ".join(child.cmdline())
        ]
        assert len(found) == 1, found
        return found[0]

    def kill(self) -> None:
        """Ends every process of the engine at once, as a crash of the machine's out-of-memory killer would."""
        import psutil

        processes = [psutil.Process(self._process.pid), *psutil.Process(self._process.pid).children(recursive=True)]
        for process in processes:
            process.send_signal(signal.SIGKILL)
        psutil.wait_procs(processes, timeout=60)
        self._process.wait(60)

    def close(self) -> None:
        """Ends the engine in order."""
        if self._process.poll() is None:
            self._send("close", {})
            try:
                # Reads on meanwhile: the engine says how it ends.
                said, _ = self._process.communicate(timeout=120)
                self._log.write(said)
            except subprocess.TimeoutExpired:
                self.kill()
        self._log.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def said(self) -> str:
        """Everything that the engine has written."""
        return self.log.read_text(errors="replace")

    def counts(self) -> dict[str, Any]:
        """The counters of the worker that ended last."""
        found = re.findall(r"blocks durable, (\{.*\})", self.said())
        return dict(ast.literal_eval(found[-1]))

    def _call(self, what: str, **arguments: Any) -> Any:
        self._send(what, arguments)
        return self._answer(CALL_SECONDS)

    def _send(self, what: str, arguments: dict[str, Any]) -> None:
        assert self._process.stdin
        self._process.stdin.write((json.dumps({"what": what, **arguments}) + "\n").encode())
        self._process.stdin.flush()

    def _answer(self, seconds: float) -> Any:
        assert self._process.stdout
        alarm = time.monotonic() + seconds
        while time.monotonic() < alarm:
            line = self._process.stdout.readline()
            if not line:
                break
            self._log.write(line)
            self._log.flush()
            text = line.decode(errors="replace")
            if text.startswith(ANSWER):
                return json.loads(text.removeprefix(ANSWER))
        raise AssertionError("the engine ended or hung:\n" + "\n".join(self.said().splitlines()[-60:]))


def main() -> None:
    from vllm import LLM, SamplingParams
    from vllm.config import KVTransferConfig

    settings = json.loads(sys.argv[1])
    ours = {"kv_connector": "KVStoreConnector", "kv_connector_module_path": "kvstore.vllm"}
    if settings["store"]:
        # Another connector, if the settings are those of one.
        ours = settings["store"].get("connector") or {**ours, "kv_connector_extra_config": settings["store"]}
    transfer = settings["store"] and KVTransferConfig(kv_role="kv_both", **ours)
    llm = LLM(
        settings["model"],
        skip_tokenizer_init=True,
        enforce_eager=True,
        disable_log_stats=False,
        kv_transfer_config=transfer,
        **{"max_model_len": 4096, "dtype": "bfloat16", **settings["options"]},
    )

    def answer(value: Any) -> None:
        print("\n" + ANSWER + json.dumps(value), flush=True)

    answer("started")
    for line in sys.stdin:
        call = json.loads(line)
        if call["what"] == "close":
            break
        if call["what"] == "reset":
            answer(llm.reset_prefix_cache())
            continue
        if call["what"] == "sleep":
            llm.sleep(level=call["level"])
            llm.wake_up()
            answer("awake")
            continue
        if call["what"] == "pool":
            answer(llm.llm_engine.vllm_config.cache_config.num_gpu_blocks)
            continue
        params = SamplingParams(
            max_tokens=call["tokens"],
            temperature=0,
            ignore_eos=True,
            detokenize=False,
            logprobs=1,
            extra_args={"kv_transfer_params": {"kvstore": call["hints"]}} if call.get("hints") else None,
        )
        prompts = [
            {"prompt_token_ids": prompt, **({"cache_salt": call["salt"]} if call["salt"] else {})}
            for prompt in call["prompts"]
        ]
        started = time.perf_counter()
        if call["what"] == "together":
            outputs = together(llm.llm_engine, prompts, params, call["abort"])
        else:
            outputs = llm.generate(prompts, params, use_tqdm=False)
        seconds = time.perf_counter() - started
        answer([output and {**told(output), "seconds": seconds} for output in outputs])
    del llm


def told(output: Any) -> dict[str, Any]:
    """What the tests compare."""
    (completion,) = output.outputs
    steps = zip(completion.logprobs, completion.token_ids, strict=True)
    return {
        "cached": output.num_cached_tokens,
        "tokens": list(completion.token_ids),
        # Exact: hexadecimal floats.
        "logprobs": [float(step[token].logprob).hex() for step, token in steps],
        "first_token_seconds": output.metrics.first_token_latency if output.metrics else None,
    }


def together(engine: Any, prompts: list[Any], params: Any, abort: dict[str, int]) -> list[Any]:
    """The outputs of all; None of those that were aborted before."""
    names = [f"{time.monotonic_ns()}-{index}" for index in range(len(prompts))]
    for name, prompt in zip(names, prompts, strict=True):
        engine.add_request(name, prompt, params)
    ended: dict[str, Any] = {}
    steps = 0
    while engine.has_unfinished_requests():
        for output in engine.step():
            if output.finished:
                ended[output.request_id] = output
        steps += 1
        leave = [names[int(index)] for index, after in abort.items() if after == steps]
        engine.abort_request([name for name in leave if name not in ended])
    return [ended.get(name) for name in names]


if __name__ == "__main__":
    main()
