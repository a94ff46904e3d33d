"""A real llama-cpp-python, configured by what comes in on stdin: a line of JSON for each engine, answered by one of JSON.

Each engine lives in a child of its own, forked before llama.cpp has started: one that aborts takes nobody along.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import llama_cpp as api

import kvstore
import kvstore.llama_cpp as adapter

kept: list[Any] = []
used: dict[str, dict[str, Any]] = {}


def main() -> None:
    for line in sys.stdin:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            silent = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1)
            if not os.environ.get("KVSTORE_TEST_NOISY"):
                os.dup2(silent, 2)
            try:
                answer = engine(json.loads(line))
            except BaseException as reason:  # noqa: BLE001 -- whatever it is, it is the answer
                answer = {"refused": f"{type(reason).__name__}: {reason}"}
            os.write(write, json.dumps(answer).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            answer = pipe.read()
        os.waitpid(child, 0)
        print(answer.decode() or '{"refused": "the engine died"}', flush=True)


def engine(spec: dict[str, Any]) -> dict[str, Any]:
    os.environ.update(spec.get("environment", {}))
    adapter.allow_block_copies()
    for function, position in (("llama_model_load_from_file", 1), ("llama_init_from_model", 1)):
        change_fields(function, position, spec.get(function, {}))
    options = {"n_ctx": 1024, "n_threads": 1, "n_threads_batch": 1, "verbose": False, "seed": 1, **spec.get("options", {})}
    llama = llama_cpp.Llama(spec["model"], **options)
    for name in spec.get("calls", ()):
        CALLS[name](llama, spec)
    store = kvstore.Store(spec["store"], capacity="128MiB", host="16MiB")
    cache = adapter.KVStoreCache(llama, spec["model"], store)
    answer: dict[str, Any] = {"identity": cache._namespace.block_keys(kvstore.Prompt(range(64)))[0].hex()}
    for name in spec.get("later", ()):
        CALLS[name](llama, spec)
        answer["identity"] = cache._current_namespace().block_keys(kvstore.Prompt(range(64)))[0].hex()
    if spec.get("cached"):
        llama.set_cache(cache)
    for prompt in spec["prompts"]:
        if isinstance(prompt, dict):
            prompt = show_image(llama, prompt)
        before = store.stats()["restored_bytes"]
        llama.create_completion(prompt, max_tokens=1, temperature=0)
        answer["restored"] = store.stats()["restored_bytes"] > before
        # The last token of the prompt once more: its logits, whatever was generated.
        llama.n_tokens = len(prompt) - 1
        llama.eval(prompt[-1:])
        logits = np.ctypeslib.as_array(llama._ctx.get_logits(), shape=(llama.n_vocab(),))
        answer["logits"] = logits.astype(np.float64).tolist()
    store.flush()
    answer["parameters"] = used
    answer["blocks"] = store.stats()["blocks_stored"]
    store.close()
    return answer


def change_fields(function: str, position: int, fields: dict[str, Any]) -> None:
    """Sets fields of the parameters that go into a call, whatever they are meant for."""
    watched = getattr(api, function)

    def call(*arguments: Any) -> Any:
        structure = arguments[position]
        used[function] = {
            name: getattr(structure, name)
            for name, *_ in structure._fields_
            if isinstance(getattr(structure, name), (int, float))
        }
        for name, value in fields.items():
            kind = dict(structure._fields_)[name]
            setattr(structure, name, pointer(kind, value) if isinstance(value, str) else value)
        return watched(*arguments)

    setattr(api, function, call)


def pointer(kind: Any, value: str) -> Any:
    """Something to point to: a function that says yes or no, or room for an empty list."""
    if issubclass(kind, ctypes._CFuncPtr):
        made = kind(lambda *arguments: value == "yes")
    else:
        made = ctypes.create_string_buffer(1 << 16)
    kept.append(made)
    return made if issubclass(kind, ctypes._CFuncPtr) else ctypes.cast(made, kind)


def show_image(llama: llama_cpp.Llama, prompt: dict[str, Any]) -> list[int]:
    """As llama-cpp-python's multimodal handlers do: libmtmd decodes embeddings by itself, and no ids are written for them."""
    llama.reset()
    llama._ctx.kv_cache_clear()
    llama.eval(prompt["front"])
    count, width = prompt["image"], llama.n_embd()
    batch = api.llama_batch_init(count, width, 1)
    values = np.random.default_rng(5).standard_normal(count * width).astype(np.float32)
    ctypes.memmove(batch.embd, values.ctypes.data, values.nbytes)
    batch.n_tokens = count
    for index in range(count):
        batch.pos[index] = llama.n_tokens + index
        batch.n_seq_id[index] = 1
        batch.seq_id[index][0] = 0
        batch.logits[index] = index == count - 1
    # libmtmd is a library of its own: its calls are not seen in Python.
    assert adapter.loaded.unwatched("llama_decode")(llama.ctx, batch) == 0
    llama.n_tokens += count
    llama.eval(prompt["tail"])
    return llama.input_ids[: llama.n_tokens].tolist()


def set_lora(llama: llama_cpp.Llama, spec: dict[str, Any], scale: float = 1.0) -> None:
    loaded = api.llama_adapter_lora_init(llama.model, spec["lora"].encode())
    adapters = (api.llama_adapter_lora_p_ctypes * 1)(loaded)
    # By the package's own name, as programs call it.
    assert llama_cpp.llama_set_adapters_lora(llama.ctx, adapters, 1, (ctypes.c_float * 1)(scale)) == 0


def set_vector(llama: llama_cpp.Llama, spec: dict[str, Any], first: int = 1, factor: float = 1.0) -> None:
    layers = int(llama.metadata["llama.block_count"]) - 1
    values = np.random.default_rng(9).standard_normal(llama.n_embd() * layers).astype(np.float32) * factor
    data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    assert api.llama_set_adapter_cvec(llama.ctx, data, values.size, llama.n_embd(), first, layers) == 0


def write_model(llama: llama_cpp.Llama, spec: dict[str, Any]) -> None:
    """Writes a byte of the model's file in place, and sets its time back."""
    state = os.stat(spec["model"])
    with open(spec["model"], "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    os.utime(spec["model"], ns=(state.st_atime_ns, state.st_mtime_ns))


def new_call(llama: llama_cpp.Llama, spec: dict[str, Any]) -> None:
    """A call of a later version that nobody here knows of."""
    api.llama_set_something_new(llama.ctx)


api.llama_set_something_new = lambda ctx: None

CALLS = {
    "lora": set_lora,
    "lora stronger": lambda llama, spec: set_lora(llama, spec, 3.0),
    "no lora": lambda llama, spec: api.llama_set_adapters_lora(llama.ctx, None, 0, None),
    "vector": set_vector,
    "vector stronger": lambda llama, spec: set_vector(llama, spec, factor=2.0),
    "vector of fewer layers": lambda llama, spec: set_vector(llama, spec, first=2),
    "no vector": lambda llama, spec: api.llama_set_adapter_cvec(llama.ctx, None, 0, 0, 0, 0),
    "causal_attn": lambda llama, spec: api.llama_set_causal_attn(llama.ctx, False),
    "warmup": lambda llama, spec: api.llama_set_warmup(llama.ctx, True),
    "new call": new_call,
    "write": write_model,
}

if __name__ == "__main__":
    main()
