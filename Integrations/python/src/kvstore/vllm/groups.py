"""Which layers share a block table, and how far back each kind looks.

    full attention      every block of the prefix
    sliding window      the blocks of its last window; vLLM frees those before it while the request goes on
    recurrent           one state at the end of the prefix, no blocks

A block of the store has `tokens_per_block` tokens, the unit in which vLLM takes a prefix: one or several blocks of each table.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..namespace import Group

logger = logging.getLogger("vllm.kvstore")


@dataclass(frozen=True, slots=True)
class Table:
    """Attention layers that share a block table."""

    group: int
    """Which of vLLM's KV cache groups it is."""
    layers: tuple[str, ...]
    parts: int
    """So many blocks of the table make one of the store."""
    window_tokens: int = 0
    """How many tokens before the next one its layers look at; 0: all of them."""


@dataclass(frozen=True, slots=True)
class States:
    """Recurrent layers that share a block table, in which a block holds the state behind its last token."""

    group: int
    layers: tuple[str, ...]
    parts: int


@dataclass(frozen=True, slots=True)
class CacheGroups:
    """A model's KV cache groups: tables in the order of the payload, those with equal windows side by side."""

    tokens_per_block: int
    tables: tuple[Table, ...]
    states: tuple[States, ...] = ()

    @property
    def is_mixed(self) -> bool:
        """Whether there is anything but one table of full attention."""
        return len(self.tables) != 1 or bool(self.states) or self.tables[0].window_tokens > 0

    @property
    def description(self) -> str:
        """Part of what tells KV of different models apart, where there is more than full attention."""
        tables = [f"{len(table.layers)}x{table.parts}/{table.window_tokens}" for table in self.tables]
        return ",".join(tables + [f"{len(states.layers)}x{states.parts}/state" for states in self.states])


def cache_groups(kv_cache_config: Any, vllm_config: Any) -> CacheGroups:
    """Reads vLLM's groups; raises ValueError for kinds of layers that this connector does not store, and names them."""
    from vllm.v1.core.kv_cache_utils import resolve_kv_cache_block_sizes

    groups = kv_cache_config.kv_cache_groups
    tables, states = [], []
    unit = resolve_kv_cache_block_sizes(kv_cache_config, vllm_config)[0]
    if len(groups) == 1:
        unit = _one_size(groups[0].kv_cache_spec)
    for number, group in enumerate(groups):
        layers = tuple(group.layer_names)
        kinds = {_kind(spec) for spec in group_specs(group.kv_cache_spec)}
        if len(kinds) != 1 or number not in kv_cache_config.prefix_cacheable_group_ids:
            _refuse(group, "share a block table with layers of another kind, or keep nothing for a later request")
        parts = unit // _one_size(group.kv_cache_spec)
        (kind,) = kinds
        if kind == "recurrent":
            mode = {spec.mamba_cache_mode for spec in group_specs(group.kv_cache_spec)}
            if mode != {"align"}:
                raise ValueError(
                    f"kvstore: this model has recurrent layers ({_names(group)}), and vLLM keeps their state at the ends of "
                    "blocks only with --enable-prefix-caching and --mamba-cache-mode align"
                )
            if parts > 1:
                logger.warning(
                    "kvstore: vLLM has the state of %s at ends of %d tokens, and takes prefixes in units of %d: it keeps few "
                    "that can be used, in its own cache too; start it with --block-size %d",
                    _names(group),
                    unit // parts,
                    unit,
                    unit,
                )
            states.append(States(number, layers, parts))
        elif isinstance(kind, int):
            if kind and parts > 1:
                # A part of the store's block may have left the window before the block is full.
                _refuse(group, f"have a sliding window, and blocks of {unit // parts} tokens where others have {unit}")
            tables.append(Table(number, layers, parts, kind))
        else:
            _refuse(group, f"have a KV cache of kind {kind}")
    if not tables:
        raise ValueError(
            "kvstore: all layers of this model are recurrent; this connector stores models with at least some attention. "
            "Start vLLM without --kv-transfer-config"
        )
    tables.sort(key=lambda table: (table.window_tokens, table.group))
    return CacheGroups(unit, tuple(tables), tuple(states))


def store_groups(groups: CacheGroups, regions: tuple[Any, ...]) -> tuple[Group, ...]:
    """The windows as the store knows them: neighbouring regions of each block. None for full attention."""
    found: list[Group] = []
    for index, region in enumerate(regions):
        window = groups.tables[region.table].window_tokens
        if not window:
            continue
        if found and found[-1].window_tokens == window:
            last = found[-1]
            found[-1] = Group(last.first_region, last.region_count + 1, window)
        else:
            found.append(Group(index, 1, window))
    return tuple(found)


def group_specs(spec: Any) -> Iterator[Any]:
    """The kinds of cache of a group's layers: one for all, or one for each."""
    yield from (getattr(spec, "kv_cache_specs", None) or {"": spec}).values()


def _one_size(spec: Any) -> int:
    sizes = {part.block_size for part in group_specs(spec)}
    if len(sizes) != 1:
        raise ValueError(f"kvstore: layers that share a block table have blocks of {sorted(sizes)} tokens")
    return sizes.pop()


def _kind(spec: Any) -> int | str:
    """The tokens that layers look back at (0: all), "recurrent", or the name of a kind that this connector does not know.

    By its exact name: kinds that inherit from these have rules of their own.
    """
    name = type(spec).__name__
    if name in ("FullAttentionSpec", "MLAAttentionSpec"):
        # A window that is set here is one that vLLM does not free blocks by.
        return 0
    if name == "SlidingWindowSpec":
        if getattr(spec, "extra_retained_tokens", 0):
            return "SlidingWindowSpec with retained tokens"
        # vLLM counts the next token itself.
        return max(1, spec.sliding_window - 1)
    return "recurrent" if name == "MambaSpec" else name


def _names(group: Any) -> str:
    names = group.layer_names
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _refuse(group: Any, why: str) -> None:
    raise ValueError(
        f"kvstore: layers {_names(group)} {why}, which this connector does not store. Start vLLM without --kv-transfer-config"
    )
