"""The library's calls that records take, on memory that a thread uses again: what `Namespace` prepares for any prompt takes longer than
the call itself."""

from __future__ import annotations

import ctypes
import threading
from array import array
from collections.abc import Sequence

from .. import Namespace, Status, _abi
from ..library import check, library
from ..sizes import nanoseconds

DIGEST_BYTES = 32
# A head with its value, up to what a store keeps in its catalog by default.
HEAD_BYTES_MAX = 16_384

_MATCH_PEEK = 1
_TRANSFER_PRIORITY = 1
_TTL_ABSOLUTE = 1
_TTL_UNLIMITED = 2**64 - 1


def _address(memory: bytes) -> int | None:
    return ctypes.cast(ctypes.c_char_p(memory), ctypes.c_void_p).value


class Calls(threading.local):
    """Of one thread. A path is the digests of blocks, one behind the other."""

    def __init__(self) -> None:
        self._prompt = _abi.Prompt(struct_size=ctypes.sizeof(_abi.Prompt))
        self._match = _abi.Match(struct_size=ctypes.sizeof(_abi.Match))
        self._count = ctypes.c_uint64()
        self._result = _abi.TransferResult(struct_size=ctypes.sizeof(_abi.TransferResult))
        self._given = _abi.Transfer(struct_size=ctypes.sizeof(_abi.Transfer))
        # One head is restored at a time, always to the same place.
        memory = bytearray(HEAD_BYTES_MAX)
        self._view = memoryview(memory)
        self._lent = (ctypes.c_char * HEAD_BYTES_MAX).from_buffer(memory)
        self._span = _abi.Span(ctypes.addressof(self._lent), HEAD_BYTES_MAX, HEAD_BYTES_MAX)
        self._asked = _abi.Transfer(
            struct_size=ctypes.sizeof(_abi.Transfer), spans=ctypes.pointer(self._span), span_count=1, block_count=1
        )

    def _path(self, path: bytes) -> None:
        self._prompt.digests = _address(path)
        self._prompt.digest_count = len(path) // DIGEST_BYTES

    def peek(self, namespace: Namespace, path: bytes) -> int:
        """How many blocks of the path are stored, from its beginning on, without a trace."""
        self._path(path)
        match = self._match
        check(library().kvstore_match(namespace.handle, ctypes.byref(self._prompt), _MATCH_PEEK, 0, ctypes.byref(match)))
        return match.blocks_matched

    def touch(self, namespace: Namespace, path: bytes) -> int:
        """`peek` that is a use of them."""
        self._path(path)
        status = library().kvstore_touch(namespace.handle, ctypes.byref(self._prompt), ctypes.byref(self._count))
        if status == Status.READ_ONLY:
            return self.peek(namespace, path)
        check(status)
        return self._count.value

    def head(self, namespace: Namespace, path: bytes) -> bytes | None:
        """The last block of the path; None: it is not stored. At most HEAD_BYTES_MAX bytes."""
        self._path(path)
        self._asked.first_block = len(path) // DIGEST_BYTES - 1
        result = self._result
        check(
            library().kvstore_restore(
                namespace.handle, ctypes.byref(self._prompt), ctypes.byref(self._asked), ctypes.byref(result)
            )
        )
        return bytes(self._view[: result.bytes]) if result.blocks_done == 1 else None

    def offload(
        self,
        namespace: Namespace,
        path: bytes,
        stored: bytes,
        sizes: Sequence[int],
        ttl_seconds: float | None,
        priority: int | None,
    ) -> bool:
        """Stores the path's last blocks, so many bytes of `stored` each; False: there is no place for all of them.

        Of those that are stored already their life is prolonged. ttl_seconds: from now; None until they are evicted.
        """
        self._path(path)
        words = array("Q")
        address = _address(stored) or 0
        for size in sizes:
            words.extend((address, size, size))
            address += size
        given = self._given
        given.first_block = len(path) // DIGEST_BYTES - len(sizes)
        given.spans = ctypes.cast(words.buffer_info()[0], ctypes.POINTER(_abi.Span))
        given.span_count = len(sizes)
        given.ttl_nanoseconds = _TTL_UNLIMITED if ttl_seconds is None else nanoseconds(ttl_seconds)
        given.ttl_kind = 0 if ttl_seconds is None else _TTL_ABSOLUTE
        given.flags, given.priority = (0, 0) if priority is None else (_TRANSFER_PRIORITY, priority)
        status = library().kvstore_offload(
            namespace.handle, ctypes.byref(self._prompt), ctypes.byref(given), ctypes.byref(self._result)
        )
        return check(status) == Status.OK
