"""What the scheduler tells the workers with each step, and what a worker tells the scheduler once."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Any

from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorHandshakeMetadata,
    KVConnectorMetadata,
    KVConnectorWorkerMetadata,
)

from ..namespace import Identity
from .hints import Hints

Rank = tuple[int, int]
"""Pipeline- and tensor-parallel rank, as vLLM keys what workers say."""


@dataclass(frozen=True)
class Tenant:
    """What of a namespace's identity comes with the request."""

    salt: bytes = b""
    adapter_digest: bytes = b""
    """Of what every rank has loaded for the adapter."""


@dataclass
class RequestUpdate:
    """What is new of a request since the workers last heard of it."""

    request_id: str
    tenant: Tenant
    first_token: int
    """Position of `tokens` in the request; 0 with a request's first update."""
    tokens: array[int]
    first_block: int
    """Position of `block_ids`; the blocks from there on are replaced."""
    block_ids: list[int]
    extra: list[bytes] = field(default_factory=list)
    """With the first update: extra bytes of the prompt's blocks."""
    adapter: int = 0
    """The number of its adapter, 0 without one."""
    adapter_digests: dict[Rank, bytes] = field(default_factory=dict)
    """What each rank had loaded for it when the scheduler looked: a rank that has another one by now stops."""
    hints: Hints = field(default_factory=Hints)


@dataclass
class Transfer:
    """Blocks of a request to load or to save: positions in the request, not block ids."""

    request_id: str
    first_block: int
    block_count: int
    leases: dict[Rank, tuple[int, ...]] = field(default_factory=dict)
    """Load: the leases that each rank releases when it is done."""
    tables: list[list[int]] = field(default_factory=list)
    """Of models with several kinds of layers: the blocks of each table."""
    states: dict[int, dict[int, int]] = field(default_factory=dict)
    """By the number of blocks before them: recurrent states, by KV cache group the block that each is in."""
    number: int = 0
    """Of models with several kinds of layers, a save: what the workers tell that it has ended by."""


@dataclass
class Ending:
    """What is to become of a prompt once everything before it has been saved."""

    tenant: Tenant
    tokens: array[int]
    extra: list[bytes]
    remove: bool = False
    """Remove what no other prompt shares."""
    pin_seconds: float = 0.0
    blocks_begun: int = 0
    """What the request began with: recurrent states before it are those of others."""


@dataclass
class StepMetadata(KVConnectorMetadata):
    """One step's work."""

    updates: list[RequestUpdate] = field(default_factory=list)
    loads: list[Transfer] = field(default_factory=list)
    saves: list[Transfer] = field(default_factory=list)
    preempted: set[str] = field(default_factory=set)
    """Requests whose blocks are about to be overwritten: their saves must end first."""
    finishing: set[str] = field(default_factory=set)
    """Finished requests whose blocks vLLM keeps until the worker says that their saves are done."""
    forgotten: set[str] = field(default_factory=set)
    """Finished requests with nothing left to save, of those that the workers know."""
    endings: list[Ending] = field(default_factory=list)
    reset: bool = False
    """Forget all blocks that this engine's namespaces hold."""
    adapters: list[Any] = field(default_factory=list)
    """LoRA requests whose adapters are to be loaded, so that what they hold is known before blocks are looked up."""
    idle: bool = False
    """Nothing is computed in this step."""


@dataclass
class WorkerHandshake(KVConnectorHandshakeMetadata):
    """A worker's identity record: the scheduler looks up in exactly the namespaces that the workers use."""

    identity: Identity
    state_bytes: int = 0
    """Of all its recurrent layers at one place; 0 without any."""


@dataclass
class WorkerNews(KVConnectorWorkerMetadata):
    """What the scheduler must know of the workers before it goes on."""

    changed: list[str] = field(default_factory=list)
    """Calls that may have changed the weights of a worker."""
    adapters: dict[Rank, dict[int, bytes]] = field(default_factory=dict)
    """By rank: the adapters that it has loaded, by their numbers; empty where one cannot be told from others."""
    saved: dict[int, int] = field(default_factory=dict)
    """Saves that have ended, by number, and on how many ranks."""

    def aggregate(self, other: KVConnectorWorkerMetadata) -> KVConnectorWorkerMetadata:
        """Both."""
        assert isinstance(other, WorkerNews)
        saved = dict(self.saved)
        for number, ranks in other.saved.items():
            saved[number] = saved.get(number, 0) + ranks
        return WorkerNews(self.changed + other.changed, {**self.adapters, **other.adapters}, saved)
