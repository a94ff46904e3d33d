"""vLLM's KV connector: hands vLLM's calls to the side, scheduler or worker, that this process has."""

from __future__ import annotations

import logging
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorHandshakeMetadata,
    KVConnectorMetadata,
    KVConnectorRole,
    KVConnectorTransferResults,
    SupportsHMA,
)
from vllm.v1.metrics.cache_hit_source import CacheHitSource

from .groups import cache_groups
from .identity import engine_identity, refuse_what_is_not_supported
from .layout import kv_layout
from .metadata import StepMetadata, WorkerHandshake, WorkerNews
from .mixed import MixedSchedulerSide, MixedWorkerSide
from .options import Options
from .scheduler import SchedulerSide
from .staging import memory_of
from .states import StateMemory
from .watch import Watch
from .worker import WorkerSide

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.core.block_pool import BlockPool
    from vllm.v1.core.kv_cache_manager import KVCacheBlocks
    from vllm.v1.kv_cache_interface import KVCacheConfig
    from vllm.v1.outputs import KVConnectorOutput
    from vllm.v1.request import Request

logger = logging.getLogger("vllm.kvstore")


class KVStoreConnector(KVConnectorBase_V1, SupportsHMA):
    """Keeps vLLM's KV cache in a kvstore.

    The scheduler looks up how much of a prompt is stored, in the namespaces of all ranks; each worker loads and saves
    its own rank's blocks. Settings are the fields of `Options`.
    """

    _cache_hit_source = CacheHitSource.DISK

    def __init__(
        self, vllm_config: VllmConfig, role: KVConnectorRole, kv_cache_config: KVCacheConfig
    ) -> None:
        super().__init__(vllm_config, role, kv_cache_config)
        self._options = Options.of(self._kv_transfer_config.kv_connector_extra_config)
        refuse_what_is_not_supported(vllm_config)
        self._groups = cache_groups(kv_cache_config, vllm_config)
        if self._groups.is_mixed:
            self._options.refuse_for_mixed_layers()
        self._scheduler: SchedulerSide | None = None
        self._worker: WorkerSide | None = None
        if role == KVConnectorRole.SCHEDULER:
            # vLLM's own default is to fail a request whose cached block turns out to be damaged. vLLM reads this after
            # it has made the connector.
            self._kv_transfer_config.kv_load_failure_policy = self._options.on_load_failure
            if self._groups.is_mixed:
                self._scheduler = MixedSchedulerSide(self._options, self._groups)
            else:
                self._scheduler = SchedulerSide(self._options, self._groups.tokens_per_block)

    @property
    def requires_kv_delivery(self) -> bool:
        """A save that is dropped is a miss later on, no more."""
        return False

    @classmethod
    def requires_piecewise_for_cudagraph(cls, extra_config: dict[str, Any]) -> bool:
        """Waiting layer by layer is not possible within one captured graph."""
        return extra_config.get("load") == "layerwise"

    @classmethod
    def get_required_kvcache_layout(cls, vllm_config: VllmConfig) -> str | None:
        """None in particular; but vLLM asks before it says itself, in other words, what it cannot run."""
        refuse_what_is_not_supported(vllm_config)
        return None

    # ------------------------------------------------------------ worker

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        """Learns where the blocks are, and opens the store."""
        # From here on what happens to the weights is noticed, so that the record is of those that it was made of.
        watch = Watch.install()
        groups = self._groups
        layout = kv_layout(kv_caches, self._kv_cache_config.num_blocks, groups.tables)
        states = StateMemory(kv_caches, groups.states)
        identity = engine_identity(
            self._vllm_config, self._kv_cache_config, groups, layout, states, kv_caches, self._options
        )
        rank = (identity.pipeline_parallel_rank, identity.tensor_parallel_rank)
        memory = memory_of(
            layout,
            {name: kv_caches[name] for name in layout.layer_regions},
            staging=self._options.staging,
            load_timeout_seconds=self._options.load_timeout_seconds,
        )
        if groups.is_mixed:
            self._worker = MixedWorkerSide(self._options, rank, identity, layout, memory, watch, states=states)
        else:
            self._worker = WorkerSide(self._options, rank, identity, layout, memory, watch)

    def unregister_kv_caches(self) -> None:
        """The KV cache's memory is about to go: waits until nothing reads or writes it."""
        if self._worker:
            self._worker.drain()

    def get_handshake_metadata(self) -> KVConnectorHandshakeMetadata | None:
        """Tells the scheduler this worker's identity record."""
        return WorkerHandshake(self._worker.identity, self._worker.state_bytes) if self._worker else None

    def handle_preemptions(self, kv_connector_metadata: KVConnectorMetadata) -> None:
        """Waits until nothing reads the blocks that are about to be overwritten."""
        if self._worker and isinstance(kv_connector_metadata, StepMetadata):
            self._worker.preempt(kv_connector_metadata)

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        """Starts the step's loads."""
        step = self._step()
        if self._worker and step:
            self._worker.load(step)

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Waits for one layer of this step's blocks."""
        if self._worker:
            self._worker.wait_for_layer(layer_name)

    def save_kv_layer(self, layer_name: str, kv_layer: torch.Tensor, attn_metadata: Any, **kwargs: Any) -> None:
        """Nothing: a block is saved, with all its layers, once the step that computed it has come back without error."""

    def wait_for_save(self) -> None:
        """Starts the saves; they read blocks that vLLM keeps until get_finished names their request."""
        step = self._step()
        if self._worker and step:
            self._worker.save(step)

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:
        """Requests that have ended saving, and loading."""
        return self._worker.finished() if self._worker else (None, None)

    def get_transfer_results(self, finished_req_ids: set[str]) -> KVConnectorTransferResults:
        """The same, and requests whose loads failed, where vLLM does not know them by their blocks."""
        results = super().get_transfer_results(finished_req_ids)
        if self._worker:
            results.failed_recving = self._worker.failed_requests()
        return results

    def get_block_ids_with_load_errors(self) -> set[int]:
        """Blocks that did not come: vLLM computes them."""
        return self._worker.failed_blocks() if self._worker else set()

    def build_connector_worker_meta(self) -> WorkerNews | None:
        """Tells the scheduler's side what this worker has loaded since."""
        return self._worker.news() if self._worker else None

    # ------------------------------------------------------------ scheduler

    def set_xfer_handshake_metadata_pp_aware(
        self, metadata: dict[tuple[int, int], KVConnectorHandshakeMetadata]
    ) -> None:
        """Takes the identity records of all workers."""
        assert self._scheduler
        said = {rank: words for rank, words in metadata.items() if isinstance(words, WorkerHandshake)}
        self._scheduler.workers(
            {rank: words.identity for rank, words in said.items()},
            {rank: words.state_bytes for rank, words in said.items()},
        )

    def get_num_new_matched_tokens(self, request: Request, num_computed_tokens: int) -> tuple[int | None, bool]:
        """How much more of the prompt is stored than vLLM has."""
        assert self._scheduler
        try:
            return self._scheduler.matched_tokens(request, num_computed_tokens)
        except Exception:
            # A look-up that fails is a miss. (What is answered here is loaded later on, so that a failure there is not
            # passed over.)
            logger.exception("kvstore: look-up failed")
            return 0, False

    def update_state_after_alloc(self, request: Request, blocks: KVCacheBlocks, num_external_tokens: int) -> None:
        """Takes a lease on what is to be loaded, and orders the load."""
        assert self._scheduler
        self._scheduler.allocated(request, blocks.get_block_ids(), num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> KVConnectorMetadata:
        """The step's loads and saves."""
        assert self._scheduler
        return self._scheduler.step(scheduler_output)

    def update_connector_output(self, connector_output: KVConnectorOutput) -> None:
        """Learns which loads have ended, and how, and what the workers have loaded."""
        assert self._scheduler
        if isinstance(connector_output.kv_connector_worker_meta, WorkerNews):
            self._scheduler.hear(connector_output.kv_connector_worker_meta)
        self._scheduler.loaded(
            connector_output.finished_recving or set(),
            connector_output.invalid_block_ids,
            connector_output.failed_recving or set(),
        )

    def request_finished(self, request: Request, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        """Saves what is left; vLLM keeps the blocks meanwhile."""
        return self.request_finished_all_groups(request, (block_ids,))

    def request_finished_all_groups(
        self, request: Request, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, dict[str, Any] | None]:
        """Saves what is left; vLLM keeps the blocks meanwhile, or we do."""
        assert self._scheduler
        return self._scheduler.finished(request, block_ids), None

    def bind_gpu_block_pool(self, gpu_block_pool: BlockPool) -> None:
        """Learns where blocks are held."""
        if isinstance(self._scheduler, MixedSchedulerSide):
            self._scheduler.hold_blocks_of(gpu_block_pool)

    def has_pending_push_work(self) -> bool:
        """Steps go on while we hold blocks: their ends come with steps."""
        return self._scheduler is not None and self._scheduler.is_saving

    def has_pending_block_frees(self) -> bool:
        """A request is not preempted for blocks that we are about to give back."""
        return self._scheduler is not None and self._scheduler.is_saving

    def reset_cache(self) -> bool | None:
        """Forgets what this engine has stored and used, where a client asks for it.

        vLLM also calls it with each pause and sleep, in case the weights are about to change. They are part of the record
        here: what the old ones have computed is found by nobody who has others, and by the same engine when it wakes up.
        """
        if self._scheduler is None:
            return None
        return True if _is_called_by("_reset_caches") else self._scheduler.reset()

    # ------------------------------------------------------------ both

    def shutdown(self) -> None:
        """Makes durable what was saved, and closes the store."""
        for side in (self._worker, self._scheduler):
            if side is not None:
                side.close()

    def _step(self) -> StepMetadata | None:
        return self._connector_metadata if isinstance(self._connector_metadata, StepMetadata) else None


def _is_called_by(name: str) -> bool:
    """Whether a function of that name is among the innermost callers of ours."""
    frame: FrameType | None = sys._getframe(2)
    for _ in range(6):
        if frame is None:
            return False
        if frame.f_code.co_name == name:
            return True
        frame = frame.f_back
    return False
