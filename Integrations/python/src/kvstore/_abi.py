"""The structures and functions of kvstore.h, as ctypes sees them.

Nothing outside this package's modules uses these names: `kvstore.Store` and `kvstore.Namespace` are the interface.
"""

from __future__ import annotations

import ctypes
import operator
from ctypes import (
    POINTER,
    Structure,
    c_char,
    c_char_p,
    c_int32,
    c_size_t,
    c_uint32,
    c_uint64,
    c_uint8,
    c_void_p,
)

STATUS = c_int32


def in_range(value: object, name: str, bits: int = 64) -> int:
    """A number that fits an unsigned C integer. ctypes itself cuts off what does not fit, without a word."""
    number = operator.index(value)  # type: ignore[arg-type]
    if not 0 <= number < 1 << bits:
        raise OverflowError(f"{name} is {number}, and must be 0 to {(1 << bits) - 1}")
    return number


def text_without_nul(value: bytes | None, name: str) -> bytes | None:
    """Text as C reads it; a NUL byte in it would end it there."""
    if value is not None and b"\0" in value:
        raise ValueError(f"{name} holds a NUL byte: {value!r}")
    return value


class _UInt64(c_uint64):
    """An argument that is refused where it does not fit.

    ctypes makes an ArgumentError of what is raised here, so that a call checks before what its own caller gave.
    """

    @classmethod
    def from_param(cls, value: object) -> c_uint64:
        return c_uint64(in_range(value, "a number"))


class _UInt32(c_uint32):
    @classmethod
    def from_param(cls, value: object) -> c_uint32:
        return c_uint32(in_range(value, "a number", 32))


class _Text(c_char_p):
    """An argument of text that ends with a NUL byte and so holds none."""

    @classmethod
    def from_param(cls, value: bytes | None) -> c_char_p:  # type: ignore[override]
        return c_char_p(text_without_nul(value, "a name"))


class _Checked(Structure):
    """A structure whose fields refuse numbers that do not fit them, and text that holds a NUL byte."""

    def __setattr__(self, name: str, value: object) -> None:
        kind = _FIELD_KINDS.get((type(self), name))
        if kind is c_char_p:
            value = text_without_nul(value, name)  # type: ignore[arg-type]
        elif kind is not None:
            value = in_range(value, name, 8 * ctypes.sizeof(kind))
        super().__setattr__(name, value)


# What `_Checked` looks at; filled in once the structures are known.
_FIELD_KINDS: dict[tuple[type, str], type] = {}


class Config(_Checked):
    """kvstore_config_t."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("path", c_char_p),
        ("capacity_bytes", c_uint64),
        ("catalog_bytes", c_uint64),
        ("host_bytes", c_uint64),
        ("inline_payload_bytes_max", c_uint64),
        ("offload_timeout_nanoseconds", c_uint64),
        ("commit_interval_nanoseconds", c_uint64),
        ("wait_timeout_nanoseconds", c_uint64),
        ("archive_bytes", c_uint64),
        ("archive_path", c_char_p),
        ("admission", c_uint32),
        ("reserved", c_uint32),
        ("write_bytes_per_day", c_uint64),
        ("eviction_policy", c_uint32),
        ("reserved2", c_uint32),
        ("remote_url", c_char_p),
        ("remote_credentials_file", c_char_p),
        ("remote_ca_file", c_char_p),
        ("remote_key_file", c_char_p),
        ("remote_writes", c_uint32),
        ("remote_match", c_uint32),
        ("remote_write_bytes_per_day", c_uint64),
        ("remote_time_to_live_seconds", c_uint64),
        ("remote_look_up_timeout_nanoseconds", c_uint64),
        ("remote_transfer_timeout_nanoseconds", c_uint64),
        ("remote_encoding", c_uint32),
        ("remote_demotes", c_uint32),
    ]


class FlushResult(Structure):
    """kvstore_flush_result_t."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("blocks_durable", c_uint64),
        ("blocks_dropped_full", c_uint64),
        ("blocks_dropped_parent", c_uint64),
        ("blocks_dropped_error", c_uint64),
        ("blocks_dropped_quota", c_uint64),
        ("blocks_dropped_evicted", c_uint64),
        ("blocks_dropped_incomplete", c_uint64),
        ("dropped_errno", c_int32),
        ("reserved2", c_uint32),
    ]


