"""What llama-cpp-python has loaded and evaluated, noted as it calls llama.cpp.

llama.cpp cannot be asked what a context was made with, what it has for adapters, or which tokens lie at its positions; files
and settings that a program keeps beside it may have changed since. So every call that decides one of these is watched. A call
of a later version that is not known here, or a pointer to something that cannot be read, is taken for one that matters: what is
stored from then on is found by this process alone.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import os
from array import array
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import llama_cpp
from llama_cpp import llama_cpp as api

from .weights import IdentityUnknownError, files_digest, weight_files

logger = logging.getLogger(__name__)

# Fields that do not change the bytes of a token's KV, each for its reason. All others are in the identity, also those of a
# version that was not there yet when this was written.
MODEL_FIELDS_LEFT_OUT = {
    "progress_callback": "shows how far loading is",
    "progress_callback_user_data": "goes with it",
    "check_tensors": "compares the file with itself",
}
CONTEXT_FIELDS_LEFT_OUT = {
    "n_ctx": "how many tokens fit; what it decides in LongRoPE models is in the identity by itself",
    "n_batch": "the same sums in other batches: rounding, as between two requests",
    "n_ubatch": "the same",
    "n_threads": "who computes a row, not what",
    "n_threads_batch": "the same",
    "n_seq_max": "how many sequences there may be",
    "n_outputs_max": "room for results",
    "n_outputs_max_per_seq": "room for results",
    "defrag_thold": "no longer used by llama.cpp",
    "abort_callback": "ends a call",
    "abort_callback_data": "goes with it",
    "embeddings": "which results are handed out",
    "no_perf": "times are not taken",
    "samplers": "what is made of the logits",
    "n_samplers": "goes with it",
}
# Switches of the environment are in the identity if they begin so, but for these.
ENVIRONMENT_PREFIXES = ("LLAMA_", "GGML_")
ENVIRONMENT_LEFT_OUT = {
    "LLAMA_CPP_LIB_PATH": "where the library lies; its content is in the identity",
    "LLAMA_TRACE": "prints",
    "LLAMA_KV_CACHE_DEBUG": "prints",
    "LLAMA_BATCH_DEBUG": "prints",
    "LLAMA_GRAPH_INPUT_DEBUG": "prints",
    "LLAMA_GRAPH_RESULT_DEBUG": "prints",
    "LLAMA_DSV4_COMPRESS_DEBUG": "prints",
    "GGML_SCHED_DEBUG": "prints",
}
# Calls that look, or that change nothing that is stored.
_HARMLESS = {
    "llama_load_mode_name",
    "llama_load_mode_from_str",
    "llama_set_n_threads",
    "llama_set_embeddings",
    "llama_set_abort_callback",
    "llama_set_sampler",
    "llama_memory_seq_pos_min",
    "llama_memory_seq_pos_max",
    "llama_memory_can_shift",
    "llama_state_get_size",
    "llama_state_get_data",
    "llama_state_save_file",
    "llama_state_seq_get_size",
    "llama_state_seq_get_size_ext",
    "llama_state_seq_get_data",
    "llama_state_seq_get_data_ext",
    "llama_state_seq_save_file",
    "llama_adapter_meta_val_str",
    "llama_adapter_meta_count",
    "llama_adapter_meta_key_by_index",
    "llama_adapter_meta_val_str_by_index",
    "llama_adapter_get_alora_n_invocation_tokens",
    "llama_adapter_get_alora_invocation_tokens",
    "llama_adapter_lora_free",
    "llama_opt_param_filter_all",
}
_WATCHED_PREFIXES = (
    "llama_model_load_",
    "llama_model_init_",
    "llama_load_",
    "llama_init_from_",
    "llama_new_context_",
    "llama_adapter_",
    "llama_apply_",
    "llama_set_",
    "llama_memory_",
    "llama_kv_",
    "llama_state_",
    "llama_opt_",
    "llama_encode",
    "llama_decode",
)
# llama.cpp's own sequence of the one that a Llama has.
_SEQUENCE = 0

_process: tuple[int, bytes] | None = None


def this_process() -> str:
    """What no other process says, nor this one after it was started again."""
    global _process
    if _process is None or _process[0] != os.getpid():
        _process = os.getpid(), os.urandom(16)
    return _process[1].hex()


class LoadedModel:
    """The files of a model and the parameters that it was loaded with."""

    def __init__(self, parameters: Any, path: str | None) -> None:
        self.parameters = described(parameters, MODEL_FIELDS_LEFT_OUT)
        self.environment = environment()
        self.overrides = _overrides(parameters)
        self.digest = b""
        self._files: list[Any] = []
        self._marks: list[tuple[int, ...]] = []
        self._paths: list[Path] = []
        if path is not None:
            self._paths = [file.resolve() for file in weight_files(path)]
            self._files = [file.open("rb") for file in self._paths]
            self._marks = [_mark(os.fstat(file.fileno())) for file in self._files]

    def note_digest(self) -> None:
        """Called once it is loaded: what the files hold, if they are those that were there before."""
        try:
            digest = files_digest(self._paths) if self._paths else b""
            if digest and self.is_unchanged and [_mark(os.stat(path)) for path in self._paths] == self._marks:
                self.digest = digest
                return
            reason = "its files changed meanwhile" if digest else "it came from no file"
        except (OSError, IdentityUnknownError) as error:
            reason = str(error)
        logger.warning("kvstore: what is stored is for this process alone, since the model cannot be told: %s", reason)
        self.digest = hashlib.sha256(f"{this_process()} {id(self)}".encode()).digest()

    @property
    def is_unchanged(self) -> bool:
        """False once a file was written to in place: the model is mapped, and changes along with it."""
        return [_mark(os.fstat(file.fileno())) for file in self._files] == self._marks

    def close(self) -> None:
        """Closes the files, when the model is freed."""
        for file in self._files:
            file.close()
        self._files, self._marks = [], []


class LoadedContext:
    """What a context was made with, what was set in it since, and which tokens it holds."""

    def __init__(self, model: LoadedModel, parameters: Any) -> None:
        self.model = model
        self.parameters = described(parameters, CONTEXT_FIELDS_LEFT_OUT)
        self.environment = environment()
        self.settings: dict[str, Any] = {}
        self.written = array("i")
        """The tokens that evaluation, or a restore, put at positions 0, 1, 2 …; none behind a gap."""

    def set(self, name: str, value: Any) -> None:
        """Notes a setting; what was computed before it is not what would be computed now."""
        self.settings[name] = value
        del self.written[:]

    def cut(self, position: int) -> None:
        """Forgets what is known of this position and those behind it."""
        del self.written[max(0, position) :]

    def identity(self) -> str:
        """All of it but the files, as text."""
        model = self.model
        return canonical([model.parameters, model.environment, self.parameters, self.environment, self.settings])


_models: dict[int, LoadedModel] = {}
_contexts: dict[int, LoadedContext] = {}
_memories: dict[int, LoadedContext] = {}
_adapters: dict[int, str] = {}
_originals: dict[str, Callable[..., Any]] = {}


def context(llama: llama_cpp.Llama) -> LoadedContext | None:
    """What is known of a Llama; None if it was loaded before `watch`."""
    return _contexts.get(_number(llama.ctx))


def unwatched(name: str) -> Callable[..., Any]:
    """A function of llama.cpp as it is, for the store's own calls."""
    return _originals.get(name) or getattr(api, name)


