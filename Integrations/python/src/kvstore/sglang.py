"""SGLang keeps the third level of its HiCache in a kvstore: `KVStoreHiCache`, loaded by the "dynamic" backend.

    python -m sglang.launch_server --model-path MODEL --enable-hierarchical-cache --hicache-mem-layout page_first
      --hicache-storage-backend dynamic --hicache-storage-backend-extra-config '{
        "backend_name": "kvstore", "module_path": "kvstore.sglang", "class_name": "KVStoreHiCache", "interface_v1": 1,
        "hicache_storage_pass_prefix_keys": true, "path": "/var/cache/kv", "disk_bytes": "200GiB", "model_path": MODEL}'

SGLang hands over keys, not tokens: SHA-256 digests, each chained over its predecessor, so that the store's digest mode
serves. docs/engines/sglang.md tells what is stored. Importing this module needs SGLang.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from sglang.srt.mem_cache.hicache_storage import HiCacheStorage, HiCacheStorageConfig, HiCacheStorageExtraInfo

from . import loaded
from .effective import digest_setting, nonce
from .errors import KVStoreError, Status
from .memory import Spans
from .namespace import Identity, Namespace
from .prompt import Prompt
from .remote import RemoteSettings, wait_for_remote
from .sglang_identity import effective_configuration, effective_environment, watch_weights
from .sglang_sessions import Conversations
from .store import Store
from .weights import IdentityUnknownError, files_digest, weight_files

__all__ = ["KVStoreHiCache", "effective_configuration", "effective_environment"]

logger = logging.getLogger(__name__)

# Counts changes of what this backend puts into a block.
_FORMAT = 2
_DIGEST_BYTES = 32
_OURS: dict[str, type | tuple[type, ...]] = {
    "path": str,
    "disk_bytes": (str, int),
    "catalog_bytes": (str, int),
    "host_bytes": (str, int),
    "weights_digest": str,
    "model_path": str,
    "kv_cache_dtype": str,
    "buffered_io": bool,
    "read_only": bool,
    "offload_timeout_seconds": (int, float),
    "load_timeout_seconds": (int, float),
}


class KVStoreHiCache(HiCacheStorage):
    """A HiCacheStorage in a kvstore.

    With `interface_v1` pages are read and written in SGLang's host pool, in any of its layouts, without a copy. With
    `hicache_storage_pass_prefix_keys` the store knows how pages follow each other, and evicts the ends first. What a call
    finds is a namespace of its own for each of these ways, since they order a page's bytes, or its chain, in other ways.
    """

    def __init__(self, storage_config: HiCacheStorageConfig, kwargs: dict[str, Any] | None = None) -> None:
        self._config = storage_config
        self._settings = dict(storage_config.extra_config or {})
        for name, kind in _OURS.items():
            if name in self._settings and not isinstance(self._settings[name], kind):
                raise ValueError(f"kvstore: {name} is {self._settings[name]!r}")
        if not self._settings.get("path"):
            raise ValueError('kvstore: set "path" in --hicache-storage-backend-extra-config to the folder of the store')
        self._remote = RemoteSettings.remote_of(self._settings)
        if self._remote.remote and self._settings.get("read_only"):
            raise ValueError("kvstore: a store that is read_only has no remote tier: leave out one of them")
        if storage_config.dcp_size > 1:
            raise ValueError("kvstore: decode context parallelism is not supported")
        # From here on what happens to the weights is noticed, so that the record is of those that it was made of.
        self._weight_calls = watch_weights()
        self._weights = self._weights_digest()
        self._engine_bytes = hashlib.sha256(effective_configuration().encode()).digest()
        self._store: Store | None = None
        self._namespaces: dict[tuple[bool, tuple[int, ...]], Namespace] = {}
        self._lock = threading.Lock()
        self._warned: set[str] = set()
        self._chains: list[list[str]] = []
        self._page_bytes: int | None = None
        self._conversations: Conversations | None = None

    # ------------------------------------------------------------ SGLang's contract

    def register_mem_pool_host(self, mem_pool_host: Any) -> None:
        """Learns the host pool, and opens the store."""
        super().register_mem_pool_host(mem_pool_host)
        page_bytes = mem_pool_host.size_per_token * mem_pool_host.page_size
        if str(mem_pool_host.dtype) == "torch.uint8" and not self._settings.get("kv_cache_dtype"):
            raise ValueError(
                'kvstore: the KV cache has bytes of a quantised type; say which in "kv_cache_dtype", for example "fp8_e4m3"'
            )
        try:
            self._store = self._remote.open_store(
                self._settings["path"],
                capacity=self._settings.get("disk_bytes"),
                catalog=self._settings.get("catalog_bytes"),
                host=self._settings.get("host_bytes") or max(256 << 20, 16 * page_bytes),
                offload_timeout_seconds=self._settings.get("offload_timeout_seconds"),
                buffered_io=self._settings.get("buffered_io", False),
                read_only=self._settings.get("read_only", False),
            )
        except KVStoreError as reason:
            logger.error("kvstore: running without the store: %s", reason)
            return
        if self._settings.get("interface_v1") and not self._settings.get("read_only"):
            ranks = (self._config.tp_rank, self._config.pp_rank, self._config.attn_cp_rank, self._config.dp_rank)
            self._conversations = Conversations(self, mem_pool_host.page_size, records=not any(ranks))

    def register_mem_host_pool_v2(self, host_pool: Any, host_pool_name: Any) -> None:
        """Refuses models whose cache has more pools than KV: their pages would be of no use without the others."""
        name = str(host_pool_name)
        if name != "kv":
            raise ValueError(
                f"kvstore: this model has a cache of kind {name} beside its KV (recurrent, sliding-window or draft layers), "
                "which this storage backend does not keep; start SGLang without --hicache-storage-backend"
            )

    def batch_exists(self, keys: list[str], extra_info: HiCacheStorageExtraInfo | None = None) -> int:
        """The number of leading keys whose pages are stored."""
        prefix = self._prefix(extra_info)
        if self._conversations is not None:
            self._conversations.looked_up(keys)
        self._fetch([*(prefix or ()), *keys])
        if prefix is None and self._settings.get("interface_v1") and (known := self._from_the_start(keys)):
            return known

        def look(namespace: Namespace) -> int:
            if prefix is None:
                for index, key in enumerate(keys):
                    if namespace.match(_chain([key]), peek=True).blocks == 0:
                        return index
                return len(keys)
            return max(0, namespace.match(_chain([*prefix, *keys]), peek=True).blocks - len(prefix))

        return self._attempt("look-up", self._piece_bytes(), prefix is not None, look, 0)

    def _from_the_start(self, keys: list[str]) -> int:
        """How many of the keys are stored as a chain, where SGLang does not say what comes before them.

        It says None for no pages before, also where it passes the keys of pages before: then these are the first ones.
        """

        def look(namespace: Namespace) -> int:
            return namespace.match(_chain(keys), peek=True).blocks

        found = self._attempt("look-up", self._piece_bytes(), True, look, 0)
        if found:
            with self._lock:
                # For the call that brings these pages, and may begin behind the first ones.
                self._chains = [keys[:found], *self._chains[:15]]
        return found

    def _fetch(self, keys: list[str]) -> None:
        """Lets the remote tier bring what it has of these pages, and waits for it; SGLang asks on a thread for prefetches."""
        if not self._remote.remote or not self._settings.get("interface_v1"):
            # Pages that stand alone are no chunks.
            return
        chain = _chain(keys)

        def wait(namespace: Namespace) -> None:
            wait_for_remote(lambda: namespace.match(chain, peek=True, remote=True), self._remote.remote_wait_seconds)

        self._attempt("look-up", self._piece_bytes(), True, wait, None)

    def _known_prefix(self, keys: list[str]) -> list[str] | None:
        """The keys before these, if a look-up has found them as a chain."""
        with self._lock:
            for chain in self._chains:
                if keys[0] in chain:
                    return chain[: chain.index(keys[0])]
        return None

    def exists(self, key: str) -> bool:
        """Whether a page is stored, outside of any chain."""
        return self.batch_exists([key]) == 1

    def batch_get_v1(
        self, keys: list[str], host_indices: torch.Tensor, extra_info: HiCacheStorageExtraInfo | None = None
    ) -> list[bool]:
        """Fills pages of the host pool, in place."""
        done = self._move_pages("load", keys, host_indices, extra_info)
        return [index < done for index in range(len(keys))]

    def batch_set_v1(
        self, keys: list[str], host_indices: torch.Tensor, extra_info: HiCacheStorageExtraInfo | None = None
    ) -> list[bool]:
        """Stores pages of the host pool; they may be reused when it returns."""
        done = self._move_pages("save", keys, host_indices, extra_info)
        return [index < done for index in range(len(keys))]

    def batch_get(
        self, keys: list[str], target_locations: Sequence[torch.Tensor] | None = None, target_sizes: Any = None
    ) -> list[torch.Tensor | None]:
        """Fills tensors, a page each; None for those that are not stored, and all after them."""
        if not target_locations:
            return [None] * len(keys)
        found: list[torch.Tensor | None] = [None] * len(keys)
        for index, (key, target) in enumerate(zip(keys, target_locations, strict=True)):
            if not self._move_tensor("load", key, target):
                break
            found[index] = target
        return found

    def get(
        self, key: str, target_location: torch.Tensor | None = None, target_sizes: Any = None
    ) -> torch.Tensor | None:
        """Fills a tensor with a page."""
        return self.batch_get([key], [target_location])[0] if target_location is not None else None

    def batch_set(
        self,
        keys: list[str],
        values: Sequence[torch.Tensor] | None = None,
        target_locations: Any = None,
        target_sizes: Any = None,
    ) -> bool:
        """Stores tensors, a page each; True if all of them are."""
        return all(
            self._move_tensor("save", key, value.contiguous()) for key, value in zip(keys, values or (), strict=True)
        )

    def set(
        self, key: str, value: torch.Tensor | None = None, target_location: Any = None, target_sizes: Any = None
    ) -> bool:
        """Stores a tensor as a page."""
        return value is not None and self.batch_set([key], [value])

    def clear(self) -> bool:
        """Removes this model's pages."""
        with self._lock:
            namespaces = list(self._namespaces.values())
        try:
            for namespace in namespaces:
                namespace.forget(Prompt(digests=[]))
            return True
        except KVStoreError as reason:
            self._warn("clear", reason)
            return False

    def flush(self) -> None:
        """Waits until everything that was stored is durable."""
        if self._store is not None:
            self._store.flush()

    def close(self) -> None:
        """Makes durable what was stored, and closes."""
        if self._conversations is not None:
            self._conversations.close()
            self._conversations = None
        store, self._store = self._store, None
        if store is not None:
            try:
                store.close()
            except KVStoreError as reason:
                logger.warning("kvstore: %s", reason)

    # ------------------------------------------------------------ private

    def _move_pages(
        self, what: str, keys: list[str], host_indices: torch.Tensor, extra_info: HiCacheStorageExtraInfo | None
    ) -> int:
        """Moves pages of the host pool; returns how many leading ones were."""
        if not keys:
            return 0
        addresses, sizes = self.mem_pool_host.get_page_buffer_meta(host_indices)
        pieces = len(addresses) // len(keys)
        prefix = self._prefix(extra_info)
        if prefix is None and what == "load":
            prefix = self._known_prefix(keys)

        def move(namespace: Namespace) -> int:
            if prefix is not None:
                chain = _chain([*prefix, *keys])
                return self._move(what, namespace, chain, Spans.at(addresses, sizes), len(prefix), keys)
            for index, key in enumerate(keys):
                part = slice(index * pieces, (index + 1) * pieces)
                if self._move(what, namespace, _chain([key]), Spans.at(addresses[part], sizes[part]), 0) != 1:
                    return index
            return len(keys)

        return self._attempt(what, tuple(sizes[:pieces]), prefix is not None, move, 0)

    def _move_tensor(self, what: str, key: str, tensor: torch.Tensor) -> bool:
        if tensor.device.type != "cpu" or not tensor.is_contiguous():
            return False
        size = tensor.numel() * tensor.element_size()
        spans = Spans.at([tensor.data_ptr()], size)
        chain = _chain([key])
        return self._attempt(what, (size,), False, lambda ns: self._move(what, ns, chain, spans, 0) == 1, False)

    def _move(
        self, what: str, namespace: Namespace, chain: Prompt, spans: Spans, first: int, keys: list[str] | None = None
    ) -> int:
        if what == "load":
            timeout = self._settings.get("load_timeout_seconds", 30.0)
            done = namespace.restore(chain, spans, first_block=first, timeout_seconds=timeout).blocks_done
            if done and self._remote.remote:
                # SGLang's look-ups are peeks, and a restore is no use that the remote tier hears of.
                namespace.match(chain).release()
            return done
        told = self._conversations if keys else None
        answer = namespace.offload(chain, spans, first_block=first, **(told.wishes(keys) if told and keys else {}))
        if answer.status not in (Status.OK, Status.BUSY):
            self._warn("save", answer.status.name)
        if told and keys:
            told.saved(keys)
        return answer.blocks_done

    def chain(self, keys: list[str]) -> Prompt:
        """The pages' keys as a prompt."""
        return _chain(keys)

    def attempt_chained(self, what: str, work: Callable[[Namespace], Any]) -> Any:
        """Does something with the namespace of pages that follow each other; a failure is logged."""
        return self._attempt(what, self._piece_bytes(), True, work, None)

    def _prefix(self, extra_info: HiCacheStorageExtraInfo | None) -> list[str] | None:
        """The keys before a call's pages. Without interface_v1 SGLang tells them on look-ups alone, and pages stand alone."""
        return extra_info.prefix_keys if extra_info is not None and self._settings.get("interface_v1") else None

    def _piece_bytes(self) -> tuple[int, ...]:
        """The pieces of a page, as the last call that moved any had them; before that, as the pool says."""
        if self._settings.get("interface_v1"):
            return tuple(self.mem_pool_host.get_page_buffer_meta(torch.arange(self.mem_pool_host.page_size))[1])
        if self._page_bytes is None:
            # Made once: SGLang pins it.
            page = self.mem_pool_host.get_dummy_flat_data_page()
            self._page_bytes = page.numel() * page.element_size()
        return (self._page_bytes,)

    def _attempt(self, what: str, piece_bytes: tuple[int, ...], chained: bool, work: Any, without: Any) -> Any:
        """Does something with the namespace; `without` where there is none, or it fails: a cache is never an error."""
        try:
            if self._store is None:
                return without
            if self._weight_calls:
                # SGLang may have pages of the old weights in its own cache, and go on with them.
                calls = ", ".join(sorted(set(self._weight_calls)))
                self._warn(what, f"{calls} may have changed the weights: nothing is loaded or stored until it is started again")
                return without
            with self._lock:
                namespace = self._namespaces.get((chained, piece_bytes))
                if namespace is None:
                    namespace = self._store.namespace(self._identity(piece_bytes, chained))
                    self._namespaces[chained, piece_bytes] = namespace
            return work(namespace)
        except KVStoreError as reason:
            self._warn(what, reason)
            return without

    def _identity(self, piece_bytes: tuple[int, ...], chained: bool) -> Identity:
        import sglang

        pool, config = self.mem_pool_host, self._config
        # Latent KV is the same on all tensor-parallel ranks, of which one writes.
        replicated = config.is_mla_model
        geometry = [getattr(pool, name, None) for name in ("layer_num", "head_num", "head_dim", "v_head_dim")]
        return Identity(
            digest_bytes=_DIGEST_BYTES,
            tokens_per_block=pool.page_size,
            region_bytes=piece_bytes,
            model_name=config.model_name or "",
            weights_digest=self._weights,
            kv_dtype=self._settings.get("kv_cache_dtype") or str(pool.dtype).removeprefix("torch."),
            layout=f"{pool.layout} {geometry} {type(pool).__name__}",
            engine_format=(
                f"sglang {sglang.__version__}, torch {torch.__version__}, kvstore {_FORMAT}{', chained' if chained else ''}"
            ),
            engine_bytes=self._engine_bytes,
            layer_count=getattr(pool, "layer_num", 0) or 0,
            kv_head_count=getattr(pool, "head_num", 0) or 0,
            head_size=getattr(pool, "head_dim", 0) or 0,
            tensor_parallel_rank=0 if replicated else config.tp_rank,
            tensor_parallel_size=1 if replicated else config.tp_size,
            pipeline_parallel_rank=config.pp_rank,
            pipeline_parallel_size=config.pp_size,
            context_parallel_rank=config.attn_cp_rank,
            context_parallel_size=config.attn_cp_size,
        )

    def _weights_digest(self) -> bytes:
        if "weights_digest" in self._settings:
            return digest_setting("weights_digest", self._settings["weights_digest"])
        model = self._settings.get("model_path") or self._config.model_name or ""
        files = weight_files(model) if model else []
        if not files:
            raise IdentityUnknownError(
                f'kvstore: the weight files of {model!r} were not found; set "model_path" to their folder, or '
                '"weights_digest" (32 bytes in hexadecimal) to something that changes with the weights'
            )
        if changed := loaded.changed_since_start(files):
            logger.warning(
                "kvstore: %s was changed since this engine began to start, and what of it was loaded cannot be told: "
                "pages of this process serve it alone",
                ", ".join(str(file) for file in changed),
            )
            return nonce()
        return files_digest(files)

    def _warn(self, what: str, reason: object) -> None:
        kind = f"{what}: {type(reason).__name__} {reason}"
        if kind not in self._warned and len(self._warned) < 100:
            self._warned.add(kind)
            logger.warning("kvstore: %s failed; SGLang goes on without: %s", what, reason)


def _chain(keys: Sequence[str]) -> Prompt:
    """SGLang's keys as digests. A key that is no SHA-256 in hexadecimal, as of a pool of its own, is hashed."""
    return Prompt(digests=[_digest(key) for key in keys])


def _digest(key: str) -> bytes:
    if len(key) == 2 * _DIGEST_BYTES:
        try:
            return bytes.fromhex(key)
        except ValueError:
            pass
    return hashlib.sha256(key.encode()).digest()