class Stats(Structure):
    """kvstore_stats_t."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("io_path", c_uint32),
        ("match_calls", c_uint64),
        ("match_tokens_asked", c_uint64),
        ("match_tokens_found", c_uint64),
        ("match_blocks_found", c_uint64),
        ("hashes_computed", c_uint64),
        ("index_nodes", c_uint64),
        ("index_blocks", c_uint64),
        ("index_bytes", c_uint64),
        ("blocks_restored_host", c_uint64),
        ("blocks_restored_disk", c_uint64),
        ("restored_bytes", c_uint64),
        ("misses_absent", c_uint64),
        ("misses_stale", c_uint64),
        ("misses_corrupt", c_uint64),
        ("blocks_offloaded", c_uint64),
        ("blocks_deduplicated", c_uint64),
        ("offloaded_bytes", c_uint64),
        ("blocks_dropped_full", c_uint64),
        ("blocks_dropped_parent", c_uint64),
        ("blocks_dropped_error", c_uint64),
        ("key_collisions", c_uint64),
        ("blocks_stored", c_uint64),
        ("payload_bytes_stored", c_uint64),
        ("disk_bytes_capacity", c_uint64),
        ("disk_bytes_used", c_uint64),
        ("catalog_bytes_capacity", c_uint64),
        ("catalog_bytes_used", c_uint64),
        ("host_bytes_capacity", c_uint64),
        ("host_bytes_used", c_uint64),
        ("blocks_evicted", c_uint64),
        ("blocks_forgotten", c_uint64),
        ("blocks_quarantined", c_uint64),
        ("leases_active", c_uint64),
        ("disk_bytes_written", c_uint64),
        ("disk_bytes_read", c_uint64),
        ("syncs", c_uint64),
        ("catalog_commits", c_uint64),
        ("poisoned", c_uint64),
        ("match_blocks_host", c_uint64),
        ("match_blocks_disk", c_uint64),
        ("restored_bytes_host", c_uint64),
        ("restored_bytes_disk", c_uint64),
        ("bytes_per_second_host", c_uint64),
        ("bytes_per_second_disk", c_uint64),
        ("restore_nanoseconds_estimated", c_uint64),
        ("restore_nanoseconds_measured", c_uint64),
        ("blocks_prefetched", c_uint64),
        ("host_bytes_lent", c_uint64),
        ("slots_erased", c_uint64),
        ("slots_erase_pending", c_uint64),
        ("blocks_expired", c_uint64),
        ("blocks_refused_full", c_uint64),
        ("pins_active", c_uint64),
        ("archive_bytes_capacity", c_uint64),
        ("archive_bytes_used", c_uint64),
        ("archive_bytes_written", c_uint64),
        ("archive_bytes_read", c_uint64),
        ("blocks_demoted", c_uint64),
        ("demoted_bytes", c_uint64),
        ("demoted_bytes_stored", c_uint64),
        ("blocks_promoted", c_uint64),
        ("promoted_bytes", c_uint64),
        ("match_blocks_archive", c_uint64),
        ("blocks_restored_archive", c_uint64),
        ("restored_bytes_archive", c_uint64),
        ("bytes_per_second_archive", c_uint64),
        ("device_slots_capacity", c_uint64),
        ("device_slots_used", c_uint64),
        ("device_slots_cached", c_uint64),
        ("device_blocks_shared", c_uint64),
        ("device_copies_on_write", c_uint64),
        ("device_bytes_in", c_uint64),
        ("device_bytes_out", c_uint64),
        ("blocks_declined", c_uint64),
        ("misses_unreadable", c_uint64),
        ("remote_look_ups", c_uint64),
        ("remote_look_up_rounds", c_uint64),
        ("remote_chunks_fetched", c_uint64),
        ("remote_chunks_sent", c_uint64),
        ("remote_chunks_existed", c_uint64),
        ("remote_bytes_fetched", c_uint64),
        ("remote_bytes_sent", c_uint64),
        ("remote_blocks_fetched", c_uint64),
        ("remote_misses", c_uint64),
        ("remote_drops", c_uint64),
        ("remote_objects_removed", c_uint64),
        ("remote_purges_pending", c_uint64),
        ("remote_left_alone", c_uint64),
    ]


class Bytes(Structure):
    """kvstore_bytes_t."""

    _fields_ = [("data", c_char_p), ("length", c_size_t)]


class Group(_Checked):
    """kvstore_group_t."""

    _fields_ = [
        ("first_region", c_uint32),
        ("region_count", c_uint32),
        ("window_tokens", c_uint32),
        ("reserved", c_uint32),
    ]


class NamespaceConfig(_Checked):
    """kvstore_namespace_config_t."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("identity_mode", c_uint32),
        ("tokens_per_block", c_uint32),
        ("digest_bytes", c_uint32),
        ("region_count", c_uint32),
        ("region_bytes", POINTER(c_uint64)),
        ("model_name", c_char_p),
        ("weights_digest", Bytes),
        ("adapter_digest", Bytes),
        ("tokenizer_digest", Bytes),
        ("kv_dtype", c_char_p),
        ("kv_quantization", c_char_p),
        ("layout", c_char_p),
        ("rope", c_char_p),
        ("engine_format", c_char_p),
        ("engine_bytes", Bytes),
        ("layer_count", c_uint32),
        ("kv_head_count", c_uint32),
        ("head_size", c_uint32),
        ("tensor_parallel_rank", c_uint32),
        ("tensor_parallel_size", c_uint32),
        ("pipeline_parallel_rank", c_uint32),
        ("pipeline_parallel_size", c_uint32),
        ("context_parallel_rank", c_uint32),
        ("context_parallel_size", c_uint32),
        ("salt", Bytes),
        ("extra_bytes_max", c_uint32),
        ("reserved", c_uint32),
        ("quota_bytes", c_uint64),
        ("ttl_nanoseconds", c_uint64),
        ("ttl_kind", c_uint32),
        ("reserved2", c_uint32),
        ("groups", POINTER(Group)),
        ("group_count", c_size_t),
    ]


