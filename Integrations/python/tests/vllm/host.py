"""vLLM engines one after the other in one process: a start takes seconds, so that many settings can be tried.

As a program it is that process, told by lines of JSON what to do; `Host` starts it and talks to it.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

ANSWER = "@answer "


class Refused(Exception):
    """vLLM, or the connector, did not start or do what was asked."""


class Host:
    """The tests' end of it."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
            env={
                **os.environ,
                "HF_HUB_OFFLINE": "1",
                "VLLM_CPU_KVCACHE_SPACE": "1",
                "VLLM_NO_USAGE_STATS": "1",
                "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
                "VLLM_ALLOW_INSECURE_SERIALIZATION": "1",
            },
        )

    def call(self, what: str, **arguments: Any) -> Any:
        """Has the process do something; raises Refused with what it says if it cannot."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write((json.dumps({"what": what, **arguments}) + "\n").encode())
        self._process.stdin.flush()
        while line := self._process.stdout.readline():
            self._log.write(line)
            self._log.flush()
            text = line.decode(errors="replace")
            if text.startswith(ANSWER):
                answer = json.loads(text.removeprefix(ANSWER))
                if "refused" in answer:
                    raise Refused(answer["refused"])
                return answer["done"]
        raise AssertionError("the process ended:\n" + "\n".join(self.said().splitlines()[-60:]))

    @contextlib.contextmanager
    def engine(self, model: Path, store: dict[str, Any] | None, **more: Any) -> Any:
        """An engine: options are vLLM's, fields are set in its configuration by "Class.field", env are variables."""
        try:
            yield self.call("start", model=str(model), store=store, **more)
        finally:
            self.call("stop")

    def generate(self, prompt: list[int], **more: Any) -> dict[str, Any]:
        """Tokens, exact log-probabilities and cached tokens of one prompt."""
        return self.call("generate", prompt=prompt, **more)

    def said(self) -> str:
        """Everything that the process has written."""
        return self.log.read_text(errors="replace")

    def renew(self) -> None:
        """Goes on with another process: what a start that failed leaves behind must not become part of the next one."""
        self.close()
        self.__init__(self.log)  # type: ignore[misc]

    def close(self) -> None:
        """Ends the process."""
        if self._process.poll() is None:
            assert self._process.stdin
            self._process.stdin.close()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._log.close()


# ---------------------------------------------------------------- the process