def watch() -> None:
    """Watches every call from now on that decides what is computed, or where."""
    if _originals:
        return
    for name in dir(api):
        function = getattr(api, name)
        if name in _WATCHERS or (
            name.startswith(_WATCHED_PREFIXES) and name not in _HARMLESS and _is_call(function)
        ):
            _originals[name] = function
            watched = _watched(function, _WATCHERS.get(name, _unknown))
            setattr(api, name, watched)
            if getattr(llama_cpp, name, None) is function:
                setattr(llama_cpp, name, watched)


def canonical(value: Any) -> str:
    """One text for one value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def environment() -> dict[str, str]:
    """The switches that are set now."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(ENVIRONMENT_PREFIXES) and name not in ENVIRONMENT_LEFT_OUT
    }


def described(structure: Any, left_out: dict[str, str]) -> dict[str, Any]:
    """All fields of a structure but those left out; of what cannot be read, that it is this process's."""
    return {
        name: _described(name, getattr(structure, name))
        for name, *_ in structure._fields_
        if name not in left_out
    }


# ------------------------------------------------------------ private


def _described(name: str, value: Any) -> Any:
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, (bool, int)) and name not in _ADDRESSES:
        return int(value)
    if not value:
        return None
    if name == "kv_overrides":
        return sorted(_override(entry) for entry in _until_end(value))
    if name == "tensor_split":
        return [float(value[index]).hex() for index in range(api.llama_max_devices())]
    return this_process()


# Plain addresses are numbers to ctypes, too.
_ADDRESSES = {
    name
    for structure in (api.llama_model_params, api.llama_context_params)
    for name, kind, *_ in structure._fields_
    if kind is ctypes.c_void_p
}


