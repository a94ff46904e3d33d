"""llama-cpp-python keeps its KV cache in a kvstore; and its OpenAI-compatible server does, by another start command.

    python -m kvstore.llama_cpp --kvstore /var/cache/kv --model model.gguf --n_ctx 8192

takes the arguments of `python -m llama_cpp.server`, and those that begin with --kvstore. In a program of one's own:

    kvstore.llama_cpp.allow_block_copies()          # before a Llama is made
    llama = llama_cpp.Llama("model.gguf", n_ctx=8192)
    llama.set_cache(kvstore.llama_cpp.KVStoreCache(llama, "model.gguf", kvstore.Store("/var/cache/kv")))

How it works. A block is the state of 64 consecutive tokens, as llama.cpp writes it for a sequence. To cut one out, its
cells are tagged as a scratch sequence (which copies nothing), that sequence is saved, and the tag is taken off; to put it
back, the blob is loaded into the scratch sequence, which is then copied onto the real one. So a turn of a conversation
writes its own tokens only. docs/engines/llama-cpp-python.md tells more. Importing this module needs llama-cpp-python.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import logging
import os
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp
from llama_cpp import llama_cpp as api
from llama_cpp.llama_cache import BaseLlamaCache

from . import llama_loaded as loaded
from . import llama_recurrent as recurrent
from .errors import KVStoreError
from .hints import Hints
from .llama_sessions import Conversations, HintsFromHeaders, of_request
from .memory import Spans
from .namespace import Identity, Namespace
from .prompt import Prompt
from .remote import add_remote_arguments, remote_arguments, wait_for_remote
from .results import Match
from .store import Store
from .weights import IdentityUnknownError, files_digest

logger = logging.getLogger(__name__)

# Counts changes of what is put into a block, and of how its tokens are told.
_FORMAT = 2
TOKENS_PER_BLOCK = 64
_SEQUENCE, _SCRATCH = 0, 1
# GGML_BACKEND_DEVICE_TYPE_CPU
_CPU = 0
# Bytes of a value, by GGML's number of its type; blocks of other types are bounded as if they were 32-bit.
_TYPE_BYTES = {0: 4.0, 1: 2.0, 2: 18 / 32, 3: 20 / 32, 6: 22 / 32, 7: 24 / 32, 8: 34 / 32, 30: 2.0}


def allow_block_copies() -> None:
    """Makes contexts from now on with a second sequence, which blocks are cut out through, and notes what is loaded.

    llama-cpp-python has no setting for the former, so this changes the defaults that it starts from; and llama.cpp does not
    tell the latter, so this watches the calls by which models, adapters and contexts are made and tokens evaluated. A
    function that a program took out of llama_cpp before this (`from llama_cpp import llama_decode`) is not watched.
    """
    loaded.watch()
    original = api.llama_context_default_params
    if getattr(original, "_kvstore", False):
        return

    def with_scratch_sequence() -> Any:
        parameters = original()
        parameters.n_seq_max = max(2, parameters.n_seq_max)
        # All sequences share one set of cells: tagging copies nothing. Sliding-window layers keep every token.
        parameters.kv_unified = True
        parameters.swa_full = True
        return parameters

    with_scratch_sequence._kvstore = True  # type: ignore[attr-defined]
    api.llama_context_default_params = with_scratch_sequence


class KVStoreCache(BaseLlamaCache):
    """A cache of a `llama_cpp.Llama` in a store: `llama.set_cache(KVStoreCache(...))`.

    llama-cpp-python looks a prompt up before it computes. Here the look-up itself puts the longest stored prefix into the
    model's context, so that the model finds it there, and then answers that there is no state to load.
    """

    def __init__(
        self,
        llama: llama_cpp.Llama,
        model_path: str | os.PathLike[str],
        store: Store,
        *,
        adapter_digest: bytes = b"",
        salt: bytes = b"",
        remote_wait_seconds: float = 2.0,
    ) -> None:
        super().__init__(0)
        self._remote_wait = remote_wait_seconds
        noted = loaded.context(llama)
        if noted is None or llama.context_params.n_seq_max < 2 or not llama.context_params.kv_unified:
            raise ValueError("kvstore: call kvstore.llama_cpp.allow_block_copies() before the model is loaded")
        self._llama = llama
        self._loaded = noted
        self._store = store
        self._state: recurrent.RecurrentState | None = None
        self._tokens_per_block, self._block_bytes = TOKENS_PER_BLOCK, 0
        if api.llama_model_is_recurrent(llama.model) or api.llama_model_is_hybrid(llama.model):
            if api.llama_model_n_swa(llama.model) > 0:
                raise ValueError("kvstore: recurrent layers beside sliding windows are not supported")
            self._state = recurrent.RecurrentState(llama.ctx, _SEQUENCE, _SCRATCH)
            self._tokens_per_block, self._block_bytes = recurrent.TOKENS_PER_BLOCK, self._state.block_bytes
            self._eval_part = llama.eval
            llama.eval = self._eval
        else:
            self._block_bytes = _block_bytes(llama)
        self._model_name = llama.metadata.get("general.name", Path(model_path).name)
        self._adapter_digest = adapter_digest
        self._salt = salt
        self._buffer = (ctypes.c_uint8 * self._block_bytes)()
        self._changed = False
        self._described = ""
        self.hints: Hints | None = None
        """What is known of the requests that follow; in the server, each request's headers come first."""
        self._conversations = Conversations()
        self._namespace = self._current_namespace()

    @property
    def cache_size(self) -> int:
        """Bytes of the store's payload."""
        return int(self._store.stats()["payload_bytes_stored"])

    def __contains__(self, key: Sequence[int]) -> bool:
        return self._match(self._current_namespace(), Prompt(key), peek=True)[0].blocks > 0

    def __getitem__(self, key: Sequence[int]) -> Any:
        """Puts the longest stored prefix into the context; always raises KeyError, for there is no state to load."""
        try:
            if self._is_usable():
                tokens = array("I", key)
                self._restore(tokens)
                self._note(tokens)
        except KVStoreError as reason:
            logger.warning("kvstore: load failed: %s", reason)
        raise KeyError("what is stored of the prompt is in the context")

    def __setitem__(self, key: Sequence[int], value: Any) -> None:
        """Stores the blocks of the context that are new; `value`, the whole state, is not needed."""
        try:
            if self._is_usable():
                # What evaluation wrote. An image is in the context, too, but not by a token id of its own.
                tokens, hints = array("I", self._loaded.written[: self._llama.n_tokens]), self._hints()
                self._offload(tokens, hints)
                self._conversations.answered(self._current_namespace(), hints, tokens)
        except KVStoreError as reason:
            logger.warning("kvstore: save failed: %s", reason)

    def close(self) -> None:
        """Ends the sessions that are open; before the store is closed."""
        self._conversations.close()

    # ------------------------------------------------------------ private

    def _hints(self) -> Hints:
        return of_request.get() or self.hints or Hints()

    def _note(self, tokens: array[int]) -> None:
        """Records the request that has just been looked up, if it is one of a session."""
        if (hints := self._hints()).session:
            llama = self._llama
            present = llama.longest_token_prefix(llama.input_ids[: llama.n_tokens].tolist(), tokens.tolist())
            computed = len(tokens) - min(present, len(tokens) - 1)
            self._conversations.asked(self._current_namespace(), hints, Prompt(tokens), computed)

    def _is_usable(self) -> bool:
        """False once the model's files were written to: they are mapped, so that nobody knows what is computed with."""
        if not self._changed and not self._loaded.model.is_unchanged:
            self._changed = True
            logger.warning("kvstore: the model's files have changed under the running engine; going on without the store")
        return not self._changed

    def _current_namespace(self) -> Namespace:
        """The namespace of what is loaded now: an adapter, its scale and other settings may come and go."""
        described = self._loaded.identity()
        if described != self._described:
            if self._described:
                self._namespace.close()
            self._namespace = self._store.namespace(
                _identity(
                    self._llama,
                    self._loaded,
                    self._model_name,
                    self._tokens_per_block,
                    self._block_bytes,
                    self._adapter_digest,
                    self._salt,
                )
            )
            self._described = described
        return self._namespace

    def _restore(self, tokens: array[int]) -> None:
        llama, written = self._llama, self._loaded.written
        if len(written) < llama.n_tokens:
            # Something is there that tokens do not tell: an image, or a state that was loaded. Its handler goes on with
            # whatever ids are at its positions; those of another prompt do not.
            if llama.longest_token_prefix(llama.input_ids[: llama.n_tokens].tolist(), tokens.tolist()) == llama.n_tokens:
                return
            llama.n_tokens = len(written)
            llama._requires_eval = True
        present = llama.longest_token_prefix(written[: llama.n_tokens].tolist(), tokens.tolist())
        if self._state is not None and present < llama.n_tokens:
            # No state can be taken back.
            present = 0
        prompt = Prompt(tokens)
        namespace = self._current_namespace()
        # Where the store has a remote tier.
        wait_for_remote(
            lambda: self._match(namespace, prompt, peek=True, leave_one_token=True, remote=True)[0], self._remote_wait
        )
        match, *states = self._match(namespace, prompt, leave_one_token=True)
        try:
            if match.tokens <= present:
                return
            # A state is brought whole, and so is what comes before it.
            first = 0 if self._state is not None else present // self._tokens_per_block
            memory = api.llama_get_memory(llama.ctx)
            # Watched: what is known of the context ends here.
            if not api.llama_memory_seq_rm(memory, _SEQUENCE, first * self._tokens_per_block or -1, -1):
                return
            block = first
            while block < match.blocks and self._restore_block(namespace, memory, prompt, block):
                block += 1
            if self._state is not None and not (
                block == match.blocks and self._state.load(namespace, prompt, block)
            ):
                api.llama_memory_seq_rm(memory, _SEQUENCE, -1, -1)
                block = 0
            llama.n_tokens = block * self._tokens_per_block
            llama.input_ids[: llama.n_tokens] = tokens[: llama.n_tokens]
            written[:] = array("i", tokens[: llama.n_tokens])
            # The logits are those of another prompt.
            llama._requires_eval = True
        finally:
            for found in (match, *states):
                self._store.release(found.lease)

    def _match(self, namespace: Namespace, prompt: Prompt, **how: bool) -> list[Match]:
        """The longest prefix that can be used, and its state."""
        if self._state is None:
            return [namespace.match(prompt, **how)]
        return namespace.match_sections([self._state.section(namespace)], prompt, **how)

    def _eval(self, tokens: Sequence[int]) -> None:
        """Evaluates, and on the way stands still where a state is to be stored."""
        assert self._state is not None
        llama, rest = self._llama, list(tokens)
        end = llama.n_tokens + len(rest)
        last = (end - 1) // self._tokens_per_block * self._tokens_per_block
        while rest:
            at = llama.n_tokens
            ahead = at - at % recurrent.CHECKPOINT_TOKENS + recurrent.CHECKPOINT_TOKENS
            stop = min([place for place in (last, ahead, end) if place > at])
            self._eval_part(rest[: stop - at])
            rest = rest[stop - at :]
            if stop in (last, ahead):
                self._checkpoint()

    def _checkpoint(self) -> None:
        assert self._state is not None
        count = self._llama.n_tokens
        # An image is there, too, but not by token ids.
        if len(self._loaded.written) != count or not self._is_usable():
            return
        try:
            tokens = array("I", self._loaded.written)
            if self._store.has_remote:
                # A state goes there with the prefix that it stands behind, which has to be stored before it.
                self._offload(tokens, self._hints())
            self._state.save(self._current_namespace(), Prompt(tokens))
        except KVStoreError as reason:
            logger.warning("kvstore: save failed: %s", reason)

    def _restore_block(self, namespace: Namespace, memory: Any, prompt: Prompt, block: int) -> bool:
        spans = Spans.at([ctypes.addressof(self._buffer)], self._block_bytes)
        if namespace.restore(prompt, spans, first_block=block, block_count=1).blocks_done != 1:
            return False
        (size,) = spans.lengths()
        if self._state is not None:
            done = self._state.join(self._buffer, size)
        else:
            done = _call("llama_state_seq_set_data")(self._llama.ctx, self._buffer, size, _SCRATCH) == size
        if done:
            _call("llama_memory_seq_cp")(memory, _SCRATCH, _SEQUENCE, -1, -1)
        _call("llama_memory_seq_rm")(memory, _SCRATCH, -1, -1)
        return bool(done)

    def _offload(self, tokens: array[int], hints: Hints) -> None:
        size = self._tokens_per_block
        blocks = len(tokens) // size
        prompt = Prompt(tokens[: blocks * size])
        memory = api.llama_get_memory(self._llama.ctx)
        namespace = self._current_namespace()
        for block in range(namespace.match(prompt, peek=True).blocks, blocks):
            start = block * size
            _call("llama_memory_seq_cp")(memory, _SEQUENCE, _SCRATCH, start, start + size)
            taken = 0
            if self._state is not None:
                taken = self._state.cut(self._buffer)
            elif api.llama_state_seq_get_size(self._llama.ctx, _SCRATCH) <= self._block_bytes:
                taken = api.llama_state_seq_get_data(self._llama.ctx, self._buffer, self._block_bytes, _SCRATCH)
            _call("llama_memory_seq_rm")(memory, _SCRATCH, -1, -1)
            if not 0 < taken <= self._block_bytes:
                logger.warning("kvstore: llama.cpp did not write block %d", block)
                return
            done = namespace.offload(
                prompt.prefix(tokens=start + size),
                Spans.at([ctypes.addressof(self._buffer)], taken),
                first_block=block,
                block_count=1,
                **hints.of_blocks,
            )
            if done.blocks_done != 1:
                logger.warning("kvstore: save stopped: %s", done.status.name)
                return


