"""The remote tier (docs/remote.md) as engines are told of it: settings of one name everywhere, and the wait for a fetch."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, get_args

from .errors import InvalidArgumentError
from .results import Match
from .sizes import byte_count
from .store import RemoteEncoding, RemoteWrites, Store

# A look at a fetch costs a walk of the prompt; a chunk takes a millisecond and more.
_LOOK_SECONDS = 0.002
_SECONDS_MAX = {
    "remote_ttl_seconds": 2.0**32,
    "remote_wait_seconds": 600.0,
    "remote_look_up_timeout_seconds": 60.0,
    "remote_transfer_timeout_seconds": 600.0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSettings:
    """The settings of a store's remote tier, by the names that `Store` has for them."""

    remote: str | None = None
    """Where it is: "redis://host:port", "rediss://" with TLS, several hosts of a cluster separated by commas; no password.
    Without it there is none."""
    remote_credentials_file: str | None = None
    """A file (0600) with lines password=SECRET and, for an ACL user, user=NAME."""
    remote_ca_file: str | None = None
    """Certificates of those who may vouch for the server; the system's without."""
    remote_key_file: str | None = None
    """A file (0600) with the key that all machines share, 32 to 4096 bytes."""
    remote_writes: str = "reused"
    """"reused": a block goes there when a second request uses it. "all". "off": what others sent is read."""
    remote_write_budget: int | str | None = None
    """The most that is written there in a day: "200GiB"."""
    remote_ttl_seconds: float | None = None
    """How long objects live there whose blocks have no end of their own."""
    remote_encoding: str = "raw"
    """"frames": what is written there is compressed without loss, where that is shorter; for CPU time."""
    remote_demotes: bool = False
    """Blocks that are about to leave by eviction are sent as well."""
    remote_wait_seconds: float = 2.0
    """How long a request waits for what is there of its prompt, before it goes on with what is here; 0: nothing is read
    there."""
    remote_look_up_timeout_seconds: float | None = None
    """For a round of questions, connecting included; 0.25 without."""
    remote_transfer_timeout_seconds: float | None = None
    """For a transfer of up to eight chunks; 2 without."""

    @classmethod
    def remote_of(cls, settings: Mapping[str, Any]) -> RemoteSettings:
        """Those of an engine's settings that are ours; a bad value is a ValueError that names it."""
        if unknown := sorted(name for name in settings if name.startswith("remote_") and name not in remote_names()):
            raise ValueError(f"kvstore: unknown setting {', '.join(unknown)}; there are {', '.join(remote_names())}")
        found = RemoteSettings(**{name: settings[name] for name in remote_names() if name in settings})
        found.check_remote()
        return found

    def check_remote(self) -> None:
        """Raises ValueError for a value that cannot be, with its name."""
        for name in ("remote", "remote_credentials_file", "remote_ca_file", "remote_key_file"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise ValueError(f"kvstore: {name} is {value!r}, and must be text")
        if self.remote is None:
            given = [name for name in remote_names() if getattr(self, name) != getattr(_NONE, name)]
            if given:
                raise ValueError(f"kvstore: {', '.join(given)} without remote, the URL of the remote tier")
            return
        scheme, _, rest = self.remote.partition("://")
        if scheme not in ("redis", "rediss") or not rest:
            raise ValueError("kvstore: remote must be redis://HOST:PORT, or rediss:// with TLS")
        if ":" in rest.rpartition("@")[0]:
            raise ValueError("kvstore: remote must have no password in it: settings are public; use remote_credentials_file")
        for name, kind in (("remote_writes", RemoteWrites), ("remote_encoding", RemoteEncoding)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"kvstore: {name} is {getattr(self, name)!r}, and can be {', '.join(get_args(kind))}")
        if not isinstance(self.remote_demotes, bool):
            raise ValueError(f"kvstore: remote_demotes is {self.remote_demotes!r}, and must be true or false")
        if self.remote_write_budget is not None:
            byte_count(self.remote_write_budget)
        for name, most in _SECONDS_MAX.items():
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
                raise ValueError(f"kvstore: {name} is {value!r}, and must be a number of seconds, {most:g} at most")

    def open_store(self, path: str, **options: Any) -> Store:
        """Opens a store with this remote tier; raises KVStoreError, or ValueError where it is a setting that is wrong."""
        if self.remote is None:
            return Store(path, **options)
        if options.get("read_only"):
            raise ValueError("kvstore: a store that is opened read_only has no remote tier: leave out one of them")
        ours = {name: getattr(self, name) for name in remote_names() if name != "remote_wait_seconds"}
        try:
            return Store(path, **ours, **options)
        except InvalidArgumentError as reason:
            # To go on without would be to run something else than what was asked for.
            raise ValueError(f"kvstore: {reason}") from reason


_NONE = RemoteSettings()


def remote_names() -> tuple[str, ...]:
    """The names of the settings."""
    return tuple(field.name for field in fields(RemoteSettings))


def wait_for_remote(look: Callable[[], Match], seconds: float) -> bool:
    """Looks with `remote=True` until nothing of a prompt is on its way; False where the time was up first.

    `look` is a match with `peek` and `remote`. Without a remote tier it is one look; with no time for it, none.
    """
    if seconds <= 0:
        return True
    end = time.monotonic() + seconds
    while look().being_fetched:
        if time.monotonic() >= end:
            return False
        time.sleep(_LOOK_SECONDS)
    return True


def add_remote_arguments(parser: argparse.ArgumentParser, prefix: str) -> None:
    """Adds the settings as options of a command line, their names behind `prefix`."""
    group = parser.add_argument_group("remote tier", "what other stores share, in Valkey or Redis (docs/remote.md)")
    for name in remote_names():
        if name == "remote_demotes":
            group.add_argument(prefix + name, action="store_true", default=None)
            continue
        group.add_argument(prefix + name, type=float if name.endswith("_seconds") else str, metavar=name.split("_")[-1].upper())


def remote_arguments(arguments: argparse.Namespace, prefix: str) -> RemoteSettings:
    """What was given of them; a bad value is a ValueError that names it."""
    given = {name: getattr(arguments, prefix.lstrip("-") + name) for name in remote_names()}
    return RemoteSettings.remote_of({name: value for name, value in given.items() if value is not None})
