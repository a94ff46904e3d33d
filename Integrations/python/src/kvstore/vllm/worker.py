"""A worker's side: moves its own rank's blocks between vLLM's memory and the store, beside the computation."""

from __future__ import annotations

import logging
import queue
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import KVStoreError, Status
from ..moving import Operation
from ..namespace import Identity, Namespace
from ..prompt import Prompt
from ..store import Store
from .hints import Hints
from .layout import KVLayout
from .metadata import Ending, Rank, RequestUpdate, StepMetadata, Tenant, Transfer, WorkerNews
from .options import Options
from .staging import Memory
from .threads import cores_allowed, thread_pool
from .watch import Watch

logger = logging.getLogger("vllm.kvstore")

_NAMESPACES_MAX = 1024
_FLUSH_SECONDS = 30.0


@dataclass
class _Request:
    """What the worker knows of a request."""

    tenant: Tenant
    tokens: array[int] = field(default_factory=lambda: array("I"))
    block_ids: list[int] = field(default_factory=list)
    extra: list[bytes] = field(default_factory=list)
    adapter: int = 0
    adapter_digest: bytes | None = None
    hints: Hints = field(default_factory=Hints)
    saves: set[Future[None]] = field(default_factory=set)


@dataclass
class _Load:
    """A load under way: layer by layer, or all at once."""

    transfer: Transfer
    block_ids: list[int]
    prompt: Prompt
    tenant: Tenant
    blocks_good: int = 0


@dataclass
class _LayerLoad:
    """A layer's part of a load under way."""

    load: _Load
    regions: tuple[int, int]
    """The first one, and their number."""
    is_last: bool
    started: Future[Operation | int] = field(default_factory=Future)
    """The operation, or how many blocks are good already."""
    has_ended: bool = False


