"""SGLang's model runner without its scheduler: one prompt computed under settings, each time in a process of its own.

As a program it is what SGLang's own one-batch benchmark does; `Runner` starts it and talks to it.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "vllm"))

from forks import ANSWER  # noqa: E402

FIXED = {
    "device": "cpu",
    "skip_tokenizer_init": True,
    "attention_backend": "torch_native",
    "sampling_backend": "pytorch",
    "disable_overlap_schedule": True,
    "disable_cuda_graph": True,
    "dtype": "bfloat16",
    "context_length": 1024,
    "page_size": 64,
    "max_total_tokens": 512,
    "max_running_requests": 2,
    "log_level": "warning",
}


class Refused(Exception):
    """SGLang did not start, or did not compute."""


class Runner:
    """The tests' end of it."""

    def __init__(self, log: Path) -> None:
        self._log = log.open("ab")
        paths = [str(Path(__file__).parent / "cpu"), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        tools = os.pathsep.join(path + "/bin" for path in paths)
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            # Some settings name folders, which are made where it runs.
            cwd=log.parent,
            start_new_session=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(paths),
                "PATH": tools + os.pathsep + os.environ["PATH"],
                "HF_HUB_OFFLINE": "1",
                "KVSTORE_SGLANG_CPU": "1",
                "SGLANG_USE_CPU_ENGINE": "1",
            },
        )

    def call(self, what: str, **arguments: Any) -> Any:
        """Has a fork do something; raises Refused with what it says if it cannot."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write((json.dumps({"what": what, **arguments}) + "\n").encode())
        self._process.stdin.flush()
        while line := self._process.stdout.readline():
            text = line.decode(errors="replace")
            if text.startswith(ANSWER):
                answer = json.loads(text.removeprefix(ANSWER))
                if "refused" in answer:
                    raise Refused(answer["refused"])
                return answer["done"]
        raise AssertionError("the process ended")

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(60)
        self._log.close()


# ---------------------------------------------------------------- the process


def is_listed(name: str) -> bool:
    """Whether a setting, or a group that it is of, is on the list."""
    from kvstore.sglang_left_out import LEFT_OUT

    parts = name.split(".")
    return any(".".join(parts[:length]) in LEFT_OUT for length in range(1, len(parts) + 1))


class NoOtherValue(Exception):
    """All values of a field were tried."""


class Calls:
    """What the process does; each method is a call, which changes at most one field, to its n-th other value.

    A field is "argument.NAME" of what a server is started with, or "Class.NAME" of the model's configuration.
    """

    def fields(self, model: str) -> list[tuple[str, bool]]:
        """Every field there is, and an unknown one of each kind, with whether it is on the list."""
        from mutate import fields_of
        from sglang.srt.arg_groups.arg_utils import namespace_of
        from sglang.srt.configs.model_config import ModelConfig
        from sglang.srt.runtime_context import get_context
        from sglang.srt.server_args import ServerArgs

        from kvstore.sglang_left_out import LEFT_OUT

        arguments = ServerArgs(model_path=model, **FIXED)
        get_context().set_server_args(arguments)
        groups = namespace_of(ServerArgs)
        found = [(f"argument.{name}", is_listed(f"{group}.{name}")) for name, group in groups.items()]
        return [*found, *fields_of(ModelConfig.from_server_args(arguments), LEFT_OUT)]

    def look(
        self, model: str, weights: str, prompt: list[int], field: str | None = None, index: int = 0, value: Any = None
    ) -> dict[str, Any]:
        """The identity of an engine, the digests of what it has computed of a prompt, and the value that was chosen."""
        import torch
        from sglang.benchmark import one_batch as benchmark
        from sglang.srt.configs.model_config import ModelConfig
        from sglang.srt.mem_cache.hicache_storage import HiCacheStorageConfig

        from kvstore.sglang import KVStoreHiCache

        torch.manual_seed(0)
        chosen = [repr(value)] if value is not None else []
        kind, _, name = (field or "").partition(".")
        given = {"model_path": model, **FIXED}
        if kind == "argument":
            given[name] = _choose(chosen, value, index, *_argument(name, given.get(name)))
        arguments = benchmark.ServerArgs(**given)
        arguments.resolve_once()
        ranks = benchmark.SpawnRanks(
            world_rank=benchmark.spawn_world_rank(arguments, tp_rank=0, pp_rank=0), gpu_id=0
        )
        benchmark.publish(arguments, role="scheduler", ranks=ranks)
        if kind not in ("", "argument"):
            original = ModelConfig.from_server_args

            def made(*args: Any, **named: Any) -> Any:
                config = original(*args, **named)
                _change_field(chosen, value, index, config, field or "")
                return config

            ModelConfig.from_server_args = made
        benchmark._init_process_global_configs()
        benchmark.get_tokenizer = lambda *_, **__: None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        runner = benchmark.load_model(arguments, _Ports(port), 0, 0)[0].torch_runner
        settings = {"path": "unused", "model_path": model, "weights_digest": weights}
        storage = KVStoreHiCache(
            HiCacheStorageConfig(
                tp_rank=0,
                tp_size=1,
                pp_rank=0,
                pp_size=1,
                attn_cp_rank=0,
                attn_cp_size=1,
                is_mla_model=False,
                enable_storage_metrics=False,
                is_page_first_layout=False,
                model_name=model,
                extra_config=settings,
            )
        )
        pool = runner.token_to_kv_pool
        # What it says of a page's shape and type comes from the pool, and is in the identity as well.
        shapes = [(str(part.dtype), list(part.shape[1:])) for part in (*pool.k_buffer, *pool.v_buffer)]
        reqs = benchmark.prepare_synthetic_inputs_for_latency_test(1, len(prompt), [prompt])
        token, logits, batch = benchmark.extend(reqs, runner)
        tokens, steps = [int(token)], [logits.float()]
        for _ in range(3):
            token, logits = benchmark.decode(token, batch, runner)
            tokens.append(int(token))
            steps.append(logits.float())
        digest = hashlib.sha256()
        for part in (*pool.k_buffer, *pool.v_buffer):
            digest.update(part.detach().contiguous().view(torch.uint8).numpy())
        return {
            "identity": hashlib.sha256(repr((storage._weights, storage._engine_bytes, shapes)).encode()).hexdigest(),
            "kv": digest.hexdigest(),
            "logits": hashlib.sha256(torch.cat(steps).numpy().tobytes()).hexdigest(),
            "tokens": tokens,
            "highest": [float(step.max()) for step in steps],
            "chosen": chosen,
        }


class _Ports:
    def __init__(self, port: int) -> None:
        self.nccl_port = port


def _choose(chosen: list[str], value: Any, index: int, values: list[Any]) -> Any:
    if value is not None:
        return value
    if index >= len(values):
        raise NoOtherValue(f"there are {len(values)} other values")
    chosen.append(repr(values[index]))
    return values[index]


def _argument(name: str, given: Any) -> tuple[list[Any]]:
    """The other values of an argument: its choices, and those of its type."""
    import typing

    from mutate import others_of
    from sglang.srt.arg_groups.arg_utils import Arg, record_fields
    from sglang.srt.server_args import ServerArgs

    (field,) = [one for one in record_fields(ServerArgs) if one.name == name]
    value = given if given is not None else field.default if isinstance(field.default, (int, float, str)) else None
    choices: list[Any] = []
    if typing.get_origin(field.type) is typing.Annotated:
        for part in typing.get_args(field.type)[1:]:
            if isinstance(part, Arg) and part.choices:
                choices = [one for one in part.choices if one != value]
    # All choices are names; what is none of them is refused by the command line, and not tried.
    return (choices or others_of(value, [field.type]),)


def _change_field(chosen: list[str], value: Any, index: int, config: Any, field: str) -> None:
    from mutate import UNKNOWN, objects, others

    kind, _, name = field.partition(".")
    for holder, _ in list(objects(config)):
        if type(holder).__name__ == kind and (hasattr(holder, name) or name == UNKNOWN):
            vars(holder)[name] = _choose(chosen, value, index, others(holder, name))


def main() -> None:
    from forks import serve

    serve(Calls(), imports=["sglang.benchmark.one_batch", "sglang.srt.models.llama", "kvstore.sglang"])


if __name__ == "__main__":
    main()