class Prompt(_Checked):
    """kvstore_prompt_t."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("tokens", c_void_p),
        ("token_count", c_size_t),
        ("digests", c_void_p),
        ("digest_count", c_size_t),
        ("extra", POINTER(Bytes)),
        ("extra_count", c_size_t),
    ]


class BlockKey(Structure):
    """kvstore_block_key_t."""

    _fields_ = [("bytes", c_uint8 * 16)]


class Match(Structure):
    """kvstore_match_t."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("tokens_matched", c_uint64),
        ("blocks_matched", c_uint64),
        ("blocks_host", c_uint64),
        ("blocks_disk", c_uint64),
        ("lease", c_uint64),
        ("estimated_restore_nanoseconds", c_uint64),
        ("blocks_archive", c_uint64),
        ("being_fetched", c_uint64),
        ("blocks_remote", c_uint64),
        ("estimated_fetch_nanoseconds", c_uint64),
    ]


class Span(Structure):
    """kvstore_span_t."""

    _fields_ = [("data", c_void_p), ("capacity", c_size_t), ("length", c_size_t)]


class Transfer(_Checked):
    """kvstore_transfer_t."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("first_block", c_uint64),
        ("block_count", c_uint64),
        ("first_region", c_uint32),
        ("region_count", c_uint32),
        ("spans", POINTER(Span)),
        ("span_count", c_size_t),
        ("block_status", POINTER(STATUS)),
        ("timeout_nanoseconds", c_uint64),
        ("ttl_nanoseconds", c_uint64),
        ("ttl_kind", c_uint32),
        ("priority", c_uint32),
        ("prefix_block_count", c_uint64),
    ]


class TransferResult(Structure):
    """kvstore_transfer_result_t."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("blocks_done", c_uint64),
        ("blocks_host", c_uint64),
        ("blocks_disk", c_uint64),
        ("bytes", c_uint64),
    ]


