"""kvstore: a persistent store for the KV cache of LLM inference servers.

An engine *offloads* the KV blocks that it computed and *restores* the longest stored prefix of its next prompt
instead of computing it again: after a pause, an eviction, a restart, in another process.

    import kvstore

    with kvstore.Store("~/.cache/my-engine", capacity="200GiB") as store:
        identity = kvstore.Identity(model_name="m", tokens_per_block=16, region_bytes=(4096,))
        with store.namespace(identity) as namespace:
            prompt = kvstore.Prompt(range(32))
            namespace.offload(prompt, [bytes(4096), bytes(4096)])
            with namespace.match(prompt) as match:
                memory = [bytearray(4096) for _ in range(match.blocks)]
                namespace.restore(prompt, memory)

The engines' adapters are in kvstore.vllm and kvstore.sglang; importing this package needs neither engine.
"""

from typing import TYPE_CHECKING, Any

from .errors import (
    BadHandleError,
    BufferTooSmallError,
    CorruptError,
    ForkedError,
    IdentityError,
    InternalError,
    InvalidArgumentError,
    KVStoreError,
    LockedError,
    NoSpaceError,
    NotAStoreError,
    OutOfMemoryError,
    ReadOnlyError,
    Status,
    StorageError,
    UnavailableError,
    VersionError,
)
from .hints import Hints
from .library import LibraryNotFoundError, version
from .memory import Spans
from .moving import Operation, View
from .namespace import Group, Identity, Namespace
from .prompt import Prompt
from .results import Event, Events, Explanation, Flush, Match, Pin, Transfer
from .session import Session
from .store import Store

__all__ = [
    "BadHandleError",
    "BufferTooSmallError",
    "CorruptError",
    "Event",
    "Events",
    "Explanation",
    "Flush",
    "ForkedError",
    "Group",
    "Hints",
    "Identity",
    "IdentityError",
    "InternalError",
    "InvalidArgumentError",
    "KVStoreError",
    "LibraryNotFoundError",
    "LockedError",
    "Match",
    "Namespace",
    "NoSpaceError",
    "NotAStoreError",
    "Operation",
    "OutOfMemoryError",
    "Pin",
    "Prompt",
    "ReadOnlyError",
    "Session",
    "Spans",
    "Status",
    "StorageError",
    "Store",
    "Transfer",
    "UnavailableError",
    "VersionError",
    "View",
    "__version__",
    "version",
]

if TYPE_CHECKING:
    __version__: str


def __getattr__(name: str) -> Any:
    """__version__: that of the installed package, or of the library where the package is used from its sources."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed_version

    try:
        return installed_version("kvstore")
    except PackageNotFoundError:
        return version()
