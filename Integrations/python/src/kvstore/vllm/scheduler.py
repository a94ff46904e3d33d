"""The scheduler's side: what is stored of a prompt, and which blocks are to be loaded and saved in a step."""

from __future__ import annotations

import hashlib
import logging
import time
from array import array
from collections import OrderedDict
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import KVStoreError
from ..namespace import Identity, Namespace
from ..prompt import Prompt
from ..results import Match
from ..store import Store
from .fetches import Fetches
from .hints import Hints
from .metadata import Ending, Rank, RequestUpdate, StepMetadata, Tenant, Transfer, WorkerNews
from .multimodal import FeatureDigests
from .options import Options
from .sessions import Sessions

logger = logging.getLogger("vllm.kvstore")

# Open namespaces of tenants. One more costs a few hundred bytes; one that is closed is opened again when needed.
NAMESPACES_MAX = 1024
# How long a request waits until the workers have loaded its adapter, and said what it holds.
_ADAPTER_SECONDS = 5.0


@dataclass
class _Tracked:
    """A request that has blocks."""

    request: Any
    tenant: Tenant
    block_ids: list[int] = field(default_factory=list)
    blocks_saved: int = 0
    """Blocks from the first one on that need no saving any more: stored, or handed to the workers."""
    tokens_sent: int = 0
    blocks_sent: int = 0
    adapter_digests: dict[Rank, bytes] = field(default_factory=dict)
    """What each rank had loaded for its adapter when it was looked up."""
    savable: bool = True
    """False: some of its blocks may be of another adapter, or of an image that cannot be told from others."""
    saving: bool = False
    """A save was handed out, and may still read the request's blocks."""
    loading: Transfer | None = None
    hints: Hints = field(default_factory=Hints)
    blocks_brought: int = 0
    """What it began with, from vLLM's cache or the store; after a preemption, anew."""
    blocks_begun: int | None = None
    """The least of these; None: not scheduled yet."""