def _until_end(overrides: Any) -> list[Any]:
    found: list[Any] = []
    while overrides[len(found)].key:
        found.append(overrides[len(found)])
    return found


def _override(entry: Any) -> list[Any]:
    value = entry.value
    # A type that is not known here is told by all its bytes.
    if entry.tag == api.LLAMA_KV_OVERRIDE_TYPE_INT:
        text = str(value.val_i64)
    elif entry.tag == api.LLAMA_KV_OVERRIDE_TYPE_FLOAT:
        text = float(value.val_f64).hex()
    elif entry.tag == api.LLAMA_KV_OVERRIDE_TYPE_BOOL:
        text = str(bool(value.val_bool))
    elif entry.tag == api.LLAMA_KV_OVERRIDE_TYPE_STR:
        text = value.val_str.hex()
    else:
        text = bytes(value).hex()
    return [entry.key.hex(), int(entry.tag), text]


def _overrides(parameters: Any) -> dict[str, int]:
    """The overrides that are whole numbers."""
    pointer = getattr(parameters, "kv_overrides", None)
    return {
        entry.key.decode("utf-8", "replace"): int(entry.value.val_i64)
        for entry in (_until_end(pointer) if pointer else [])
        if entry.tag == api.LLAMA_KV_OVERRIDE_TYPE_INT
    }


def _mark(state: os.stat_result) -> tuple[int, ...]:
    return state.st_size, state.st_dev, state.st_ino, state.st_mtime_ns, state.st_ctime_ns


def _number(pointer: Any) -> int:
    """An address or a number, whichever of ctypes' forms it comes in."""
    if pointer is None or isinstance(pointer, int):
        return int(pointer or 0)
    if isinstance(pointer, ctypes._SimpleCData):
        return int(pointer.value or 0)
    return int(ctypes.cast(pointer, ctypes.c_void_p).value or 0)


def _is_call(function: Any) -> bool:
    # Types, and names of types, begin alike.
    return callable(function) and not isinstance(function, type) and not hasattr(function, "__supertype__")


