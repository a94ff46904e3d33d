"""A namespace: what makes blocks interchangeable, and the calls that move them."""

from __future__ import annotations

import ctypes
import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from . import _abi
from .closing import Closing
from .errors import BadHandleError, Status
from .library import check, check_done, library
from .matching import explanation_of, match_flags, match_of, transfer_of
from .memory import Spans
from .moving import Operation, View
from .prompt import Prompt, as_prompt
from .results import Explanation, Match, Pin, Transfer
from .session import Session
from .sizes import byte_count, nanoseconds

_IDENTITY_DIGEST = 1
_REGIONS_VARIABLE = 1
_EXISTING = 2
_TRANSFER_WHOLE = 2
_TTL_ABSOLUTE = 1
_TTL_UNLIMITED = 2**64 - 1
_TRANSFER_PRIORITY = 1
_PURGE_TAIL = 1


@dataclass(frozen=True, slots=True)
class Group:
    """A KV cache group: neighbouring regions of each block, those of layers that share one kind of attention."""

    first_region: int
    region_count: int
    window_tokens: int = 0
    """The layers of the next token look at so many tokens before it; 0: at all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Everything that changes the bytes of a block, or who may see it.

    Two records that differ in any field are two namespaces and never share a block. Fields and their meaning are
    those of kvstore_namespace_config_t.
    """

    region_bytes: tuple[int, ...]
    tokens_per_block: int
    model_name: str = ""
    weights_digest: bytes = b""
    adapter_digest: bytes = b""
    tokenizer_digest: bytes = b""
    kv_dtype: str = ""
    kv_quantization: str = ""
    layout: str = ""
    rope: str = ""
    engine_format: str = ""
    engine_bytes: bytes = b""
    layer_count: int = 0
    kv_head_count: int = 0
    head_size: int = 0
    tensor_parallel_rank: int = 0
    tensor_parallel_size: int = 1
    pipeline_parallel_rank: int = 0
    pipeline_parallel_size: int = 1
    context_parallel_rank: int = 0
    context_parallel_size: int = 1
    salt: bytes = field(default=b"", repr=False)
    """A tenant's secret; so it is not in the `repr`."""
    extra_bytes_max: int | None = None
    digest_bytes: int = 0
    """Above 0: blocks are identified by the caller's digests of that many bytes, not by tokens."""
    regions_variable: bool = False
    """`region_bytes` are maxima: opaque pieces of variable length."""
    groups: tuple[Group, ...] = ()
    """Regions of layers that look back a while only: a restore brings their last window. Others belong to the whole prefix."""

    def __post_init__(self) -> None:
        for name, kind in ((*((name, str) for name in _TEXT), *((name, bytes) for name in _BYTES))):
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise TypeError(f"{name} is {'text' if kind is str else 'bytes'}, not {type(value).__name__}")
        if isinstance(self.region_bytes, (str, bytes)) or not isinstance(self.region_bytes, Sequence):
            raise TypeError(
                f"region_bytes has the size of each region of a block, for example (65536, 65536), not {self.region_bytes!r}"
            )
        object.__setattr__(self, "region_bytes", tuple(self.region_bytes))


_TEXT = ("model_name", "kv_dtype", "kv_quantization", "layout", "rope", "engine_format")
_BYTES = ("weights_digest", "adapter_digest", "tokenizer_digest", "engine_bytes", "salt")
_NUMBERS = (
    "tokens_per_block",
    "digest_bytes",
    "layer_count",
    "kv_head_count",
    "head_size",
    "tensor_parallel_rank",
    "tensor_parallel_size",
    "pipeline_parallel_rank",
    "pipeline_parallel_size",
    "context_parallel_rank",
    "context_parallel_size",
)