class SchedulerSide:
    """Answers vLLM's scheduler; holds no blocks. One thread calls it."""

    def __init__(self, options: Options, tokens_per_block: int) -> None:
        self._options = options
        self._tokens_per_block = tokens_per_block
        self._store: Store | None = None
        self._identities: dict[Rank, Identity] = {}
        self._state_bytes: dict[Rank, int] = {}
        self._namespaces: OrderedDict[Tenant, dict[Rank, Namespace]] = OrderedDict()
        self._adapters: dict[Rank, dict[int, bytes]] = {}
        self._adapters_asked: dict[int, float] = {}
        self._adapters_used: dict[tuple[str, str], bytes] = {}
        self._features = FeatureDigests()
        self._stopped = False
        self._prompts: dict[str, tuple[int, Prompt]] = {}
        self._tracked: dict[str, _Tracked] = {}
        self._local_tokens: dict[str, int] = {}
        self._no_load: set[str] = set()
        """Requests of which a load has failed: they compute, so that a damaged block cannot keep one waiting forever."""
        self._step = StepMetadata()
        self._sessions = Sessions()
        self._fetches: Fetches | None = None

    def workers(self, identities: Mapping[Rank, Identity], state_bytes: Mapping[Rank, int] | None = None) -> None:
        """Takes the workers' identity records, and opens the store that they have opened."""
        self._identities = dict(identities)
        self._state_bytes = dict(state_bytes or {})
        block_bytes = max(
            *(sum(identity.region_bytes) for identity in identities.values()), *self._state_bytes.values(), 0
        )
        try:
            self._store = self._options.open(block_bytes, lookup_only=True)
        except KVStoreError as reason:
            logger.error("kvstore: running without the store: %s", reason)
            return
        if self._options.remote and self._options.remote_wait_seconds > 0:
            self._fetches = Fetches(self._store, self._options.remote_wait_seconds)

    @property
    def is_saving(self) -> bool:
        """Whether blocks are held for saves that have not ended."""
        return False

    def hear(self, news: WorkerNews) -> None:
        """Takes what workers have loaded."""
        if news.changed:
            self._stopped = True
        for rank, adapters in news.adapters.items():
            before, self._adapters[rank] = self._adapters.get(rank, {}), adapters
            for number in before.keys() - adapters.keys():
                # It has left the worker's memory; before it is used again, it is loaded again.
                self._adapters_asked.pop(number, None)
            renewed = {number for number, digest in before.items() if adapters.get(number) != digest}
            for tracked in self._tracked.values():
                adapter = tracked.request.lora_request
                if adapter is not None and adapter.lora_int_id in renewed:
                    tracked.savable = False

    # ------------------------------------------------------------ lookup

    def matched_tokens(self, request: Any, computed_tokens: int) -> tuple[int | None, bool]:
        """Tokens that can be loaded behind those that vLLM has, and whether it is done between steps; no side effects.

        None: ask again, the workers are to load the request's adapter first, or the remote tier is to bring more.
        """
        self._local_tokens[request.request_id] = computed_tokens
        if self._store is None or self._stopped:
            return 0, False
        if request.request_id in self._no_load or request.skip_reading_prefix_cache:
            return 0, False
        if self._waits_for_adapter(request.lora_request):
            return None, False
        if self._fetches is not None and self._fetches.is_early(request.request_id):
            return None, False
        tenant = self._tenant(request)
        if tenant is None:
            return 0, False
        try:
            prompt = self._prompt(request)
            namespaces = self._open(tenant, creates=self._may_be_elsewhere(tenant, prompt))
            if not namespaces:
                return 0, False
            stored, _ = self._match(tenant, namespaces, prompt, peek=True, leave_one_token=True)
            if self._fetches is not None:
                loadable = self._fetches.tokens(
                    request.request_id, lambda: self._look_there(tenant, namespaces, prompt), stored
                )
                if loadable is None:
                    return None, False
                stored = loadable
        except KVStoreError as reason:
            self._failed("look-up", reason)
            return 0, False
        new = stored - computed_tokens
        if new <= 0 or new < self._options.load_tokens_min:
            return 0, False
        return new, self._options.load == "async"

    def allocated(self, request: Any, tables: tuple[list[int], ...], external_tokens: int) -> None:
        """vLLM has blocks for the request, in each block table; `external_tokens` of them are to be loaded."""
        tenant = self._tenant(request)
        if self._store is None or tenant is None:
            return
        tracked = self._tracked.get(request.request_id)
        if tracked is None:
            savable = self._uses_adapter(request.lora_request, tenant.adapter_digest)
            parts = self._adapter_parts(request.lora_request) if request.lora_request else {}
            tracked = self._tracked[request.request_id] = _Tracked(
                request,
                tenant,
                adapter_digests=parts,
                savable=savable,
                hints=Hints.of(getattr(request, "kv_transfer_params", None)),
            )
            if tracked.hints.session:
                self._note_step(tracked)
        if external_tokens <= 0:
            self._note_reuse(request, tenant)
            return
        size = self._tokens_per_block
        first = self._local_tokens.get(request.request_id, 0) // size
        load = Transfer(request.request_id, first, external_tokens // size)
        prefix = self._prompt(request).prefix(tokens=(load.first_block + load.block_count) * size)
        try:
            namespaces = self._open(tenant)
            # From here on nothing evicts them, until the workers have them.
            _, load.leases = self._match(tenant, namespaces, prefix, lease_seconds=self._options.lease_seconds)
        except KVStoreError as reason:
            # The workers find out what is there.
            self._failed("lease", reason)
        self._place(tracked, load, tables)
        tracked.loading = load
        self._update(tracked, first_new=0, tokens=prefix.token_count)
        self._step.loads.append(load)

    # ------------------------------------------------------------ a step

    def step(self, output: Any) -> StepMetadata:
        """The work of the step that vLLM has just scheduled.

        Blocks are saved once the step that computed them has come back. Until then a load that failed, on any rank,
        may still turn out to have spoiled them.
        """
        for new in output.scheduled_new_reqs:
            tracked = self._tracked.get(new.req_id)
            if tracked is not None:
                self._replace_blocks(tracked, new.block_ids[0])
                tracked.loading = None
                tracked.blocks_saved = new.num_computed_tokens // self._tokens_per_block
        cached = output.scheduled_cached_reqs
        for index, request_id in enumerate(cached.req_ids):
            tracked = self._tracked.get(request_id)
            if tracked is None:
                continue
            computed = cached.num_computed_tokens[index]
            new_block_ids = cached.new_block_ids[index]
            if request_id in cached.resumed_req_ids:
                self._replace_blocks(tracked, new_block_ids[0] if new_block_ids else [])
                tracked.loading = None
                tracked.blocks_saved = computed // self._tokens_per_block
                continue
            if new_block_ids:
                tracked.block_ids.extend(new_block_ids[0])
            # Fewer than before after a failed load: what did not come is computed, and saved, again.
            tracked.blocks_saved = min(tracked.blocks_saved, computed // self._tokens_per_block)
            self._save(tracked, computed - tracked.request.num_in_flight_tokens)
        for request_id in output.preempted_req_ids or ():
            tracked = self._tracked.get(request_id)
            if tracked is not None and tracked.saving:
                self._step.preempted.add(request_id)
                tracked.saving = False
        step, self._step = self._step, StepMetadata()
        step.idle = not output.total_num_scheduled_tokens
        return step

    def finished(self, request: Any, tables: tuple[list[int], ...]) -> bool:
        """The request is over; True if vLLM must keep its blocks until the workers have saved them."""
        request_id = request.request_id
        tracked = self._forget(request_id)
        if tracked is None:
            return False
        self._replace_blocks(tracked, tables[0])
        # The token that was sampled last has not been computed.
        self._save(tracked, min(request.num_computed_tokens - request.num_in_flight_tokens, request.num_tokens - 1))
        if not tracked.saving:
            # The id may be in use again within this step: only what the workers know is theirs to forget.
            if tracked.tokens_sent:
                self._step.forgotten.add(request_id)
            return False
        self._step.finishing.add(request_id)
        return True

    def loaded(self, request_ids: set[str], failed_block_ids: set[int], failed_requests: Set[str] = frozenset()) -> None:
        """These requests' loads have ended on all workers, and these blocks, or loads of these requests, did not come."""
        self._no_load |= failed_requests & self._tracked.keys()
        for request_id, tracked in self._tracked.items():
            load = tracked.loading
            if load is None:
                continue
            blocks = tracked.block_ids[load.first_block : load.first_block + load.block_count]
            if failed_block_ids.intersection(blocks):
                self._no_load.add(request_id)
            if request_id in request_ids:
                tracked.loading = None

    def reset(self) -> bool:
        """Has the workers forget every block that this engine could load; True if there is a store."""
        self._step.reset = True
        return self._store is not None

    def close(self) -> None:
        """Ends the leases that this process holds, and closes the store."""
        self._sessions.close()
        if self._fetches is not None:
            self._fetches.close()
            self._fetches = None
        store, self._store = self._store, None
        if store is not None:
            try:
                store.close()
            except KVStoreError as reason:
                logger.warning("kvstore: %s", reason)

    # ------------------------------------------------------------ private

    def _match(
        self, tenant: Tenant, namespaces: dict[Rank, Namespace], prompt: Prompt, **how: Any
    ) -> tuple[int, dict[Rank, tuple[int, ...]]]:
        """The tokens that all ranks have, and the leases of each."""
        matches = Namespace.match_all(list(namespaces.values()), prompt, **how)
        leases: dict[Rank, tuple[int, ...]] = {
            rank: (match.lease,) for rank, match in zip(namespaces, matches, strict=True) if match.lease
        }
        return matches[0].tokens, leases

    def _look_there(self, tenant: Tenant, namespaces: dict[Rank, Namespace], prompt: Prompt) -> list[Match]:
        """What each rank has, and whether more of it is being fetched."""
        return [
            namespace.match(prompt, peek=True, leave_one_token=True, remote=True) for namespace in namespaces.values()
        ]

    def _note_reuse(self, request: Any, tenant: Tenant) -> None:
        """What vLLM has itself is used once more as well: the remote tier is to hear of it, where it waits for that."""
        tokens = self._local_tokens.get(request.request_id, 0) // self._tokens_per_block * self._tokens_per_block
        if not self._options.remote or self._options.remote_writes != "reused" or not tokens:
            return
        try:
            if namespaces := self._open(tenant):
                _, leases = self._match(tenant, namespaces, self._prompt(request).prefix(tokens=tokens))
                self._release(Transfer("", 0, 0, leases=leases))
        except KVStoreError as reason:
            self._failed("use", reason)

    def _note_step(self, tracked: _Tracked) -> None:
        """Records the request as the next step of its session."""
        try:
            namespaces = self._open(tracked.tenant)
            self._sessions.step(tracked.hints.session, tracked.tenant, namespaces, self._prompt(tracked.request))
        except KVStoreError as reason:
            self._failed("session", reason)
        except Exception:
            # A record that is not made is no reason to end the engine.
            logger.exception("kvstore: session failed")

    def _end(self, tracked: _Tracked) -> None:
        """Has the workers do what the request's hints say of its end, behind its last save."""
        hints, request = tracked.hints, tracked.request
        if hints == Hints() or not tracked.savable:
            return
        prompt = Ending(
            tracked.tenant,
            array("I", request.all_token_ids[:]),
            self._extra(request),
            blocks_begun=tracked.blocks_begun or 0,
        )
        before = self._sessions.last(hints.session, tracked.tenant, prompt) if hints.session else None
        if hints.compacted and before is not None:
            self._step.endings.append(replace(before, remove=True))
        if hints.pin_seconds or hints.end:
            self._step.endings.append(replace(prompt, remove=hints.end, pin_seconds=hints.pin_seconds))
        if hints.end and hints.session:
            self._sessions.end(hints.session, tracked.tenant)

    def _forget(self, request_id: str) -> _Tracked | None:
        """The request is over; None if nothing is left to save of it."""
        self._prompts.pop(request_id, None)
        self._local_tokens.pop(request_id, None)
        if self._fetches is not None:
            self._fetches.forget(request_id)
        self._no_load.discard(request_id)
        tracked = self._tracked.pop(request_id, None)
        if tracked is not None:
            self._end(tracked)
        if tracked is None or tracked.loading is None:
            return tracked
        # Aborted while it loads: vLLM frees its blocks when the workers say that the load has ended.
        if tracked.loading in self._step.loads:
            self._release(tracked.loading)
        tracked.loading = None
        self._step.forgotten.add(request_id)
        return None

    def _place(self, tracked: _Tracked, load: Transfer, tables: tuple[list[int], ...]) -> None:
        """Where the load goes."""
        self._replace_blocks(tracked, tables[0])

    def _save(self, tracked: _Tracked, computed_tokens: int) -> None:
        """Hands out the blocks that are full with `computed_tokens`."""
        request = tracked.request
        if self._options.offload == "none" or self._options.read_only or self._stopped or not tracked.savable:
            return
        known = request.num_prompt_tokens if self._options.offload == "prompt" else request.num_tokens
        full = min(computed_tokens, known) // self._tokens_per_block
        full = min(full, len(tracked.block_ids))
        if full <= tracked.blocks_saved:
            return
        save = Transfer(request.request_id, tracked.blocks_saved, full - tracked.blocks_saved)
        tracked.blocks_saved = full
        tracked.saving = True
        self._update(tracked, first_new=tracked.blocks_sent, tokens=full * self._tokens_per_block)
        self._step.saves.append(save)

    def _update(self, tracked: _Tracked, *, first_new: int, tokens: int) -> None:
        """Tells the workers the blocks from `first_new` on, and the tokens up to `tokens`, that they do not know."""
        request = tracked.request
        self._step.updates.append(
            RequestUpdate(
                request_id=request.request_id,
                tenant=tracked.tenant,
                first_token=tracked.tokens_sent,
                tokens=array("I", request.all_token_ids[tracked.tokens_sent : tokens]),
                first_block=first_new,
                block_ids=tracked.block_ids[first_new:],
                extra=self._extra(request) if tracked.tokens_sent == 0 else [],
                adapter=request.lora_request.lora_int_id if request.lora_request else 0,
                adapter_digests=tracked.adapter_digests,
                hints=tracked.hints,
            )
        )
        tracked.tokens_sent = max(tracked.tokens_sent, tokens)
        tracked.blocks_sent = len(tracked.block_ids)

    def _replace_blocks(self, tracked: _Tracked, block_ids: list[int]) -> None:
        tracked.block_ids = list(block_ids)
        tracked.blocks_sent = 0

    def _prompt(self, request: Any) -> Prompt:
        """The request's tokens so far. Made once: a request that waits is looked up in every step."""
        known = self._prompts.get(request.request_id)
        if known is None or known[0] != request.num_tokens:
            tokens = array("I", request.all_token_ids[:])
            known = self._prompts[request.request_id] = (len(tokens), Prompt(tokens, extra=self._extra(request)))
        return known[1]

    def _extra(self, request: Any) -> list[bytes]:
        """A digest for each block that holds part of an image or the like: what they hold, and where they begin."""
        if not request.mm_features:
            return []
        size = self._tokens_per_block
        end = max(feature.mm_position.offset + feature.mm_position.length for feature in request.mm_features)
        blocks: list[list[str]] = [[] for _ in range(-(-end // size))]
        for feature in request.mm_features:
            start, length = feature.mm_position.offset, feature.mm_position.length
            content = self._features.digest(feature).hex()
            for block in range(start // size, -(-(start + length) // size)):
                blocks[block].append(f"{content} {start - block * size} {length}")
        return [hashlib.sha256("\n".join(sorted(items)).encode()).digest() if items else b"" for items in blocks]

    def _tenant(self, request: Any) -> Tenant | None:
        """Salt and adapter of a request; None if its blocks cannot be identified, and must not be stored."""
        if request.prompt_embeds is not None or request.prompt_token_ids is None or request.resumable:
            return None
        if not all(self._features.is_known(feature) for feature in request.mm_features):
            return None
        adapter = self._adapter_digest(request.lora_request)
        if not adapter and request.lora_request is not None:
            return None
        return Tenant(salt=(request.cache_salt or "").encode(), adapter_digest=adapter)

    # ------------------------------------------------------------ adapters

    def _adapter_digest(self, adapter: Any) -> bytes:
        """What all ranks have loaded for the adapter; empty without one, or while it cannot be told."""
        if adapter is None or adapter.load_inplace:
            return b""
        parts = self._adapter_parts(adapter)
        if not parts or not all(parts.values()):
            return b""
        return hashlib.sha256(b"".join(parts.values())).digest()

    def _adapter_parts(self, adapter: Any) -> dict[Rank, bytes]:
        """What each rank has said that it has loaded."""
        return {rank: self._adapters.get(rank, {}).get(adapter.lora_int_id, b"") for rank in sorted(self._identities)}

    def _waits_for_adapter(self, adapter: Any) -> bool:
        """Whether the workers are still to say what they have loaded; asks them to load it."""
        if adapter is None or adapter.load_inplace:
            return False
        number = adapter.lora_int_id
        if all(number in self._adapters.get(rank, {}) for rank in self._identities):
            return False
        now = time.monotonic()
        if number not in self._adapters_asked:
            self._adapters_asked[number] = now
            self._step.adapters.append(adapter)
        return now < self._adapters_asked[number] + _ADAPTER_SECONDS

    def _uses_adapter(self, adapter: Any, digest: bytes) -> bool:
        """Whether what a request computes may be stored.

        Not where the adapter was replaced: vLLM's own cache goes by its name and path, and may still have blocks of the one
        before.
        """
        if adapter is None:
            return True
        return self._adapters_used.setdefault((adapter.lora_name, adapter.lora_path), digest) == digest

    def _may_be_elsewhere(self, tenant: Tenant, prompt: Prompt) -> bool:
        """Whether the remote tier may have something of a tenant of whom nothing is stored here."""
        if self._fetches is None or prompt.token_count <= self._tokens_per_block:
            return False
        return not tenant.salt or self._options.remote_key_file is not None

    def _open(self, tenant: Tenant, *, creates: bool = False) -> dict[Rank, Namespace]:
        """The tenant's namespaces of all ranks; none while one is missing, unless `creates`."""
        found = self._namespaces.get(tenant)
        if found is None:
            assert self._store is not None
            found = {}
            for rank, identity in self._identities.items():
                # The workers make a tenant's namespaces with its first blocks. A look-up alone leaves nothing behind:
                # salts come from clients.
                theirs = replace(identity, salt=tenant.salt, adapter_digest=tenant.adapter_digest)
                namespace = self._store.namespace(theirs) if creates else self._store.existing_namespace(theirs)
                if namespace is None:
                    for opened in found.values():
                        opened.close()
                    return {}
                found[rank] = namespace
            self._namespaces[tenant] = found
            if len(self._namespaces) > NAMESPACES_MAX:
                for namespace in self._namespaces.popitem(last=False)[1].values():
                    namespace.close()
        self._namespaces.move_to_end(tenant)
        return found

    def _release(self, load: Transfer) -> None:
        for lease in (lease for leases in load.leases.values() for lease in leases):
            try:
                if self._store is not None:
                    self._store.release(lease)
            except KVStoreError as reason:
                self._failed("release", reason)

    def _failed(self, what: str, reason: KVStoreError) -> None:
        logger.warning("kvstore: %s failed: %s", what, reason)