def _watched(original: Callable[..., Any], watcher: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def call(*arguments: Any) -> Any:
        return watcher(original, *arguments)

    return call


def _loads_file(original: Callable[..., Any], path: Any, parameters: Any) -> Any:
    try:
        loaded = LoadedModel(parameters, os.fsdecode(path))
    except OSError:
        loaded = LoadedModel(parameters, None)
    return _loads(loaded, original(path, parameters))


def _loads_unknown(original: Callable[..., Any], *arguments: Any) -> Any:
    parameters = next((item for item in arguments if isinstance(item, api.llama_model_params)), None)
    return _loads(LoadedModel(parameters or api.llama_model_default_params(), None), original(*arguments))


def _loads(loaded: LoadedModel, model: Any) -> Any:
    if _number(model):
        loaded.note_digest()
        _models[_number(model)] = loaded
    else:
        loaded.close()
    return model


def _frees_model(original: Callable[..., Any], model: Any) -> Any:
    loaded = _models.pop(_number(model), None)
    if loaded is not None:
        loaded.close()
    return original(model)


def _makes_context(original: Callable[..., Any], model: Any, parameters: Any) -> Any:
    made = original(model, parameters)
    loaded = _models.get(_number(model))
    if _number(made) and loaded is not None:
        noted = LoadedContext(loaded, parameters)
        _contexts[_number(made)] = noted
        _memories[_number(unwatched("llama_get_memory")(made))] = noted
    return made


def _frees_context(original: Callable[..., Any], made: Any) -> Any:
    noted = _contexts.pop(_number(made), None)
    for memory in [memory for memory, owner in _memories.items() if owner is noted]:
        del _memories[memory]
    return original(made)


def _loads_adapter(original: Callable[..., Any], model: Any, path: Any) -> Any:
    file = Path(os.fsdecode(path))
    try:
        before = _mark(os.stat(file))
        adapter = original(model, path)
        digest = files_digest([file]).hex()
        if _mark(os.stat(file)) != before:
            digest = this_process()
    except (OSError, IdentityUnknownError):
        adapter, digest = original(model, path), this_process()
    _adapters[_number(adapter)] = digest
    return adapter


def _sets_adapters(original: Callable[..., Any], made: Any, adapters: Any, count: int, scales: Any) -> Any:
    answer = original(made, adapters, count, scales)
    chosen = [
        [_adapters.get(_number(adapters[index]), this_process()), float(scales[index]).hex()]
        for index in range(count)
    ]
    _set(made, "adapters", sorted(chosen))
    return answer


def _sets_vector(original: Callable[..., Any], made: Any, data: Any, length: int, *layers: int) -> Any:
    answer = original(made, data, length, *layers)
    try:
        content = hashlib.sha256(ctypes.string_at(data, length * 4)).hexdigest() if data else None
    except (TypeError, ctypes.ArgumentError):
        content = this_process()
    _set(made, "vector", [content, *(int(layer) for layer in layers)] if content else None)
    return answer


def _sets(name: str) -> Callable[..., Any]:
    def watcher(original: Callable[..., Any], made: Any, value: Any) -> Any:
        _set(made, name, int(value))
        return original(made, value)

    return watcher


def _set(made: Any, name: str, value: Any) -> None:
    noted = _contexts.get(_number(made))
    if noted is not None:
        noted.set(name, value)


def _decodes(original: Callable[..., Any], made: Any, batch: Any) -> Any:
    answer = original(made, batch)
    noted = _contexts.get(_number(made))
    if noted is not None:
        _note_batch(noted, batch, answer == 0)
    return answer


def _note_batch(noted: LoadedContext, batch: Any, is_done: bool) -> None:
    """Tokens that continue what is known are known from now on; an embedding, or a gap, ends that."""
    count = int(batch.n_tokens)
    if not batch.pos:
        # llama.cpp put them behind all that was there. That is a gap for us, so that what follows is not known.
        return
    positions = batch.pos[:count]
    own = [
        index
        for index in range(count)
        if not batch.n_seq_id
        or not batch.seq_id
        or _SEQUENCE in batch.seq_id[index][: batch.n_seq_id[index]]
    ]
    if not own:
        return
    tokens = batch.token[:count] if batch.token and is_done else None
    for index in own:
        position = positions[index]
        if position < len(noted.written):
            noted.cut(position)
        if tokens is not None and position == len(noted.written) and tokens[index] >= 0:
            noted.written.append(tokens[index])


def _clears(original: Callable[..., Any], target: Any, *arguments: Any) -> Any:
    noted = _memories.get(_number(target)) or _contexts.get(_number(target))
    if noted is not None:
        noted.cut(0)
    return original(target, *arguments)


def _removes(original: Callable[..., Any], memory: Any, sequence: Any, first: Any, end: Any) -> Any:
    noted = _memories.get(_number(memory))
    if noted is not None and _number(sequence) in (-1, _SEQUENCE):
        noted.cut(_number(first))
    return original(memory, sequence, first, end)


def _copies(original: Callable[..., Any], memory: Any, source: Any, target: Any, first: Any, end: Any) -> Any:
    noted = _memories.get(_number(memory))
    if noted is not None and _number(target) == _SEQUENCE:
        noted.cut(0)
    return original(memory, source, target, first, end)


def _passes_on(original: Callable[..., Any], *arguments: Any) -> Any:
    """For a function that is made of others."""
    return original(*arguments)


def _unknown(original: Callable[..., Any], *arguments: Any) -> Any:
    # Whatever it does: it is not known here.
    for noted in _contexts.values():
        noted.set(original.__name__, this_process())
    return original(*arguments)


_WATCHERS: dict[str, Callable[..., Any]] = {
    "llama_model_load_from_file": _loads_file,
    "llama_model_load_from_splits": _loads_unknown,
    "llama_model_load_from_file_ptr": _loads_unknown,
    "llama_model_init_from_user": _loads_unknown,
    "llama_load_model_from_file": _loads_file,
    "llama_model_free": _frees_model,
    "llama_free_model": _frees_model,
    "llama_init_from_model": _makes_context,
    "llama_new_context_with_model": _makes_context,
    "llama_free": _frees_context,
    "llama_adapter_lora_init": _loads_adapter,
    "llama_set_adapters_lora": _sets_adapters,
    "llama_set_adapter_lora": _passes_on,
    "llama_set_adapter_cvec": _sets_vector,
    "llama_apply_adapter_cvec": _sets_vector,
    "llama_set_causal_attn": _sets("causal_attn"),
    "llama_set_warmup": _sets("warmup"),
    "llama_decode": _decodes,
    "llama_encode": _clears,
    "llama_memory_clear": _clears,
    "llama_memory_seq_rm": _removes,
    "llama_memory_seq_cp": _copies,
    "llama_memory_seq_keep": _clears,
    "llama_memory_seq_add": _clears,
    "llama_memory_seq_div": _clears,
    "llama_state_set_data": _clears,
    "llama_set_state_data": _clears,
    "llama_state_load_file": _clears,
    "llama_load_session_file": _clears,
    "llama_state_seq_set_data": _clears,
    "llama_state_seq_set_data_ext": _clears,
    "llama_state_seq_load_file": _clears,
}
