"""A store: the folder in which blocks are kept."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any, Literal, get_args

from . import _abi
from .closing import Closing
from .errors import BadHandleError, Status
from .library import check, check_done, library
from .namespace import Identity, Namespace
from .results import Event, Events, Flush
from .sizes import byte_count, nanoseconds

_OPEN_READ_ONLY = 1
_OPEN_BUFFERED_IO = 2

RemoteWrites = Literal["reused", "all", "off"]
"""What is written to a remote tier."""
RemoteEncoding = Literal["raw", "frames"]
"""How it is written."""

_IO_PATHS = ("none", "direct", "buffered")
_EVENT_KINDS = {1: "stored", 2: "removed", 3: "quarantined", 4: "moved"}
_EVENT_REASONS = {0: "", 1: "evicted", 2: "forgotten", 3: "corrupt", 4: "expired", 5: "quota"}


class Store(Closing):
    """A store that is open; threads may share it, and processes may open one store together.

    Sizes are in bytes, or text such as "200GiB", "200G" (the same) or "200GB". A path may begin with ~. What is left out has
    the library's default.
    remote is the URL of a tier outside this machine (docs/remote.md), which other stores share.
    A store that was opened before fork() answers ForkedError in the child: open it there.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        capacity: int | str | None = None,
        catalog: int | str | None = None,
        host: int | str | None = None,
        archive: int | str | None = None,
        archive_path: str | os.PathLike[str] | None = None,
        admission: Literal["always", "second-touch", "adaptive"] = "always",
        write_budget: int | str | None = None,
        eviction: Literal["lru", "density"] = "density",
        inline_payload_max: int | str | None = None,
        offload_timeout_seconds: float | None = None,
        commit_interval_seconds: float | None = None,
        wait_timeout_seconds: float | None = None,
        read_only: bool = False,
        buffered_io: bool = False,
        remote: str | None = None,
        remote_credentials_file: str | os.PathLike[str] | None = None,
        remote_ca_file: str | os.PathLike[str] | None = None,
        remote_key_file: str | os.PathLike[str] | None = None,
        remote_writes: RemoteWrites = "reused",
        remote_match: bool = False,
        remote_write_budget: int | str | None = None,
        remote_ttl_seconds: float | None = None,
        remote_look_up_timeout_seconds: float | None = None,
        remote_transfer_timeout_seconds: float | None = None,
        remote_encoding: RemoteEncoding = "raw",
        remote_demotes: bool = False,
    ) -> None:
        self._handle: int | None = None
        if not isinstance(path, (str, os.PathLike)):
            raise TypeError(f"a store's path is text or a Path, not {type(path).__name__}")
        self.path = Path(path).expanduser()
        self.has_remote = remote is not None
        """Whether it was opened with a remote tier."""
        config = _abi.Config()
        check(library().kvstore_config_init(ctypes.byref(config), ctypes.sizeof(config)))
        config.path = os.fsencode(self.path)
        config.admission = ("always", "second-touch", "adaptive").index(admission)
        config.eviction_policy = ("lru", "density").index(eviction)
        if archive_path is not None:
            config.archive_path = os.fsencode(Path(archive_path).expanduser())
        if remote is not None:
            config.remote_url = os.fsencode(remote)
        for field, file in (
            ("remote_credentials_file", remote_credentials_file),
            ("remote_ca_file", remote_ca_file),
            ("remote_key_file", remote_key_file),
        ):
            if file is not None:
                setattr(config, field, os.fsencode(Path(file).expanduser()))
        config.remote_writes = get_args(RemoteWrites).index(remote_writes)
        config.remote_match = 1 if remote_match else 0
        config.remote_encoding = get_args(RemoteEncoding).index(remote_encoding)
        config.remote_demotes = 1 if remote_demotes else 0
        if remote_ttl_seconds is not None:
            config.remote_time_to_live_seconds = _abi.in_range(int(remote_ttl_seconds), "remote_ttl_seconds")
        config.flags = (_OPEN_READ_ONLY if read_only else 0) | (_OPEN_BUFFERED_IO if buffered_io else 0)
        for field, size in (
            ("capacity_bytes", capacity),
            ("catalog_bytes", catalog),
            ("host_bytes", host),
            ("archive_bytes", archive),
            ("write_bytes_per_day", write_budget),
            ("inline_payload_bytes_max", inline_payload_max),
            ("remote_write_bytes_per_day", remote_write_budget),
        ):
            if size is not None:
                setattr(config, field, byte_count(size))
        for field, seconds in (
            ("offload_timeout_nanoseconds", offload_timeout_seconds),
            ("commit_interval_nanoseconds", commit_interval_seconds),
            ("wait_timeout_nanoseconds", wait_timeout_seconds),
            ("remote_look_up_timeout_nanoseconds", remote_look_up_timeout_seconds),
            ("remote_transfer_timeout_nanoseconds", remote_transfer_timeout_seconds),
        ):
            if seconds is not None:
                setattr(config, field, nanoseconds(seconds))
        handle = _abi.STORE()
        check(library().kvstore_open(ctypes.byref(config), ctypes.byref(handle)))
        self._handle = handle.value

    @property
    def handle(self) -> int:
        """The library's handle; raises BadHandleError once the store is closed."""
        if self._handle is None:
            raise BadHandleError(Status.BAD_HANDLE, "the store is closed")
        return self._handle

    def namespace(
        self,
        identity: Identity,
        *,
        quota: int | str | None = None,
        ttl_seconds: float | None = None,
        ttl_absolute: bool = False,
    ) -> Namespace:
        """Opens the namespace of an identity record, creating it when absent. Keep it: opening costs a look-up.

        quota, and ttl_seconds of blocks that are written without a word about it, change the namespace durably, for all
        who have it open; None leaves them, 0 is no limit. A life counts from the last use, or from the write if ttl_absolute.
        """
        if not isinstance(identity, Identity):
            raise TypeError(f"a namespace is named by a kvstore.Identity, not {type(identity).__name__}")
        return Namespace(
            self.handle, identity, quota=quota, ttl_seconds=ttl_seconds, ttl_absolute=ttl_absolute
        )

    def existing_namespace(self, identity: Identity) -> Namespace | None:
        """Opens the namespace of an identity record if there is one; nothing is written."""
        found = Namespace(self.handle, identity, existing=True)
        return found if found.is_open else None

    def flush(self, timeout_seconds: float = 0) -> Flush:
        """Waits until everything that was offloaded in this process is durable; 0 waits as long as it takes."""
        result = _abi.FlushResult(struct_size=ctypes.sizeof(_abi.FlushResult))
        status = check(
            library().kvstore_flush(self.handle, nanoseconds(timeout_seconds), ctypes.byref(result))
        )
        return Flush(
            status=Status(status),
            blocks_durable=result.blocks_durable,
            blocks_dropped_full=result.blocks_dropped_full,
            blocks_dropped_parent=result.blocks_dropped_parent,
            blocks_dropped_error=result.blocks_dropped_error,
            blocks_dropped_quota=result.blocks_dropped_quota,
            blocks_dropped_evicted=result.blocks_dropped_evicted,
            blocks_dropped_incomplete=result.blocks_dropped_incomplete,
        )

    def stats(self) -> dict[str, Any]:
        """The counters of kvstore_stats_t by name; `io_path` is "none", "direct" or "buffered"."""
        stats = _abi.Stats(struct_size=ctypes.sizeof(_abi.Stats))
        check(library().kvstore_stats(self.handle, ctypes.byref(stats)))
        values = {name: getattr(stats, name) for name, *_ in _abi.Stats._fields_[2:]}
        return {"io_path": _IO_PATHS[stats.io_path], **values}

    def events(self, cursor: int = 0, limit: int = 1000) -> Events:
        """What happened to blocks in all processes behind the cursor, oldest first; 0 is the oldest event kept."""
        at, count = ctypes.c_uint64(_abi.in_range(cursor, "cursor")), ctypes.c_size_t()
        found = (_abi.Event * limit)()
        status = check(
            library().kvstore_events_read(
                self.handle, ctypes.byref(at), found, ctypes.sizeof(_abi.Event), limit, ctypes.byref(count)
            )
        )
        return Events(
            lapped=status == Status.LAPPED,
            cursor=at.value,
            events=tuple(
                Event(
                    sequence=event.sequence,
                    time=event.time_nanoseconds / 1e9,
                    kind=_EVENT_KINDS.get(event.kind, str(event.kind)),
                    reason=_EVENT_REASONS.get(event.reason, str(event.reason)),
                    tier=event.tier,
                    namespace_id=event.namespace_id,
                    run=event.run,
                    first_position=event.first_position,
                    block_count=event.block_count,
                    owner=event.owner,
                )
                for event in found[: count.value]
            ),
        )

    def metrics_text(self) -> str:
        """Counters and sizes in Prometheus' text format, version 0.0.4, to serve among the engine's own metrics."""
        capacity = 1 << 16
        while True:
            text, length = ctypes.create_string_buffer(capacity), ctypes.c_size_t()
            status = library().kvstore_metrics_text(self.handle, text, capacity, ctypes.byref(length))
            if status == Status.BUFFER_TOO_SMALL:
                # It may have grown once more by the next call.
                capacity = length.value * 2
                continue
            check(status)
            return text.raw[: length.value].decode()

    def unpin(self, pin: int) -> bool:
        """Ends a pin, whichever process made it; False if there is none of that number."""
        return check_done(library().kvstore_unpin(self.handle, _abi.in_range(pin, "pin"))) == Status.OK

    def host_memory(self) -> tuple[int, int]:
        """Address and byte count of the host tier's memory, for an engine to pin or register with its device."""
        base, size = ctypes.c_void_p(), ctypes.c_size_t()
        check(library().kvstore_host_memory(self.handle, ctypes.byref(base), ctypes.byref(size)))
        return base.value or 0, size.value

    def release(self, lease: int) -> None:
        """Ends a lease, whichever process took it; one that has ended, or 0, is fine."""
        if lease:
            check(library().kvstore_lease_release(self.handle, _abi.in_range(lease, "lease")))

    def extend(self, lease: int, seconds: float) -> bool:
        """Lets a lease last that long from now, 10 minutes at most; False if it has ended already."""
        lease = _abi.in_range(lease, "lease")
        return check(library().kvstore_lease_extend(self.handle, lease, nanoseconds(seconds))) == Status.OK

    def close(self) -> None:
        """Flushes and closes; its namespaces are closed with it. A second close does nothing.

        Where another process keeps the writer waiting too long, what is left is written in the background.
        """
        handle, self._handle = self._handle, None
        if handle is not None:
            check(library().kvstore_close(handle))

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r}{', closed' if self._handle is None else ''})"