def _call(name: str) -> Any:
    """A call of the store's own: it changes what the context holds, and says so itself."""
    return loaded.unwatched(name)


def _block_bytes(llama: llama_cpp.Llama) -> int:
    """The most bytes that llama.cpp writes for a block: K and V of every layer, and a little for each cell."""
    metadata = llama.metadata
    architecture = metadata["general.architecture"]

    def number(name: str, otherwise: int) -> int:
        return int(metadata.get(f"{architecture}.{name}", otherwise))

    layers, heads = number("block_count", 0), number("attention.head_count", 1)
    kv_heads = number("attention.head_count_kv", heads)
    width = number("embedding_length", 0) // heads
    parameters = llama.context_params
    values = number("attention.key_length", width) * _TYPE_BYTES.get(parameters.type_k, 4.0)
    values += number("attention.value_length", width) * _TYPE_BYTES.get(parameters.type_v, 4.0)
    # Per layer and side a type, a row size and padding; per cell its position and sequences.
    return round(TOKENS_PER_BLOCK * layers * kv_heads * values) + 256 * layers + 64 * TOKENS_PER_BLOCK + 4096


def _identity(
    llama: llama_cpp.Llama,
    noted: loaded.LoadedContext,
    model_name: str,
    tokens_per_block: int,
    block_bytes: int,
    adapter_digest: bytes,
    salt: bytes,
) -> Identity:
    parameters = llama.context_params
    adapters = [adapter_digest.hex(), noted.settings.get("adapters"), noted.settings.get("vector")]
    whole = [noted.identity(), _long_context(llama, noted), llama.metadata, _engine(), _devices()]
    return Identity(
        tokens_per_block=tokens_per_block,
        region_bytes=(block_bytes,),
        regions_variable=True,
        model_name=model_name,
        weights_digest=noted.model.digest,
        adapter_digest=hashlib.sha256(loaded.canonical(adapters).encode()).digest() if any(adapters) else b"",
        kv_dtype=f"ggml {parameters.type_k}/{parameters.type_v}",
        layout="llama_state_seq_get_data",
        engine_format=f"llama-cpp-python {llama_cpp.__version__}, kvstore {_FORMAT}",
        engine_bytes=hashlib.sha256(loaded.canonical(whole).encode()).digest(),
        salt=salt,
    )