class Namespace(Closing):
    """A namespace that is open; made by `Store.namespace`. Threads may share it."""

    def __init__(
        self,
        store: int,
        identity: Identity,
        *,
        existing: bool = False,
        quota: int | str | None = None,
        ttl_seconds: float | None = None,
        ttl_absolute: bool = False,
    ) -> None:
        self.identity = identity
        self._store = store
        self._handle: int | None = None
        config = _abi.NamespaceConfig()
        check(library().kvstore_namespace_config_init(ctypes.byref(config), ctypes.sizeof(config)))
        for name in _TEXT:
            setattr(config, name, getattr(identity, name).encode())
        for name in _BYTES:
            data = getattr(identity, name)
            setattr(config, name, _abi.Bytes(data or None, len(data)))
        for name in _NUMBERS:
            setattr(config, name, getattr(identity, name))
        regions = (ctypes.c_uint64 * len(identity.region_bytes))(
            *(_abi.in_range(size, "region_bytes") for size in identity.region_bytes)
        )
        config.region_bytes = ctypes.cast(regions, ctypes.POINTER(ctypes.c_uint64))
        config.region_count = len(identity.region_bytes)
        groups = (_abi.Group * len(identity.groups))(
            *(_abi.Group(group.first_region, group.region_count, group.window_tokens) for group in identity.groups)
        )
        config.groups = ctypes.cast(groups, ctypes.POINTER(_abi.Group)) if identity.groups else None
        config.group_count = len(identity.groups)
        config.identity_mode = _IDENTITY_DIGEST if identity.digest_bytes else 0
        config.flags = (_REGIONS_VARIABLE if identity.regions_variable else 0) | (_EXISTING if existing else 0)
        if identity.extra_bytes_max is not None:
            config.extra_bytes_max = identity.extra_bytes_max
        if quota is not None:
            config.quota_bytes = byte_count(quota)
        if ttl_seconds is not None:
            config.ttl_nanoseconds = nanoseconds(ttl_seconds)
            config.ttl_kind = _TTL_ABSOLUTE if ttl_absolute else 0
        handle = _abi.NAMESPACE()
        check_done(library().kvstore_namespace_open(store, ctypes.byref(config), ctypes.byref(handle)))
        # None: it was to exist already, and does not.
        self._handle = handle.value

    @property
    def is_open(self) -> bool:
        """False once it is closed."""
        return self._handle is not None

    @property
    def handle(self) -> int:
        """The library's handle; raises BadHandleError once the namespace is closed."""
        if self._handle is None:
            raise BadHandleError(Status.BAD_HANDLE, "the namespace is closed")
        return self._handle

    @property
    def id(self) -> int:
        """The number of the namespace in its store, as events name it."""
        number = ctypes.c_uint32()
        check(library().kvstore_namespace_id(self.handle, ctypes.byref(number)))
        return number.value

    def _argument(self, prompt: Prompt) -> Any:
        return as_prompt(prompt).argument(self.identity.tokens_per_block, self.identity.digest_bytes)

    # ------------------------------------------------------------ lookup

    def block_keys(self, prompt: Prompt) -> list[bytes]:
        """The chained keys of the prompt's full blocks, 16 bytes each; does not look at the store."""
        if self.identity.digest_bytes:
            capacity = prompt.digest_count
        else:
            capacity = prompt.token_count // self.identity.tokens_per_block
        keys = (_abi.BlockKey * capacity)()
        count = ctypes.c_size_t()
        check(
            library().kvstore_block_keys(
                self.handle, self._argument(prompt), keys, capacity, ctypes.byref(count)
            )
        )
        return [bytes(keys[index].bytes) for index in range(count.value)]

    def match(
        self,
        prompt: Prompt,
        *,
        peek: bool = False,
        leave_one_token: bool = False,
        remote: bool = False,
        lease_seconds: float = 0,
    ) -> Match:
        """The longest stored prefix of the prompt, with a lease on it unless `peek`.

        peek: no lease, and no trace in recency or counters. leave_one_token: leave one to compute, as an engine
        needs its logits. remote: where less is stored than the prompt has, the store's remote tier may be asked for the
        rest, in the background; the answer's `being_fetched` says so. lease_seconds: 0 is the library's default of 60,
        the most is 600.
        """
        flags = match_flags(peek, leave_one_token, remote)
        found = _abi.Match(struct_size=ctypes.sizeof(_abi.Match))
        status = check(
            library().kvstore_match(
                self.handle, self._argument(prompt), flags, nanoseconds(lease_seconds), ctypes.byref(found)
            )
        )
        return match_of(status, found, self._store)

    @staticmethod
    def match_all(
        namespaces: Sequence[Namespace],
        prompt: Prompt,
        *,
        peek: bool = False,
        leave_one_token: bool = False,
        lease_seconds: float = 0,
    ) -> list[Match]:
        """The longest prefix that all of these namespaces have, with a lease in each: for the ranks of one model.

        They are of one store, and tokens and blocks are the same in each answer.
        """
        handles = (_abi.NAMESPACE * len(namespaces))(*(namespace.handle for namespace in namespaces))
        argument = None
        for namespace in namespaces:
            argument = namespace._argument(prompt)
        size = ctypes.sizeof(_abi.Match)
        found = (_abi.Match * len(namespaces))(*(_abi.Match(struct_size=size) for _ in namespaces))
        status = check(
            library().kvstore_match_all(
                handles,
                len(namespaces),
                argument,
                match_flags(peek, leave_one_token),
                nanoseconds(lease_seconds),
                found,
            )
        )
        return [match_of(status, match, namespaces[0]._store) for match in found]

    # ------------------------------------------------------------ side sections

    def section(self, name: str, bytes_max: int, *, quota: int | str | None = None) -> Namespace:
        """Opens the side sections of this name: state at block boundaries that is no KV of tokens.

        Each is a block of a namespace in digest mode with one region; `section_digest` of the result gives the digest to
        offload and restore it by.
        """
        section = Namespace.__new__(Namespace)
        section.identity = dataclasses.replace(
            self.identity,
            digest_bytes=self.identity.digest_bytes or 32,
            region_bytes=(bytes_max,),
            regions_variable=True,
            groups=(),
        )
        section._store = self._store
        section._handle = None
        handle = _abi.NAMESPACE()
        keep = 2**64 - 1
        check_done(
            library().kvstore_section_open(
                self.handle,
                _abi.text_without_nul(name.encode(), "the section's name"),
                _abi.in_range(bytes_max, "bytes_max"),
                keep if quota is None else byte_count(quota),
                ctypes.byref(handle),
            )
        )
        section._handle = handle.value
        return section

    def section_digest(self, prompt: Prompt, block_count: int = 0) -> bytes:
        """What the section behind the first `block_count` blocks of the owner's prompt (0: all) is found by."""
        digest = ctypes.create_string_buffer(64)
        length = ctypes.c_size_t()
        check_done(
            library().kvstore_section_digest(
                self.handle, self._argument(prompt), _abi.in_range(block_count, "block_count"), digest, 64, ctypes.byref(length)
            )
        )
        return digest.raw[: length.value]

    def match_sections(
        self,
        sections: Sequence[Namespace],
        prompt: Prompt,
        *,
        peek: bool = False,
        leave_one_token: bool = False,
        remote: bool = False,
        lease_seconds: float = 0,
    ) -> list[Match]:
        """The longest stored prefix at whose end all of these sections are stored; then one match of each section.

        remote: as for `match`; the first match says whether more, with its sections, is being fetched.
        """
        handles = (_abi.NAMESPACE * len(sections))(*(section.handle for section in sections))
        count = 1 + len(sections)
        size = ctypes.sizeof(_abi.Match)
        found = (_abi.Match * count)(*(_abi.Match(struct_size=size) for _ in range(count)))
        status = check(
            library().kvstore_match_sections(
                self.handle,
                handles,
                len(sections),
                self._argument(prompt),
                match_flags(peek, leave_one_token, remote),
                nanoseconds(lease_seconds),
                found,
            )
        )
        return [match_of(status, match, self._store) for match in found]

    # ------------------------------------------------------------ move

    def restore(
        self,
        prompt: Prompt,
        spans: Spans | Sequence[Any],
        *,
        first_block: int = 0,
        block_count: int = 0,
        first_region: int = 0,
        region_count: int = 0,
        timeout_seconds: float = 0,
        block_status: bool = False,
        prefix_block_count: int = 0,
        whole: bool = False,
    ) -> Transfer:
        """Copies stored blocks into memory, every byte verified; releases the interpreter lock meanwhile.

        The memory of the first `blocks_done` blocks is good, that of the others is undefined.
        block_count and region_count 0: to the last one. timeout_seconds 0: as long as it takes; else it ends with BUSY.
        Of groups with a window only the last one is brought, of a prefix of prefix_block_count blocks (0: up to the last block
        of these); whole: all of it.
        """
        if not isinstance(spans, Spans):
            spans = Spans.of(spans, writable=True)
        part = (first_block, block_count, first_region, region_count)
        moved = self._transfer(spans, part, timeout_seconds, block_status, prefix_block_count, whole)
        return self._move(library().kvstore_restore, prompt, moved)

    def offload(
        self,
        prompt: Prompt,
        spans: Spans | Sequence[Any],
        *,
        first_block: int = 0,
        block_count: int = 0,
        first_region: int = 0,
        region_count: int = 0,
        timeout_seconds: float = 0,
        block_status: bool = False,
        ttl_seconds: float | None = None,
        ttl_absolute: bool = False,
        priority: int | None = None,
    ) -> Transfer:
        """Takes blocks into the store; they are copied when it returns, and durable after `Store.flush`.

        The prompt must be whole blocks, and the block before first_block must be stored. timeout_seconds 0: that of
        the store. Releases the interpreter lock meanwhile.
        ttl_seconds: how long the blocks live, after their last use or, if ttl_absolute, from now; None is the default of
        the namespace, math.inf until they are evicted. priority: 0 to 100, lower ones are evicted first; None is 50.
        """
        if not isinstance(spans, Spans):
            spans = Spans.of(spans)
        hints = _abi.Transfer(ttl_kind=_TTL_ABSOLUTE if ttl_absolute else 0)
        if ttl_seconds is not None:
            hints.ttl_nanoseconds = _TTL_UNLIMITED if ttl_seconds == math.inf else nanoseconds(ttl_seconds)
        if priority is not None:
            hints.flags, hints.priority = _TRANSFER_PRIORITY, priority
        part = (first_block, block_count, first_region, region_count)
        moved = self._transfer(spans, part, timeout_seconds, block_status, hints=hints)
        return self._move(library().kvstore_offload, prompt, moved)

    def _transfer(
        self,
        spans: Spans,
        part: tuple[int, int, int, int],
        timeout_seconds: float,
        statuses: bool = False,
        prefix_block_count: int = 0,
        whole: bool = False,
        hints: _abi.Transfer | None = None,
    ) -> tuple[_abi.Transfer, Any]:
        """The structure, and the statuses of its blocks."""
        first_block, block_count, first_region, region_count = part
        regions = region_count or len(self.identity.region_bytes) - first_region
        transfer = _abi.Transfer(
            struct_size=ctypes.sizeof(_abi.Transfer),
            flags=_TRANSFER_WHOLE if whole else 0,
            prefix_block_count=prefix_block_count,
            first_block=first_block,
            block_count=block_count,
            first_region=first_region,
            region_count=region_count,
            spans=spans.pointer,
            span_count=spans.count,
            timeout_nanoseconds=nanoseconds(timeout_seconds),
        )
        if hints is not None:
            transfer.flags, transfer.priority = hints.flags, hints.priority
            transfer.ttl_nanoseconds, transfer.ttl_kind = hints.ttl_nanoseconds, hints.ttl_kind
        per_block = (_abi.STATUS * (spans.count // regions if statuses and regions > 0 else 0))()
        if statuses:
            transfer.block_status = ctypes.cast(per_block, ctypes.POINTER(_abi.STATUS))
        return transfer, per_block

    def _move(
        self, function: Any, prompt: Prompt, moved: tuple[_abi.Transfer, Any]
    ) -> Transfer:
        transfer, per_block = moved
        result = _abi.TransferResult(struct_size=ctypes.sizeof(_abi.TransferResult))
        status = check(
            function(
                self.handle, self._argument(prompt), ctypes.byref(transfer), ctypes.byref(result)
            )
        )
        return transfer_of(status, result, per_block)

    def start_restore(
        self,
        prompt: Prompt,
        spans: Spans | Sequence[Any],
        *,
        first_block: int = 0,
        block_count: int = 0,
        first_region: int = 0,
        region_count: int = 0,
        timeout_seconds: float = 0,
    ) -> Operation:
        """`restore` on a thread of the library's: returns at once, and is awaited or waited for.

        The memory is the library's until the operation has ended. Start one for each layer (a region range each) to use the
        first while later ones load.
        """
        if not isinstance(spans, Spans):
            spans = Spans.of(spans, writable=True)
        moved = self._transfer(spans, (first_block, block_count, first_region, region_count), timeout_seconds)
        return Operation(library().kvstore_restore_start, self.handle, self._argument(prompt), moved, (prompt, spans))

    def start_offload(
        self,
        prompt: Prompt,
        spans: Spans | Sequence[Any],
        *,
        first_block: int = 0,
        block_count: int = 0,
        first_region: int = 0,
        region_count: int = 0,
        timeout_seconds: float = 0,
    ) -> Operation:
        """`offload` on a thread of the library's; the memory stays as it is until the operation has ended."""
        if not isinstance(spans, Spans):
            spans = Spans.of(spans)
        moved = self._transfer(spans, (first_block, block_count, first_region, region_count), timeout_seconds)
        return Operation(library().kvstore_offload_start, self.handle, self._argument(prompt), moved, (prompt, spans))

    def view(
        self, prompt: Prompt, *, first_block: int = 0, block_count: int = 0, timeout_seconds: float = 0
    ) -> View:
        """Blocks in place, in the store's memory: `restore` without the copy. Use it in a `with` block, and be brief.

        block_count 0: all that is stored of the prompt behind first_block.
        """
        regions = len(self.identity.region_bytes)
        if not block_count:
            block_count = self.match(prompt, peek=True).blocks - first_block
        if block_count <= 0:
            return View(None, [], regions, Status.MISS)
        array = (_abi.Span * (block_count * regions))()
        spans = Spans(array, block_count * regions, None)
        transfer, _ = self._transfer(spans, (first_block, block_count, 0, 0), timeout_seconds)
        handle = _abi.VIEW()
        result = _abi.TransferResult(struct_size=ctypes.sizeof(_abi.TransferResult))
        status = check(
            library().kvstore_restore_view(
                self.handle, self._argument(prompt), ctypes.byref(transfer), ctypes.byref(handle), ctypes.byref(result)
            )
        )
        lent = [(span.data or 0, span.length) for span in array[: result.blocks_done * regions]]
        return View(handle.value, lent, regions, Status(status))

    def prefetch(self, prompt: Prompt) -> int:
        """Starts reading the prompt's stored prefix from disk into RAM; returns how many of its blocks are on the way."""
        count = ctypes.c_uint64()
        check(library().kvstore_prefetch(self.handle, self._argument(prompt), ctypes.byref(count)))
        return count.value

    def explain(self, prompt: Prompt) -> Explanation:
        """Why the prompt is stored only so far: call it on a miss. Changes nothing, and waits for no writer."""
        found = _abi.Explanation(struct_size=ctypes.sizeof(_abi.Explanation))
        check(library().kvstore_explain(self.handle, self._argument(prompt), 0, ctypes.byref(found)))
        return explanation_of(found)

    # ------------------------------------------------------------ keep

    def touch(self, prompt: Prompt) -> int:
        """Records a use of the prompt's longest stored prefix, and returns its length in blocks."""
        count = ctypes.c_uint64()
        check(library().kvstore_touch(self.handle, self._argument(prompt), ctypes.byref(count)))
        return count.value

    def pin(self, prompt: Prompt, seconds: float) -> Pin | None:
        """Keeps the prompt's longest stored prefix for that long, 90 days at most; None: nothing of it is stored.

        A pin is durable and belongs to no process: it ends by time or by `Store.unpin`.
        """
        pin, count = ctypes.c_uint64(), ctypes.c_uint64()
        status = check_done(
            library().kvstore_pin(
                self.handle,
                self._argument(prompt),
                nanoseconds(seconds),
                ctypes.byref(pin),
                ctypes.byref(count),
            )
        )
        return Pin(pin.value, count.value) if status == Status.OK else None

    def session(self, name: str = "") -> Session:
        """Begins a session: the record of one conversation, step by step, as `kvstore inspect sessions` shows it."""
        return Session(
            self.handle, name, self.identity.tokens_per_block, self.identity.digest_bytes, store=self._store
        )

    def forget(self, prompt: Prompt) -> int:
        """Removes the prompt's last full block and all below it, durably; returns how many blocks went.

        An empty prompt removes every block of the namespace.
        """
        count = ctypes.c_uint64()
        check_done(library().kvstore_forget(self.handle, self._argument(prompt), ctypes.byref(count)))
        return count.value

    def purge(self, prompt: Prompt | None = None, *, only_tail: bool = False) -> int:
        """Removes as `forget` does, and overwrites the slots with zeros in the background; returns how many blocks went.

        Without a prompt: the whole namespace. only_tail: of the prompt's longest stored prefix what it shares with no other.
        """
        count = ctypes.c_uint64()
        if prompt is None:
            if only_tail:
                raise ValueError("only_tail needs a prompt")
            check_done(library().kvstore_namespace_purge(self.handle, ctypes.byref(count)))
        else:
            flags = _PURGE_TAIL if only_tail else 0
            check_done(
                library().kvstore_purge(self.handle, self._argument(prompt), flags, ctypes.byref(count))
            )
        return count.value

    def close(self) -> None:
        """Closes the handle; the blocks stay. A second close does nothing."""
        handle, self._handle = self._handle, None
        if handle is not None:
            check(library().kvstore_namespace_close(handle))