class Explanation(Structure):
    """kvstore_explanation_t."""

    _fields_ = [
        ("struct_size", c_uint32),
        ("cause", c_uint32),
        ("blocks_asked", c_uint64),
        ("blocks_matched", c_uint64),
        ("tokens_matched", c_uint64),
        ("divergence_token", c_uint64),
        ("prompt_tokens", c_uint64),
        ("stored_tokens", c_uint64),
        ("tokens_lost", c_uint64),
        ("elsewhere_token", c_uint64),
        ("left_nanoseconds", c_uint64),
        ("branch_count", c_uint64),
        ("nearest_run", c_uint64),
        ("nearest_position", c_uint32),
        ("nearest_token_count", c_uint32),
        ("nearest_tokens", c_uint32 * 8),
        ("other_namespace", c_uint32),
        ("reserved", c_uint32),
        ("other_tokens_matched", c_uint64),
        ("message", c_char * 768),
    ]


class Event(Structure):
    """kvstore_event_t."""

    _fields_ = [
        ("sequence", c_uint64),
        ("time_nanoseconds", c_uint64),
        ("kind", c_uint32),
        ("reason", c_uint32),
        ("tier", c_uint32),
        ("namespace_id", c_uint32),
        ("run", c_uint64),
        ("first_position", c_uint32),
        ("block_count", c_uint32),
        ("owner", c_uint32),
        ("reserved", c_uint32),
    ]


_FIELD_KINDS.update(
    ((structure, field[0]), field[1])
    for structure in (Config, Group, NamespaceConfig, Prompt, Transfer)
    for field in structure._fields_
    if field[1] in (c_char_p, c_uint32, c_uint64, c_size_t)
)

STORE = c_void_p
NAMESPACE = c_void_p
SESSION = c_void_p
OPERATION = c_void_p
VIEW = c_void_p