def _long_context(llama: llama_cpp.Llama, noted: loaded.LoadedContext) -> list[tuple[int, bool]]:
    """Which of a LongRoPE model's two sets of factors the context's size chooses.

    llama.cpp compares with a number of the metadata or of an override, else with the training context; which one it took
    is the model's affair, so that the answers to all of them are told.
    """
    bounds = {int(api.llama_model_n_ctx_train(llama.model))}
    for source in (llama.metadata, noted.model.overrides):
        for name, value in source.items():
            if name.endswith((".original_context_length", ".context_length")) and str(value).isdigit():
                bounds.add(int(value))
    size = int(api.llama_n_ctx(llama.ctx))
    return [(bound, size > bound) for bound in sorted(bounds)]


def _engine() -> list[str]:
    """The libraries that are loaded, by their content; kernels differ by instruction set, too."""
    folder = Path(api._lib._name).resolve().parent
    found = sorted(
        {
            file.resolve()
            for file in folder.iterdir()
            if file.is_file() and ".so" in file.name and file.name.startswith(("libllama", "libggml"))
        }
    )
    # A library of CUDA kernels is too large to be read whole, and the others change with it.
    told = [file for file in found if file.stat().st_size <= 16 << 20]
    return [
        files_digest(told).hex(),
        *(f"{file.name} {file.stat().st_size}" for file in found),
        api.llama_print_system_info().decode(),
    ]


