"""LMCache keeps its second level in a kvstore: `KVStoreL2Adapter`, loaded by the "plugin" adapter of its MP server.

    lmcache server ... --l2-adapter '{"type": "plugin", "module_path": "kvstore.lmcache", "class_name": "KVStoreL2Adapter",
      "adapter_params": {"path": "/var/cache/kv", "disk_bytes": "200GiB", "weights_digest": "..."}}'

LMCache hands over keys, not tokens: the chained hash of a chunk, the model's name, rank, group and salt. They say nothing of the
weights, so that `weights_digest` is asked for: what `kvstore weights-digest MODEL` prints. docs/engines/lmcache.md tells what is
stored. Importing this module needs LMCache.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lmcache.lmcache_native import Bitmap
from lmcache.v1.distributed.internal_api import L2StoreResult
from lmcache.v1.distributed.l2_adapters.base import L2AdapterInterface
from lmcache.v1.platform import create_event_notifier

from .effective import digest_setting
from .errors import KVStoreError, Status
from .memory import Spans
from .namespace import Identity, Namespace
from .prompt import Prompt
from .remote import RemoteSettings, remote_names
from .store import Store

logger = logging.getLogger(__name__)

# Counts changes of what this adapter puts into a block, and of how it is named.
_FORMAT = 1
_NAMESPACES_MAX = 256
_LEASE_SECONDS = 120.0
# Of the remote tier, what may be under way at a time.
_FETCHES_MAX = 32
_LOOK_SECONDS = 0.002
_SETTINGS: dict[str, type | tuple[type, ...]] = {
    "path": str,
    "weights_digest": str,
    "disk_bytes": (str, int),
    "catalog_bytes": (str, int),
    "host_bytes": (str, int),
    "threads": int,
    "load_timeout_seconds": (int, float),
    "offload_timeout_seconds": (int, float),
    "buffered_io": bool,
    "read_only": bool,
    # Checked by RemoteSettings.
    **{name: object for name in remote_names()},
}

Shape = tuple[int, str]
"""Bytes of an object, and the types of its values."""


class KVStoreL2Adapter(L2AdapterInterface):
    """LMCache's objects as blocks of a store, each standing alone, named by a digest of the whole key."""

    def __init__(self, config: Mapping[str, Any], l1_memory_desc: Any = None) -> None:
        # The store evicts by itself: LMCache is told of no capacity to watch.
        super().__init__()
        settings = dict(config)
        if unknown := sorted(set(settings) - set(_SETTINGS)):
            raise ValueError(f"kvstore: unknown setting {', '.join(unknown)}; there are {', '.join(sorted(_SETTINGS))}")
        for name, kind in _SETTINGS.items():
            if name in settings and not isinstance(settings[name], kind):
                raise ValueError(f"kvstore: {name} is {settings[name]!r}")
        if not settings.get("path"):
            raise ValueError('kvstore: set "path" in adapter_params to the folder of the store')
        if not settings.get("weights_digest"):
            raise ValueError(
                'kvstore: set "weights_digest" in adapter_params to what `kvstore weights-digest MODEL` prints: LMCache\'s keys '
                "have the model's name, and not its weights"
            )
        self._remote = RemoteSettings.remote_of(settings)
        if self._remote.remote and settings.get("read_only"):
            raise ValueError("kvstore: a store that is read_only has no remote tier: leave out one of them")
        self._weights = digest_setting("weights_digest", settings["weights_digest"])
        self._load_timeout = float(settings.get("load_timeout_seconds", 30.0))
        self._events = {name: create_event_notifier() for name in ("store", "lookup", "load")}
        self._done: dict[str, dict[int, Any]] = {name: {} for name in self._events}
        self._lock = threading.Lock()
        self._next_task = 0
        self._namespaces: OrderedDict[tuple[str, str, Shape], Namespace] = OrderedDict()
        self._shapes: dict[int, Shape] = {}
        """By group: of the objects that were moved last, for look-ups that do not tell."""
        self._leases: dict[Any, list[int]] = {}
        self._warned: set[str] = set()
        self._store: Store | None = None
        try:
            self._store = self._remote.open_store(
                settings["path"],
                capacity=settings.get("disk_bytes"),
                catalog=settings.get("catalog_bytes"),
                host=settings.get("host_bytes") or (512 << 20),
                offload_timeout_seconds=settings.get("offload_timeout_seconds", 10.0),
                buffered_io=settings.get("buffered_io", False),
                read_only=settings.get("read_only", False),
            )
        except KVStoreError as reason:
            logger.error("kvstore: running without the store: %s", reason)
        self._workers = ThreadPoolExecutor(int(settings.get("threads", 4)), thread_name_prefix="kvstore-lmcache")

    # ------------------------------------------------------------ LMCache's contract

    def get_store_event_fd(self) -> int:
        return int(self._events["store"].fileno())

    def get_lookup_and_lock_event_fd(self) -> int:
        return int(self._events["lookup"].fileno())

    def get_load_event_fd(self) -> int:
        return int(self._events["load"].fileno())

    def submit_store_task(self, keys: list[Any], objects: list[Any]) -> int:
        """Stores objects; those that are stored already cost nothing."""
        return self._submit("store", self._store_objects, list(keys), list(objects))

    def pop_completed_store_tasks(self) -> dict[int, L2StoreResult]:
        with self._lock:
            done, self._done["store"] = self._done["store"], {}
        return done

    def submit_lookup_and_lock_task(self, keys: list[Any], group_layout_descs: dict[int, Any]) -> int:
        """Looks objects up, and takes a lease on each that is there."""
        return self._submit("lookup", self._look_up, list(keys), dict(group_layout_descs or {}))

    def query_lookup_and_lock_result(self, task_id: int) -> Bitmap | None:
        with self._lock:
            return self._done["lookup"].pop(task_id, None)

    def submit_unlock(self, keys: list[Any]) -> None:
        """Gives back a lease of each. One that is never given back ends by itself."""
        with self._lock:
            leases = [self._leases[key].pop() for key in keys if self._leases.get(key)]
            for key in keys:
                if not self._leases.get(key, True):
                    del self._leases[key]
        for lease in leases:
            self._attempt("unlock", lambda store, lease=lease: store.release(lease), None)

    def submit_load_task(self, keys: list[Any], objects: list[Any]) -> int:
        """Fills objects; every byte is verified."""
        return self._submit("load", self._load_objects, list(keys), list(objects))

    def query_load_result(self, task_id: int) -> Bitmap | None:
        with self._lock:
            return self._done["load"].pop(task_id, None)

    def delete(self, keys: list[Any]) -> None:
        """Forgets objects, durably."""
        gone: list[Any] = []
        sizes: list[int] = []
        for key in keys:
            shape = self._shape_of(key, None)
            if shape is None:
                continue
            count = self._attempt("delete", lambda _, k=key, s=shape: self._namespace(k, s).forget(_prompt(k)), 0)
            if count:
                gone.append(key)
                sizes.append(shape[0])
        if gone:
            self._notify_keys_deleted(gone, sizes)

    def report_status(self) -> dict[str, Any]:
        """Whether there is a store, and its counters."""
        status: dict[str, Any] = {"is_healthy": self._store is not None, "type": type(self).__name__}
        status["store"] = self._attempt("status", lambda store: store.stats(), {})
        return status

    def close(self) -> None:
        """Ends what is under way, makes it durable, and closes the store."""
        self._workers.shutdown(wait=True)
        with self._lock:
            store, self._store = self._store, None
        if store is not None:
            try:
                store.close()
            except KVStoreError as reason:
                logger.warning("kvstore: %s", reason)
        for event in self._events.values():
            event.close()

    # ------------------------------------------------------------ private

    def _submit(self, kind: str, work: Callable[..., Any], *arguments: Any) -> int:
        with self._lock:
            task = self._next_task
            self._next_task += 1

        def run() -> None:
            result = work(*arguments)
            with self._lock:
                self._done[kind][task] = result
            self._events[kind].notify()

        self._workers.submit(run)
        return task

    def _store_objects(self, keys: list[Any], objects: list[Any]) -> L2StoreResult:
        stored: list[Any] = []
        sizes: list[int] = []
        for key, memory in zip(keys, objects, strict=True):
            shape = self._note_shape(key, memory)

            def offload(_: Store, key: Any = key, memory: Any = memory, shape: Shape = shape) -> bool:
                namespace, prompt = self._namespace(key, shape), _prompt(key)
                if namespace.match(prompt, peek=True).blocks:
                    return True
                moved = namespace.offload(prompt, Spans.at([memory.data_ptr], shape[0]))
                if moved.blocks_done == 1:
                    stored.append(key)
                    sizes.append(shape[0])
                elif moved.status not in (Status.BUSY, Status.DECLINED):
                    self._warn("save", moved.status.name)
                return moved.blocks_done == 1

            if not self._attempt("save", offload, False):
                return L2StoreResult(False, 0)
        if stored:
            self._notify_keys_stored(stored, sizes)
        return L2StoreResult(True, sum(sizes))

    def _look_up(self, keys: list[Any], layouts: dict[int, Any]) -> Bitmap:
        self._fetch(keys, layouts)
        found = Bitmap(len(keys))
        for index, key in enumerate(keys):
            shape = self._shape_of(key, layouts.get(key.object_group_id))

            def look(_: Store, key: Any = key, shape: Shape | None = shape) -> bool:
                if shape is None:
                    return False
                match = self._namespace(key, shape).match(_prompt(key), lease_seconds=_LEASE_SECONDS)
                if match.lease:
                    with self._lock:
                        self._leases.setdefault(key, []).append(match.lease)
                return match.blocks == 1

            if self._attempt("look-up", look, False):
                found.set(index)
        return found

    def _fetch(self, keys: list[Any], layouts: dict[int, Any]) -> None:
        """Lets the remote tier bring what it has of these objects, some at a time, until the time for that is up."""
        if not self._remote.remote:
            return

        def look(key: Any, shape: Shape) -> bool:
            match = self._namespace(key, shape).match(_prompt(key), peek=True, remote=True)
            return match.being_fetched

        end = time.monotonic() + self._remote.remote_wait_seconds
        shapes = ((key, self._shape_of(key, layouts.get(key.object_group_id))) for key in keys)
        waiting = [(key, shape) for key, shape in shapes if shape is not None]
        while waiting and time.monotonic() < end:
            asked = waiting[:_FETCHES_MAX]
            coming = [
                (key, shape)
                for key, shape in asked
                if self._attempt("look-up", lambda _, key=key, shape=shape: look(key, shape), False)
            ]
            waiting[: len(asked)] = coming
            if len(coming) == len(asked):
                time.sleep(_LOOK_SECONDS)

    def _load_objects(self, keys: list[Any], objects: list[Any]) -> Bitmap:
        loaded = Bitmap(len(keys))
        accessed: list[Any] = []
        for index, (key, memory) in enumerate(zip(keys, objects, strict=True)):
            shape = self._note_shape(key, memory)

            def restore(_: Store, key: Any = key, memory: Any = memory, shape: Shape = shape) -> bool:
                spans = Spans.at([memory.data_ptr], shape[0])
                moved = self._namespace(key, shape).restore(_prompt(key), spans, timeout_seconds=self._load_timeout)
                return moved.blocks_done == 1

            if self._attempt("load", restore, False):
                loaded.set(index)
                accessed.append(key)
        if accessed:
            self._notify_keys_accessed(accessed)
        return loaded

    def _note_shape(self, key: Any, memory: Any) -> Shape:
        shape = (int(memory.get_size()), _types(memory.meta.dtypes or [memory.meta.dtype]))
        self._shapes[key.object_group_id] = shape
        return shape

    def _shape_of(self, key: Any, layout: Any) -> Shape | None:
        """What an object of the key has; None if nobody has said so yet."""
        if layout is not None and layout.shapes:
            sizes = zip(layout.shapes, layout.dtypes, strict=True)
            return sum(shape.numel() * dtype.itemsize for shape, dtype in sizes), _types(layout.dtypes)
        return self._shapes.get(key.object_group_id)

    def _namespace(self, key: Any, shape: Shape) -> Namespace:
        """Of a tenant's objects of one shape; raises KVStoreError."""
        with self._lock:
            assert self._store is not None
            which = (key.model_name, key.cache_salt, shape)
            found = self._namespaces.get(which)
            if found is None:
                found = self._namespaces[which] = self._store.namespace(
                    Identity(
                        digest_bytes=32,
                        tokens_per_block=1,
                        region_bytes=(shape[0],),
                        model_name=key.model_name,
                        weights_digest=self._weights,
                        kv_dtype=shape[1],
                        layout="LMCache object",
                        engine_format=f"lmcache, kvstore {_FORMAT}",
                        salt=key.cache_salt.encode(),
                    )
                )
                if len(self._namespaces) > _NAMESPACES_MAX:
                    self._namespaces.popitem(last=False)[1].close()
            self._namespaces.move_to_end(which)
            return found

    def _attempt(self, what: str, work: Callable[[Store], Any], without: Any) -> Any:
        """Does something with the store; `without` where there is none, or it fails: a cache is never an error."""
        store = self._store
        if store is None:
            return without
        try:
            return work(store)
        except KVStoreError as reason:
            self._warn(what, reason)
        except Exception:
            logger.exception("kvstore: %s failed", what)
        return without

    def _warn(self, what: str, reason: object) -> None:
        kind = f"{what}: {type(reason).__name__} {reason}"
        if kind not in self._warned and len(self._warned) < 100:
            self._warned.add(kind)
            logger.warning("kvstore: %s failed; LMCache goes on without: %s", what, reason)


def _prompt(key: Any) -> Prompt:
    """A digest of the whole key: two that differ in any field are two blocks."""
    parts: Iterable[bytes] = (
        key.chunk_hash,
        key.model_name.encode(),
        str(key.kv_rank).encode(),
        str(key.object_group_id).encode(),
        key.cache_salt.encode(),
    )
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return Prompt(digests=[digest.digest()])


def _types(dtypes: Iterable[Any]) -> str:
    return ",".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