# name: (result, arguments). ctypes.CDLL releases the interpreter lock for the length of every call.
FUNCTIONS: dict[str, tuple[object, list[object]]] = {
    "kvstore_version": (c_uint32, []),
    "kvstore_status_string": (c_char_p, [STATUS]),
    "kvstore_last_error_message": (c_char_p, []),
    "kvstore_config_init": (STATUS, [POINTER(Config), c_size_t]),
    "kvstore_open": (STATUS, [POINTER(Config), POINTER(STORE)]),
    "kvstore_close": (STATUS, [STORE]),
    "kvstore_flush": (STATUS, [STORE, c_uint64, POINTER(FlushResult)]),
    "kvstore_stats": (STATUS, [STORE, POINTER(Stats)]),
    "kvstore_metrics_text": (STATUS, [STORE, c_char_p, c_size_t, POINTER(c_size_t)]),
    "kvstore_host_memory": (STATUS, [STORE, POINTER(c_void_p), POINTER(c_size_t)]),
    "kvstore_namespace_config_init": (STATUS, [POINTER(NamespaceConfig), c_size_t]),
    "kvstore_namespace_open": (STATUS, [STORE, POINTER(NamespaceConfig), POINTER(NAMESPACE)]),
    "kvstore_namespace_close": (STATUS, [NAMESPACE]),
    "kvstore_namespace_id": (STATUS, [NAMESPACE, POINTER(c_uint32)]),
    "kvstore_block_keys": (
        STATUS,
        [NAMESPACE, POINTER(Prompt), POINTER(BlockKey), c_size_t, POINTER(c_size_t)],
    ),
    "kvstore_match": (STATUS, [NAMESPACE, POINTER(Prompt), c_uint32, c_uint64, POINTER(Match)]),
    "kvstore_match_all": (
        STATUS,
        [POINTER(NAMESPACE), c_size_t, POINTER(Prompt), c_uint32, c_uint64, POINTER(Match)],
    ),
    "kvstore_section_open": (STATUS, [NAMESPACE, _Text, c_uint64, c_uint64, POINTER(NAMESPACE)]),
    "kvstore_section_digest": (
        STATUS,
        [NAMESPACE, POINTER(Prompt), c_uint64, c_void_p, c_size_t, POINTER(c_size_t)],
    ),
    "kvstore_match_sections": (
        STATUS,
        [NAMESPACE, POINTER(NAMESPACE), c_size_t, POINTER(Prompt), c_uint32, c_uint64, POINTER(Match)],
    ),
    "kvstore_restore": (
        STATUS,
        [NAMESPACE, POINTER(Prompt), POINTER(Transfer), POINTER(TransferResult)],
    ),
    "kvstore_offload": (
        STATUS,
        [NAMESPACE, POINTER(Prompt), POINTER(Transfer), POINTER(TransferResult)],
    ),
    "kvstore_restore_start": (STATUS, [NAMESPACE, POINTER(Prompt), POINTER(Transfer), POINTER(OPERATION)]),
    "kvstore_offload_start": (STATUS, [NAMESPACE, POINTER(Prompt), POINTER(Transfer), POINTER(OPERATION)]),
    "kvstore_poll": (STATUS, [OPERATION, POINTER(TransferResult)]),
    "kvstore_wait": (STATUS, [OPERATION, c_uint64, POINTER(TransferResult)]),
    "kvstore_cancel": (STATUS, [OPERATION]),
    "kvstore_restore_view": (
        STATUS,
        [NAMESPACE, POINTER(Prompt), POINTER(Transfer), POINTER(VIEW), POINTER(TransferResult)],
    ),
    "kvstore_view_release": (STATUS, [VIEW]),
    "kvstore_prefetch": (STATUS, [NAMESPACE, POINTER(Prompt), POINTER(c_uint64)]),
    "kvstore_explain": (STATUS, [NAMESPACE, POINTER(Prompt), c_uint32, POINTER(Explanation)]),
    "kvstore_lease_release": (STATUS, [STORE, c_uint64]),
    "kvstore_lease_extend": (STATUS, [STORE, c_uint64, c_uint64]),
    "kvstore_touch": (STATUS, [NAMESPACE, POINTER(Prompt), POINTER(c_uint64)]),
    "kvstore_forget": (STATUS, [NAMESPACE, POINTER(Prompt), POINTER(c_uint64)]),
    "kvstore_purge": (STATUS, [NAMESPACE, POINTER(Prompt), c_uint32, POINTER(c_uint64)]),
    "kvstore_namespace_purge": (STATUS, [NAMESPACE, POINTER(c_uint64)]),
    "kvstore_pin": (STATUS, [NAMESPACE, POINTER(Prompt), c_uint64, POINTER(c_uint64), POINTER(c_uint64)]),
    "kvstore_unpin": (STATUS, [STORE, c_uint64]),
    "kvstore_session_begin": (STATUS, [NAMESPACE, _Text, POINTER(SESSION), POINTER(c_uint64)]),
    "kvstore_session_match": (STATUS, [SESSION, POINTER(Prompt), c_uint32, c_uint64, POINTER(Match)]),
    "kvstore_session_step": (STATUS, [SESSION, c_uint64, POINTER(c_uint64)]),
    "kvstore_session_touch": (STATUS, [SESSION, POINTER(c_uint64)]),
    "kvstore_session_set_ttl": (STATUS, [SESSION, c_uint64, POINTER(c_uint64)]),
    "kvstore_session_end": (STATUS, [SESSION]),
    "kvstore_events_read": (
        STATUS,
        [STORE, POINTER(c_uint64), POINTER(Event), c_size_t, c_size_t, POINTER(c_size_t)],
    ),
}


def declare(library: ctypes.CDLL) -> None:
    """Gives every function its types. A library that lacks one is refused with an AttributeError."""
    refusing: dict[object, object] = {c_uint64: _UInt64, c_size_t: _UInt64, c_uint32: _UInt32}
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = [refusing.get(argument, argument) for argument in arguments]
