"""vLLM engines one after the other in one process: a start takes seconds, so that many settings can be tried.

As a program it is that process, told by lines of JSON what to do; `Host` starts it and talks to it. With the argument
`fork` each call has a process of its own, a fork of one that has imported vLLM and done nothing else.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import inspect
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from forks import ANSWER


class Refused(Exception):
    """vLLM, or the connector, did not start or do what was asked."""


class Host:
    """The tests' end of it."""

    def __init__(self, log: Path, *, fork: bool = False, env: dict[str, str] | None = None) -> None:
        self.log = log
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, __file__, *(["fork"] if fork else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            # Some settings name folders, which are made where it runs.
            cwd=log.parent,
            start_new_session=True,
            env={
                **os.environ,
                "HF_HUB_OFFLINE": "1",
                "VLLM_CPU_KVCACHE_SPACE": "1",
                "VLLM_NO_USAGE_STATS": "1",
                "VLLM_DO_NOT_TRACK": "1",
                "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
                "VLLM_ALLOW_INSECURE_SERIALIZATION": "1",
                **(env or {}),
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
        mutated: dict[str, int] | None = None,
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
        chosen: dict[str, str] = {}

        def create(*arguments: Any, **named: Any) -> Any:
            config = original(*arguments, **named)
            chosen.update(set_fields(config, fields or {}, mutated or {}))
            return config

        EngineArgs.create_engine_config = create  # type: ignore[method-assign]
        ours = {"kv_connector": "KVStoreConnector", "kv_connector_module_path": "kvstore.vllm", "kv_role": "kv_both"}
        is_another = store is not None and "kv_connector" in store
        if is_another:
            register_kernels_once()
        transfer = store and KVTransferConfig(**(store if is_another else {**ours, "kv_connector_extra_config": store}))
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
        if not store or is_another:
            return {}
        identity = get_kv_transfer_group()._worker.identity
        return {"identity": hashlib.sha256(repr(identity).encode()).hexdigest(), "chosen": chosen}

    def look(self, model: str, store: dict[str, Any], prompt: list[int], **more: Any) -> dict[str, Any]:
        """What an engine is called, answers and has computed, which then ends with its process."""
        from vllm.v1.sample import sampler

        # Compiled for seconds, to count how many tokens are likelier than the chosen one, which nobody asks for.
        compiled = sampler.batched_count_greater_than
        sampler.batched_count_greater_than = getattr(compiled, "_torchdynamo_orig_callable", compiled)
        started = self.start(model, store, **more)
        kept = has_values(self.llm.llm_engine.vllm_config, started["chosen"])
        return {**started, "answer": self.generate(prompt), "kv": self.kv(), "kept": kept}

    def steps(
        self, model: str, store: dict[str, Any] | None, calls: list[dict[str, Any]], **more: Any
    ) -> list[dict[str, Any]]:
        """The answers of an engine to calls; an engine that ends in order with its process."""
        self.start(model, store, **more)
        answers = [getattr(self, call.pop("what"))(**call) for call in calls]
        self.stop()
        return answers

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

    def write_adapter(self, folder: str, seed: int) -> None:
        from tiny_model import write_adapter

        write_adapter(Path(folder), seed=seed)

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def rpc(self, method: str, **named: Any) -> None:
        self.llm.collective_rpc(method, kwargs=named)

    def apply(self) -> None:
        self.llm.collective_rpc(touch_weights)

    def add_adapter(self, adapter: dict[str, Any]) -> None:
        from vllm.lora.request import LoRARequest

        self.llm.llm_engine.add_lora(LoRARequest(**adapter))

    def fields(self, model: str, options: dict[str, Any]) -> list[tuple[str, bool]]:
        """All fields of all objects of a configuration, and whether each is on the list."""
        from mutate import fields_of, vllm_left_out
        from vllm.engine.arg_utils import EngineArgs

        config = EngineArgs(model=model, skip_tokenizer_init=True, dtype="bfloat16", **options).create_engine_config()
        return fields_of(config, vllm_left_out(config))

    def variables(self) -> dict[str, dict[str, Any]]:
        """Every variable that vLLM knows: other values of it, and whether it is read while vLLM is imported."""
        import vllm
        from variables import other_values, variables_read
        from vllm import envs

        from kvstore.vllm.left_out import ENVIRONMENT_LEFT_OUT

        known = {name: inspect.unwrap(getter) for name, getter in envs.environment_variables.items()}
        names = variables_read(Path(vllm.__file__).parent) | set(known) | set(ENVIRONMENT_LEFT_OUT)
        return {
            name: {"values": other_values(name, known.get(name)), "at_import": name in READ_AT_IMPORT}
            for name in sorted(names)
        }

    def mutate(self, model: str, options: dict[str, Any]) -> list[dict[str, Any]]:
        from mutate import mutations

        return mutations(model, options)

    def identities(self, parts: list[list[int]]) -> list[str]:
        """The identity of a rank that has these layers, for each part; shapes and weights are the same."""
        from vllm.distributed.kv_transfer import get_kv_transfer_group

        from kvstore.vllm.identity import engine_identity
        from kvstore.vllm.layout import kv_layout
        from kvstore.vllm.states import StateMemory

        config = self.llm.llm_engine.vllm_config
        connector = get_kv_transfer_group()
        layers = dict(zip(config.compilation_config.static_forward_context, self.runner().kv_caches, strict=True))
        found = []
        for part in parts:
            caches = {name: layers[name] for index, name in enumerate(layers) if index in part}
            (table,) = connector._groups.tables
            groups = replace(connector._groups, tables=(replace(table, layers=tuple(caches)),))
            cache_config = connector._kv_cache_config
            layout = kv_layout(caches, cache_config.num_blocks, groups.tables)
            made = engine_identity(
                config, cache_config, groups, layout, StateMemory(caches, ()), caches, connector._options
            )
            found.append(hashlib.sha256(repr(made).encode()).hexdigest())
        return found

    def runner(self) -> Any:
        return self.llm.llm_engine.model_executor.driver_worker.worker.model_runner


def register_kernels_once() -> None:
    """Where a connector imports numba, vLLM 0.32 cannot do this any more when it starts in this process."""
    from vllm.platforms import current_platform

    current_platform.register_triton_kernel_overrides()
    type(current_platform).register_triton_kernel_overrides = classmethod(lambda _: None)


def touch_weights(worker: Any) -> None:
    """A program's own way of changing weights in a running engine."""
    for parameter in worker.get_model().parameters():
        parameter.data.mul_(1.5)


def set_fields(config: Any, fields: dict[str, Any], mutated: dict[str, int]) -> dict[str, str]:
    """Sets each "Class.field" in all objects of that class that the configuration holds; mutated: to its n-th other value.

    Returns the values of these.
    """
    from mutate import UNKNOWN, objects, others

    chosen = {}
    for holder, _ in list(objects(config)):
        for key in [*fields, *mutated]:
            kind, _, name = key.partition(".")
            if any(base.__name__ == kind for base in type(holder).__mro__) and (hasattr(holder, name) or name == UNKNOWN):
                if key in mutated:
                    values = others(holder, name)
                    if mutated[key] >= len(values):
                        raise NoOtherValue(f"{key} has {len(values)} other values")
                    chosen[key] = repr(values[mutated[key]])
                vars(holder)[name] = fields[key] if key in fields else values[mutated[key]]
    if mutated and not chosen:
        raise NoOtherValue(f"there is no {', '.join(mutated)}")
    return chosen


def has_values(config: Any, chosen: dict[str, str]) -> bool:
    """Whether the engine has left these fields as they were set."""
    from mutate import objects

    found: dict[str, set[str]] = {key: set() for key in chosen}
    for holder, _ in list(objects(config)):
        for key in chosen:
            kind, _, name = key.partition(".")
            if type(holder).__name__ == kind:
                found[key].add(repr(getattr(holder, name, None)))
    return all(value in found[key] for key, value in chosen.items())


class NoOtherValue(Exception):
    """All values of a field were tried."""


READ_AT_IMPORT: set[str] = set()


def note_what_is_read_at_import() -> None:
    """Has vLLM's variables tell when they are asked for; forks have a copy of what was told so far."""
    from vllm import envs

    def noted(name: str, getter: Any) -> Any:
        @functools.wraps(getter)
        def get() -> Any:
            READ_AT_IMPORT.add(name)
            return getter()

        return get

    for name, getter in envs.environment_variables.items():
        envs.environment_variables[name] = noted(name, getter)


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    from forks import serve

    if "fork" in sys.argv:
        note_what_is_read_at_import()
    serve(Engines(), imports=["vllm.v1.engine.llm_engine", "vllm.v1.worker.cpu_worker"] if "fork" in sys.argv else None)


if __name__ == "__main__":
    main()