class WorkerSide:
    """Loads and saves what the scheduler's metadata says. vLLM's thread calls it; threads of its own do the work."""

    def __init__(
        self,
        options: Options,
        rank: Rank,
        identity: Identity,
        layout: KVLayout,
        memory: Memory,
        watch: Watch | None = None,
        state_bytes: int = 0,
    ) -> None:
        self.identity = identity
        self.state_bytes = state_bytes
        self._watch = watch or Watch()
        self._watch.before_sleep = self.drain
        self._news: WorkerNews | None = None
        self._adapters_said: dict[int, bytes] = {}
        self._adapters_wanted: list[Any] = []
        self._stopped = False
        self._options = options
        self._rank = rank
        self._layout = layout
        self._memory = memory
        self._requests: dict[str, _Request] = {}
        self._namespaces: OrderedDict[Tenant, Namespace] = OrderedDict()
        self._namespaces_lock = threading.Lock()
        cores = cores_allowed()
        self._loads = thread_pool(options.load_threads, "kvstore-load", cores)
        # One thread: a block is stored after its parent.
        self._saves = thread_pool(1, "kvstore-save", cores)
        self._loading: set[Future[None]] = set()
        self._loaded: queue.SimpleQueue[tuple[str, set[int], list[int]]] = queue.SimpleQueue()
        self._layers: dict[str, list[_LayerLoad]] = {}
        self._failed_blocks: set[int] = set()
        self._replaced: dict[str, _Request] = {}
        """Requests that end in this step, whose ids are in use again."""
        self._finishing: list[tuple[str, _Request | None]] = []
        self._warned: set[str] = set()
        self._dropped = {"error": 0, "full": 0}
        self._store: Store | None = None
        try:
            # Not in this thread: the library's threads run where the one does that opens the store.
            self._store = self._saves.submit(options.open, max(layout.block_bytes, state_bytes)).result()
            # The one that requests without salt and adapter use: what is wrong with it shows at the start.
            self._namespace(Tenant())
        except KVStoreError as reason:
            self._close_store()
            logger.error("kvstore: running without the store: %s", reason)
        else:
            logger.info(
                "kvstore: %s, rank %s: %d regions, %d bytes a block of %d tokens",
                options.path,
                rank,
                len(layout.regions),
                layout.block_bytes,
                identity.tokens_per_block,
            )

    # ------------------------------------------------------------ a step

    def preempt(self, step: StepMetadata) -> None:
        """Before the step: blocks of these requests are about to be overwritten."""
        self._notice_changes()
        # Here the step has not taken its adapters into use yet.
        self._adapters_wanted += step.adapters
        self._adapters_wanted = [
            wanted for wanted in self._adapters_wanted if not self._watch.load_adapter(wanted, idle=step.idle)
        ]
        for request_id in step.preempted:
            request = self._requests.get(request_id)
            for save in list(request.saves) if request else ():
                save.result()

    def load(self, step: StepMetadata) -> None:
        """Takes the step's metadata, and starts or does its loads."""
        self._notice_changes()
        for update in step.updates:
            self._update(update)
        loads: list[Future[set[int]]] = []
        for transfer in step.loads:
            load = self._prepare(transfer)
            if self._stopped or not self._has_adapter(self._requests[transfer.request_id]):
                self._release(transfer)
                if self._options.load == "async":
                    self._loaded.put((transfer.request_id, set(load.block_ids), load.block_ids))
                else:
                    self._failed_blocks |= set(load.block_ids)
            elif self._options.load == "async":
                future = self._loads.submit(self._load_async, load)
                self._loading.add(future)
                future.add_done_callback(self._loading.discard)
            elif self._options.load == "layerwise":
                self._load_layers(load)
            else:
                loads.append(self._loads.submit(self._load_all, load))
        for whole in loads:
            self._failed_blocks |= whole.result()

    def wait_for_layer(self, layer: str) -> None:
        """Returns when the layer's part of all blocks of this step has come."""
        for part in self._layers.pop(layer, ()):
            self._end_layer(part)

    def save(self, step: StepMetadata) -> None:
        """After the step: starts its saves. Their blocks were computed in earlier steps."""
        for waiting in [layer for layer in self._layers if self._layers[layer]]:
            # Layers that vLLM did not ask for, for example in a step that computed nothing.
            self.wait_for_layer(waiting)
        for transfer in step.saves:
            # The last save of one that is replaced: the next one has not computed anything yet.
            self._save(self._replaced.get(transfer.request_id) or self._requests.get(transfer.request_id), transfer)
        # The record of a request that has ended is no longer found by its id, which another one may use.
        for request_id in step.finishing:
            request = self._replaced.get(request_id) or self._requests.pop(request_id, None)
            self._finishing.append((request_id, request))
        for request_id in step.forgotten - self._replaced.keys():
            self._requests.pop(request_id, None)
        self._replaced.clear()
        for ending in step.endings:
            # After what was handed out before: one thread does them all.
            self._saves.submit(self._end, ending)
        if step.reset:
            self._saves.submit(self._reset)

    def finished(self) -> tuple[set[str], set[str]]:
        """Requests that have finished saving, and loading, since the last call."""
        saved: set[str] = set()
        finishing, self._finishing = self._finishing, []
        for request_id, request in finishing:
            if request_id in saved or (request is not None and request.saves):
                self._finishing.append((request_id, request))
            else:
                saved.add(request_id)
        loaded: set[str] = set()
        while True:
            try:
                request_id, failed, block_ids = self._loaded.get_nowait()
            except queue.Empty:
                return saved, loaded
            loaded.add(request_id)
            self._note_loaded(request_id, failed, block_ids)

    def news(self) -> WorkerNews | None:
        """What the scheduler does not know yet: which adapters are loaded, and that the weights have changed."""
        news, self._news = self._news, None
        if (adapters := self._watch.current()) != self._adapters_said:
            self._adapters_said = adapters
            news = news or WorkerNews()
            news.adapters[self._rank] = dict(adapters)
        return news

    def failed_blocks(self) -> set[int]:
        """Ids of blocks that did not come, since the last call; vLLM calls it after finished()."""
        failed, self._failed_blocks = self._failed_blocks, set()
        return failed

    def failed_requests(self) -> set[str]:
        """Requests whose loads failed, since the last call, where vLLM does not know them by their blocks."""
        return set()

    def drain(self) -> None:
        """Waits until nothing reads or writes vLLM's memory."""
        wait(list(self._loading))
        # One thread does the saves in turn.
        self._saves.submit(lambda: None).result()

    def close(self) -> None:
        """Ends what is under way, makes it durable, and closes the store."""
        self._watch.close()
        self._loads.shutdown(wait=True, cancel_futures=True)
        self._saves.shutdown(wait=True)
        self._close_store(flush=True)

    def _has_adapter(self, request: _Request) -> bool:
        """False once the request's adapter was replaced, which the scheduler may not have heard of yet."""
        return not request.adapter or self._watch.current().get(request.adapter) == request.adapter_digest

    def _notice_changes(self) -> None:
        """Nothing is loaded or saved any more once the weights may be others than those of the identity record.

        No namespace of the new ones either: vLLM may have blocks of the old ones in its own cache, and go on with them.
        """
        if self._watch.unknown_calls and not self._stopped:
            self._stopped = True
            calls = sorted(set(self._watch.unknown_calls))
            self._news = WorkerNews(changed=calls)
            logger.warning(
                "kvstore: %s may have changed the weights: nothing is loaded or stored until vLLM is started again",
                ", ".join(calls),
            )

    # ------------------------------------------------------------ load

    def _note_loaded(self, request_id: str, failed: set[int], block_ids: list[int]) -> None:
        # What came while the weights changed was computed with others.
        self._failed_blocks |= set(block_ids) if self._stopped else failed

    def _prepare(self, transfer: Transfer) -> _Load:
        request = self._requests[transfer.request_id]
        end = transfer.first_block + transfer.block_count
        return _Load(
            transfer=transfer,
            block_ids=request.block_ids[transfer.first_block : end],
            prompt=Prompt(request.tokens[: end * self.identity.tokens_per_block], extra=request.extra[:end]),
            tenant=request.tenant,
        )

    def _load_async(self, load: _Load) -> None:
        failed = set(load.block_ids)
        try:
            failed = self._load_all(load)
        finally:
            self._loaded.put((load.transfer.request_id, failed, load.block_ids))

    def _load_all(self, load: _Load) -> set[int]:
        """Loads all layers; returns the ids of the blocks that did not come."""

        def restore(namespace: Namespace) -> None:
            load.blocks_good = self._memory.restore(
                namespace, load.prompt, [load.block_ids], load.transfer.first_block, 0, 0
            )

        self._attempt("load", load.tenant, restore)
        self._release(load.transfer)
        return set(load.block_ids[load.blocks_good :])

    def _load_layers(self, load: _Load) -> None:
        """Loads layer by layer, in the order in which they are computed."""
        parts = list(dict.fromkeys(self._layout.layer_regions.values()))
        loads = {part: _LayerLoad(load, part, is_last=part == parts[-1]) for part in parts}
        self._loads.submit(self._start_layers, load, list(loads.values()))
        for layer, part in self._layout.layer_regions.items():
            self._layers.setdefault(layer, []).append(loads[part])

    def _start_layers(self, load: _Load, parts: list[_LayerLoad]) -> None:
        """Has the library read all layers: those that wait for each other it reads together."""

        def start(namespace: Namespace) -> None:
            for part in parts:
                moved = (load.prompt, [load.block_ids], load.transfer.first_block, *part.regions)
                operation = self._memory.start_restore(namespace, *moved)
                refused = operation is not None and (at_once := operation.poll()) and at_once.status == Status.BUSY
                if operation is None or refused:
                    part.started.set_result(self._memory.restore(namespace, *moved))
                else:
                    part.started.set_result(operation)

        self._attempt("load", load.tenant, start)
        for part in parts:
            if not part.started.done():
                part.started.set_result(0)

    def _end_layer(self, part: _LayerLoad) -> None:
        """Waits for a part of a load; layers may share one."""
        if part.has_ended:
            return
        part.has_ended = True
        good = 0

        def end(_: Namespace) -> None:
            nonlocal good
            started = part.started.result()
            if isinstance(started, Operation):
                moved = started.wait()
                good = moved.blocks_done if moved else 0
            else:
                good = started

        self._attempt("load", part.load.tenant, end)
        self._failed_blocks |= set(part.load.block_ids[good:])
        if part.is_last:
            self._release(part.load.transfer)

    def _release(self, transfer: Transfer) -> None:
        for lease in transfer.leases.get(self._rank, ()):
            try:
                if self._store is not None:
                    self._store.release(lease)
            except KVStoreError as reason:
                self._warn("release", reason)

    # ------------------------------------------------------------ save

    def _save(self, request: _Request | None, transfer: Transfer) -> None:
        if request is None or self._stopped or not self._has_adapter(request):
            return
        # Later steps change what is known of a request: the save has its own.
        size = self.identity.tokens_per_block
        end = transfer.first_block + transfer.block_count
        prompt = Prompt(request.tokens[: end * size], extra=request.extra[:end])
        block_ids = request.block_ids[:end]
        future = self._saves.submit(
            self._save_blocks,
            request.tenant,
            prompt,
            block_ids,
            transfer.first_block,
            self._memory.ready(),
            request.hints.of_blocks,
        )
        request.saves.add(future)
        future.add_done_callback(request.saves.discard)

    def _save_blocks(
        self, tenant: Tenant, prompt: Prompt, block_ids: list[int], first: int, ready: Any, hints: dict[str, Any]
    ) -> None:
        def offload(namespace: Namespace) -> None:
            status = self._memory.offload(namespace, prompt, [block_ids[first:]], first, ready, **hints)
            if status == Status.PARENT_MISSING and first > 0:
                # The store lost what comes before, which vLLM had all along: store it again.
                status = self._memory.offload(namespace, prompt, [block_ids], 0, ready, **hints)
            self._note_save(status)

        self._attempt("save", tenant, offload)
        self._attempt("save", tenant, lambda _: self._notice_drops())

    def _end(self, ending: Ending) -> None:
        prompt = Prompt(ending.tokens, extra=ending.extra)

        def end(namespace: Namespace) -> None:
            if ending.pin_seconds:
                self._pin(ending, namespace, prompt)
            if ending.remove:
                namespace.purge(prompt, only_tail=True)

        if not self._options.read_only:
            self._attempt("end of a session", ending.tenant, end)

    def _pin(self, ending: Ending, namespace: Namespace, prompt: Prompt) -> None:
        namespace.pin(prompt, ending.pin_seconds)

    def _note_save(self, status: Status) -> None:
        if status not in (Status.OK, Status.BUSY, Status.PARENT_MISSING, Status.DECLINED):
            self._warn("save", status.name)

    def _notice_drops(self) -> None:
        """Warns of blocks that were taken and then not written: the disk is full or fails, or everything is leased."""
        assert self._store is not None
        stats = self._store.stats()
        dropped = {name: stats[f"blocks_dropped_{name}"] for name in ("error", "full")}
        if dropped["error"] > self._dropped["error"]:
            self._warn("save", "blocks were not kept, because they could not be written: the disk is full, or it fails")
        if dropped["full"] > self._dropped["full"]:
            self._warn("save", "blocks were not kept, because nothing could be evicted for them")
        self._dropped = dropped

    def _reset(self) -> None:
        with self._namespaces_lock:
            tenants = list(self._namespaces)
        for tenant in tenants:
            self._attempt("reset", tenant, lambda namespace: namespace.forget(Prompt([])))

    # ------------------------------------------------------------ what all need

    def _update(self, update: RequestUpdate) -> None:
        request = self._requests.get(update.request_id)
        if request is None or update.first_token == 0:
            if request is not None:
                self._replaced[update.request_id] = request
            request = self._requests[update.request_id] = _Request(
                update.tenant,
                extra=update.extra,
                adapter=update.adapter,
                adapter_digest=update.adapter_digests.get(self._rank),
                hints=update.hints,
            )
        del request.tokens[update.first_token :]
        request.tokens.extend(update.tokens)
        request.block_ids[update.first_block :] = update.block_ids

    def _attempt(self, what: str, tenant: Tenant, work: Callable[[Namespace], object]) -> None:
        """Does something with the tenant's namespace. What fails is a block that is not cached, never an error of vLLM."""
        try:
            namespace = self._namespace(tenant)
            if namespace is not None:
                work(namespace)
        except KVStoreError as reason:
            self._warn(what, reason)
        except Exception:
            logger.exception("kvstore: %s failed", what)

    def _namespace(self, tenant: Tenant) -> Namespace | None:
        with self._namespaces_lock:
            if self._store is None:
                return None
            found = self._namespaces.get(tenant)
            if found is None:
                found = self._namespaces[tenant] = self._store.namespace(
                    replace(self.identity, salt=tenant.salt, adapter_digest=tenant.adapter_digest)
                )
                if len(self._namespaces) > _NAMESPACES_MAX:
                    self._namespaces.popitem(last=False)[1].close()
            self._namespaces.move_to_end(tenant)
            return found

    def _warn(self, what: str, reason: object) -> None:
        """Once for each kind of trouble: a full disk is not worth a line for every block."""
        kind = f"{what}: {type(reason).__name__} {reason}"
        if kind not in self._warned and len(self._warned) < 100:
            self._warned.add(kind)
            logger.warning("kvstore: %s failed; vLLM goes on without: %s", what, reason)

    def _close_store(self, *, flush: bool = False) -> None:
        with self._namespaces_lock:
            store, self._store = self._store, None
        if store is None:
            return
        try:
            if flush and not self._options.read_only:
                done = store.flush(_FLUSH_SECONDS)
                logger.info("kvstore: rank %s: %d blocks durable, %s", self._rank, done.blocks_durable, store.stats())
        except KVStoreError as reason:
            logger.warning("kvstore: %s", reason)
        # Also where blocks could not be written.
        try:
            store.close()
        except KVStoreError as reason:
            logger.warning("kvstore: %s", reason)