def _devices() -> list[str]:
    """The devices that computing may use, by name; of all but the CPU, whose instruction sets count, the model as well."""
    # Its symbols are those of the libraries that it was linked with, too.
    library = api._lib
    try:
        count, get = library.ggml_backend_dev_count, library.ggml_backend_dev_get
        kind, name = library.ggml_backend_dev_type, library.ggml_backend_dev_name
        description = library.ggml_backend_dev_description
    except AttributeError as missing:
        raise IdentityUnknownError(f"kvstore: this llama-cpp-python does not tell its devices: {missing}") from missing
    count.argtypes, count.restype = [], ctypes.c_size_t
    get.argtypes, get.restype = [ctypes.c_size_t], ctypes.c_void_p
    kind.argtypes, kind.restype = [ctypes.c_void_p], ctypes.c_int
    for text in (name, description):
        text.argtypes, text.restype = [ctypes.c_void_p], ctypes.c_char_p
    devices = [get(index) for index in range(count())]
    return [
        name(device).decode() + ("" if kind(device) == _CPU else f" {description(device).decode()}")
        for device in devices
    ]


def main() -> None:
    """Starts llama-cpp-python's server with a cache in a store."""
    import uvicorn
    from llama_cpp.server import app as server
    from llama_cpp.server.cli import add_args_from_model, parse_model_from_args
    from llama_cpp.server.settings import ModelSettings, ServerSettings, Settings

    parser = argparse.ArgumentParser(prog="python -m kvstore.llama_cpp", description=main.__doc__)
    parser.add_argument("--kvstore", required=True, metavar="DIR", help="the folder of the store")
    parser.add_argument("--kvstore_bytes", default="10GiB", help='the most that it takes on disk (default "10GiB")')
    parser.add_argument("--kvstore_host_bytes", default="256MiB", help="RAM for blocks on their way")
    add_remote_arguments(parser, "--kvstore_")
    add_args_from_model(parser, Settings)
    arguments = parser.parse_args()
    remote = remote_arguments(arguments, "--kvstore_")
    allow_block_copies()
    settings = parse_model_from_args(ServerSettings, arguments)
    model = parse_model_from_args(ModelSettings, arguments)
    with remote.open_store(
        arguments.kvstore, capacity=arguments.kvstore_bytes, host=arguments.kvstore_host_bytes
    ) as store:
        application = server.create_app(server_settings=settings, model_settings=[model])
        llama = server._llama_proxy()
        cache = KVStoreCache(llama, model.model, store, remote_wait_seconds=remote.remote_wait_seconds)
        llama.set_cache(cache)
        # Returns when the server was told to stop; the store is closed, and durable, after that.
        uvicorn.run(HintsFromHeaders(application), host=settings.host, port=settings.port)
        cache.close()


if __name__ == "__main__":
    main()
