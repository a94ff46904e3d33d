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
import json
import logging
import os
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp
from llama_cpp import llama_cpp as api
from llama_cpp.llama_cache import BaseLlamaCache

from .errors import KVStoreError
from .memory import Spans
from .namespace import Identity, Namespace
from .prompt import Prompt
from .store import Store
from .weights import files_digest

logger = logging.getLogger(__name__)

_FORMAT = 1
TOKENS_PER_BLOCK = 64
_SEQUENCE, _SCRATCH = 0, 1
# Bytes of a value, by GGML's number of its type; blocks of other types are bounded as if they were 32-bit.
_TYPE_BYTES = {0: 4.0, 1: 2.0, 2: 18 / 32, 3: 20 / 32, 6: 22 / 32, 7: 24 / 32, 8: 34 / 32, 30: 2.0}


def allow_block_copies() -> None:
    """Makes contexts from now on with a second sequence, which blocks are cut out through.

    llama-cpp-python has no setting for it, so this changes the defaults that it starts from.
    """
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
    ) -> None:
        super().__init__(0)
        if llama.context_params.n_seq_max < 2 or not llama.context_params.kv_unified:
            raise ValueError("kvstore: call kvstore.llama_cpp.allow_block_copies() before the model is loaded")
        if api.llama_model_is_recurrent(llama.model) or api.llama_model_is_hybrid(llama.model):
            raise ValueError("kvstore: a recurrent model has one state for a sequence, which cannot be cut into blocks")
        self._llama = llama
        self._store = store
        self._block_bytes = _block_bytes(llama)
        self._namespace: Namespace = store.namespace(
            _identity(llama, Path(model_path), self._block_bytes, adapter_digest, salt)
        )
        self._buffer = (ctypes.c_uint8 * self._block_bytes)()

    @property
    def cache_size(self) -> int:
        """Bytes of the store's payload."""
        return int(self._store.stats()["payload_bytes_stored"])

    def __contains__(self, key: Sequence[int]) -> bool:
        return self._namespace.match(Prompt(key), peek=True).blocks > 0

    def __getitem__(self, key: Sequence[int]) -> Any:
        """Puts the longest stored prefix into the context; always raises KeyError, for there is no state to load."""
        try:
            self._restore(array("I", key))
        except KVStoreError as reason:
            logger.warning("kvstore: load failed: %s", reason)
        raise KeyError("what is stored of the prompt is in the context")

    def __setitem__(self, key: Sequence[int], value: Any) -> None:
        """Stores the blocks of the context that are new; `value`, the whole state, is not needed."""
        try:
            self._offload(array("I", self._llama.input_ids[: self._llama.n_tokens].tolist()))
        except KVStoreError as reason:
            logger.warning("kvstore: save failed: %s", reason)

    # ------------------------------------------------------------ private

    def _restore(self, tokens: array[int]) -> None:
        llama = self._llama
        present = llama.longest_token_prefix(llama.input_ids[: llama.n_tokens].tolist(), tokens.tolist())
        prompt = Prompt(tokens)
        match = self._namespace.match(prompt, leave_one_token=True)
        try:
            if match.tokens <= present:
                return
            first = present // TOKENS_PER_BLOCK
            memory = api.llama_get_memory(llama.ctx)
            if not api.llama_memory_seq_rm(memory, _SEQUENCE, first * TOKENS_PER_BLOCK, -1):
                return
            block = first
            while block < match.blocks and self._restore_block(memory, prompt, block):
                block += 1
            llama.n_tokens = block * TOKENS_PER_BLOCK
            llama.input_ids[: llama.n_tokens] = tokens[: llama.n_tokens]
            # The logits are those of another prompt.
            llama._requires_eval = True
        finally:
            self._store.release(match.lease)

    def _restore_block(self, memory: Any, prompt: Prompt, block: int) -> bool:
        spans = Spans.at([ctypes.addressof(self._buffer)], self._block_bytes)
        if self._namespace.restore(prompt, spans, first_block=block, block_count=1).blocks_done != 1:
            return False
        (size,) = spans.lengths()
        loaded = api.llama_state_seq_set_data(self._llama.ctx, self._buffer, size, _SCRATCH) == size
        if loaded:
            api.llama_memory_seq_cp(memory, _SCRATCH, _SEQUENCE, -1, -1)
        api.llama_memory_seq_rm(memory, _SCRATCH, -1, -1)
        return bool(loaded)

    def _offload(self, tokens: array[int]) -> None:
        blocks = len(tokens) // TOKENS_PER_BLOCK
        prompt = Prompt(tokens[: blocks * TOKENS_PER_BLOCK])
        memory = api.llama_get_memory(self._llama.ctx)
        for block in range(self._namespace.match(prompt, peek=True).blocks, blocks):
            start = block * TOKENS_PER_BLOCK
            api.llama_memory_seq_cp(memory, _SEQUENCE, _SCRATCH, start, start + TOKENS_PER_BLOCK)
            size = api.llama_state_seq_get_size(self._llama.ctx, _SCRATCH)
            written = 0
            if size <= self._block_bytes:
                written = api.llama_state_seq_get_data(self._llama.ctx, self._buffer, self._block_bytes, _SCRATCH)
            api.llama_memory_seq_rm(memory, _SCRATCH, -1, -1)
            if not 0 < written <= self._block_bytes:
                logger.warning("kvstore: llama.cpp did not write block %d", block)
                return
            done = self._namespace.offload(
                prompt.prefix(tokens=start + TOKENS_PER_BLOCK),
                Spans.at([ctypes.addressof(self._buffer)], written),
                first_block=block,
                block_count=1,
            )
            if done.blocks_done != 1:
                logger.warning("kvstore: save stopped: %s", done.status.name)
                return


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
    llama: llama_cpp.Llama, model_path: Path, block_bytes: int, adapter_digest: bytes, salt: bytes
) -> Identity:
    parameters = llama.context_params
    # Whatever of the context changes the KV; how many tokens fit and how many threads compute do not.
    settings = {
        name: getattr(parameters, name)
        for name in (
            "rope_scaling_type",
            "rope_freq_base",
            "rope_freq_scale",
            "yarn_ext_factor",
            "yarn_attn_factor",
            "yarn_beta_fast",
            "yarn_beta_slow",
            "yarn_orig_ctx",
            "attention_type",
            "flash_attn_type",
            "swa_full",
            "type_k",
            "type_v",
        )
    }
    return Identity(
        tokens_per_block=TOKENS_PER_BLOCK,
        region_bytes=(block_bytes,),
        regions_variable=True,
        model_name=llama.metadata.get("general.name", model_path.name),
        weights_digest=files_digest([model_path]),
        adapter_digest=adapter_digest,
        kv_dtype=f"ggml {parameters.type_k}/{parameters.type_v}",
        layout="llama_state_seq_get_data",
        engine_format=f"llama-cpp-python {llama_cpp.__version__}, kvstore {_FORMAT}",
        engine_bytes=hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).digest(),
        salt=salt,
    )


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
    add_args_from_model(parser, Settings)
    arguments = parser.parse_args()
    allow_block_copies()
    settings = parse_model_from_args(ServerSettings, arguments)
    model = parse_model_from_args(ModelSettings, arguments)
    with Store(arguments.kvstore, capacity=arguments.kvstore_bytes, host=arguments.kvstore_host_bytes) as store:
        application = server.create_app(server_settings=settings, model_settings=[model])
        llama = server._llama_proxy()
        adapter = files_digest([Path(model.lora_path)]) if model.lora_path else b""
        llama.set_cache(KVStoreCache(llama, model.model, store, adapter_digest=adapter))
        # Returns when the server was told to stop; the store is closed, and durable, after that.
        uvicorn.run(application, host=settings.host, port=settings.port)


if __name__ == "__main__":
    main()
