"""What can be set in kv_connector_extra_config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..effective import digest_setting
from ..remote import RemoteSettings
from ..sizes import byte_count
from ..store import Store

# Of the scheduler's process, where the remote tier's blocks come in: a few chunks of some 4 MiB.
_FETCH_BYTES = 128 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(RemoteSettings):
    """The connector's settings; each field is a key of kv_connector_extra_config, and so are those of the remote tier."""

    path: str
    """The store's folder. Engines of one model, or of many, may share it."""
    disk_bytes: int | str | None = None
    """The most that the store takes on disk, everything included: "200GiB". Default 10 GiB."""
    catalog_bytes: int | str | None = None
    """The catalog's part of it; the default fits blocks of 16 KiB and more."""
    host_bytes: int | str | None = None
    """RAM of each worker for blocks on their way in and out, and those used last. Default 256 MiB, or 16 blocks."""
    load: str = "async"
    """"async": requests wait for their blocks while others compute. "sync": blocks are loaded before the step that
    needs them. "layerwise": like sync, but a layer's compute waits for its own blocks only."""
    offload: str = "all"
    """"all": generated tokens are stored too, as an agent sends them back. "prompt": prompts only. "none"."""
    on_load_failure: str = "recompute"
    """What vLLM does with a request whose block turned out to be damaged or gone: "recompute" or "fail"."""
    load_tokens_min: int = 0
    """A prefix that saves fewer tokens than this is computed, not loaded."""
    load_timeout_seconds: float = 30.0
    """How long a request waits for its blocks before it is computed: a disk may hang."""
    load_threads: int = 2
    """Requests of one worker that load at the same time."""
    offload_timeout_seconds: float = 2.0
    """How long blocks wait for a disk that is slower than the engine, before they are not stored."""
    lease_seconds: float = 120.0
    """How long blocks that a request waits for are kept from being evicted."""
    weights_digest: str | None = None
    """32 bytes in hexadecimal; what tells these weights from others, where the files cannot be read."""
    buffered_io: bool = False
    """Never use O_DIRECT."""
    read_only: bool = False
    """Load from a store that others fill; nothing is written."""
    staging: bool = False
    """Copy through staging memory although the KV cache is in host memory. For tests of that path."""

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Options:
        """Reads the settings; a key that is none of ours, or a bad value, is a ValueError that names it."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(settings) - known)
        if unknown:
            raise ValueError(f"kvstore: unknown setting {', '.join(unknown)}; there are {', '.join(sorted(known))}")
        if not settings.get("path"):
            raise ValueError('kvstore: set "path" in kv_connector_extra_config to the folder of the store')
        options = cls(**settings)
        for name, values in (
            ("load", ("async", "sync", "layerwise")),
            ("offload", ("all", "prompt", "none")),
            ("on_load_failure", ("recompute", "fail")),
        ):
            if getattr(options, name) not in values:
                raise ValueError(f"kvstore: {name} is {getattr(options, name)!r}, and can be {', '.join(values)}")
        for name in ("disk_bytes", "catalog_bytes", "host_bytes"):
            if (size := getattr(options, name)) is not None:
                byte_count(size)
        if options.load_threads < 1:
            raise ValueError("kvstore: load_threads must be at least 1")
        options.check_remote()
        if options.remote and options.read_only:
            raise ValueError("kvstore: a store that is read_only has no remote tier: leave out one of them")
        if options.weights_digest is not None:
            digest_setting("weights_digest", options.weights_digest)
        return options

    def refuse_for_mixed_layers(self) -> None:
        """Raises ValueError for settings that a model with several kinds of layers cannot be run with."""
        if self.load != "async":
            raise ValueError(
                f"kvstore: load is {self.load!r}, and this model has layers of several kinds (windows or recurrent ones), of "
                "which vLLM takes back a failed load only between steps: leave out load, or set it to 'async'"
            )

    def open(self, block_bytes: int, *, lookup_only: bool = False) -> Store:
        """Opens the store, for a namespace with blocks of that size."""
        host = self.host_bytes
        if lookup_only:
            # A scheduler moves no blocks, but a namespace wants room for four.
            host = max(_FETCH_BYTES if self.remote else 4 << 20, 5 * block_bytes)
        elif host is None:
            host = max(256 << 20, 16 * block_bytes)
        return self.open_store(
            self.path,
            capacity=self.disk_bytes,
            catalog=self.catalog_bytes,
            host=host,
            offload_timeout_seconds=self.offload_timeout_seconds,
            # The scheduler's loop must not stand still because some process holds the catalog's lock.
            wait_timeout_seconds=2.0 if lookup_only else None,
            buffered_io=self.buffered_io,
            read_only=self.read_only,
        )