class Engines:
    """What the process does; each method is a call."""

    def __init__(self) -> None:
        self.llm: Any = None
        self.environment: dict[str, str | None] = {}

    def start(
        self,
        model: str,
        store: dict[str, Any] | None,
        options: dict[str, Any] | None = None,
        fields: dict[str, Any] | None = None,
        mutated: list[str] | None = None,
        env: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        import torch
        from vllm import LLM
        from vllm.config import KVTransferConfig
        from vllm.distributed.kv_transfer import get_kv_transfer_group
        from vllm.engine.arg_utils import EngineArgs

        for name, value in (env or {}).items():
            self.environment[name] = os.environ.get(name)
            os.environ[name] = value
        torch.manual_seed(0)
        original = EngineArgs.create_engine_config

        def create(*arguments: Any, **named: Any) -> Any:
            config = original(*arguments, **named)
            set_fields(config, fields or {}, mutated or [])
            return config

        EngineArgs.create_engine_config = create  # type: ignore[method-assign]
        transfer = store and KVTransferConfig(
            kv_connector="KVStoreConnector",
            kv_connector_module_path="kvstore.vllm",
            kv_role="kv_both",
            kv_connector_extra_config=store,
        )
        try:
            self.llm = LLM(
                model,
                kv_transfer_config=transfer,
                **{
                    "skip_tokenizer_init": True,
                    "enforce_eager": True,
                    "max_model_len": 1024,
                    "num_gpu_blocks_override": 16,
                    "dtype": "bfloat16",
                    "distributed_executor_backend": "uni",
                    **(options or {}),
                },
            )
        finally:
            EngineArgs.create_engine_config = original  # type: ignore[method-assign]
        if not store:
            return {}
        identity = get_kv_transfer_group()._worker.identity
        return {"identity": hashlib.sha256(repr(identity).encode()).hexdigest()}

    def stop(self) -> None:
        from vllm.distributed import cleanup_dist_env_and_memory

        if self.llm is not None:
            self.llm.llm_engine.engine_core.shutdown()
            self.llm = None
        cleanup_dist_env_and_memory()
        gc.collect()
        for name, value in self.environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self.environment.clear()

    def generate(
        self, prompt: list[int], salt: str | None = None, tokens: int = 8, adapter: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        from vllm import SamplingParams
        from vllm.lora.request import LoRARequest

        (output,) = self.llm.generate(
            [{"prompt_token_ids": prompt, **({"cache_salt": salt} if salt else {})}],
            SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True, detokenize=False, logprobs=1),
            lora_request=LoRARequest(**adapter) if adapter else None,
            use_tqdm=False,
        )
        chosen = output.outputs[0]
        return {
            "cached": output.num_cached_tokens,
            "tokens": list(chosen.token_ids),
            "logprobs": [
                float(step[token].logprob).hex() for step, token in zip(chosen.logprobs, chosen.token_ids, strict=True)
            ],
        }

    def kv(self) -> str:
        """A digest of the whole KV cache, which is zero where nothing was computed."""
        import torch

        digest = hashlib.sha256()
        for worker_kv in self.runner().kv_caches:
            digest.update(worker_kv.detach().contiguous().view(torch.uint8).numpy())
        return digest.hexdigest()

    def reset(self) -> bool:
        return bool(self.llm.reset_prefix_cache())

    def rpc(self, method: str, **named: Any) -> None:
        self.llm.collective_rpc(method, kwargs=named)

    def apply(self) -> None:
        self.llm.collective_rpc(touch_weights)

    def add_adapter(self, adapter: dict[str, Any]) -> None:
        from vllm.lora.request import LoRARequest

        self.llm.llm_engine.add_lora(LoRARequest(**adapter))

    def mutate(self, model: str, options: dict[str, Any]) -> list[dict[str, Any]]:
        from mutate import mutations

        return mutations(model, options)

    def identities(self, parts: list[list[int]]) -> list[str]:
        """The identity of a rank that has these layers, for each part; shapes and weights are the same."""
        from vllm.distributed.kv_transfer import get_kv_transfer_group

        from kvstore.vllm.identity import engine_identity
        from kvstore.vllm.layout import kv_layout

        config = self.llm.llm_engine.vllm_config
        connector = get_kv_transfer_group()
        layers = dict(zip(config.compilation_config.static_forward_context, self.runner().kv_caches, strict=True))
        found = []
        for part in parts:
            caches = {name: layers[name] for index, name in enumerate(layers) if index in part}
            layout = kv_layout(caches, connector._kv_cache_config.num_blocks)
            made = engine_identity(config, connector._spec, layout, caches, connector._options)
            found.append(hashlib.sha256(repr(made).encode()).hexdigest())
        return found

    def runner(self) -> Any:
        return self.llm.llm_engine.model_executor.driver_worker.worker.model_runner


def touch_weights(worker: Any) -> None:
    """A program's own way of changing weights in a running engine."""
    for parameter in worker.get_model().parameters():
        parameter.data.mul_(1.5)


def set_fields(config: Any, fields: dict[str, Any], mutated: list[str]) -> None:
    """Sets each "Class.field" in all objects of that class that the configuration holds; mutated: to another value."""
    from mutate import UNKNOWN, objects, other

    for holder, _ in list(objects(config)):
        for key in [*fields, *mutated]:
            kind, _, name = key.partition(".")
            if any(base.__name__ == kind for base in type(holder).__mro__) and (hasattr(holder, name) or name == UNKNOWN):
                value = fields[key] if key in fields else other(getattr(holder, name, None))
                vars(holder)[name] = value


def main() -> None:
    # vLLM writes to stdout.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    engines = Engines()
    for line in sys.stdin:
        call = json.loads(line)
        try:
            answer = {"done": getattr(engines, call.pop("what"))(**call)}
        except BaseException as reason:
            traceback.print_exc()
            answer = {"refused": f"{type(reason).__name__}: {reason}"}
        answers.write("\n" + ANSWER + json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
