"""Memory of the caller that blocks are read from and written to, in place."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from typing import Any

from . import _abi


def address_of(memory: Any, *, writable: bool = False) -> tuple[int, int, Any]:
    """Address and byte count of an object with the buffer protocol, and what must live while they are used."""
    if isinstance(memory, bytes) and not writable:
        pointer = ctypes.c_char_p(memory)
        return ctypes.cast(pointer, ctypes.c_void_p).value or 0, len(memory), memory
    view = memoryview(memory)
    if not view.c_contiguous:
        raise ValueError("memory must be contiguous; pass its pieces one by one")
    if view.nbytes == 0:
        return 0, 0, memory
    if view.readonly:
        if writable:
            raise ValueError("memory to restore into must be writable")
        # ctypes lends no address of read-only memory other than bytes, and PyObject_GetBuffer does.
        raise ValueError("read-only memory: pass bytes, or its address and byte count")
    lent = (ctypes.c_char * view.nbytes).from_buffer(view)
    return ctypes.addressof(lent), view.nbytes, lent


class Spans:
    """A scatter list: one piece of memory for each block and region, block by block.

    The memory must stay in place as long as a call uses the list. Made from objects with the buffer protocol
    (`Spans.of`), which the list keeps alive, or from addresses (`Spans.at`), which it cannot.
    """

    __slots__ = ("_kept", "count", "pointer")

    def __init__(self, array: Any, count: int, kept: Any) -> None:
        self.pointer = ctypes.cast(array, ctypes.POINTER(_abi.Span))
        self.count = count
        self._kept = (array, kept)

    @classmethod
    def of(cls, pieces: Iterable[Any], *, writable: bool = False) -> Spans:
        """From bytes, bytearrays, memoryviews, numpy arrays; writable to restore into."""
        lent = [address_of(piece, writable=writable) for piece in pieces]
        array = (_abi.Span * len(lent))(*((address, size, size) for address, size, _ in lent))
        return cls(array, len(lent), [owner for _, _, owner in lent])

    @classmethod
    def at(cls, addresses: Sequence[int], byte_count: int | Sequence[int]) -> Spans:
        """From addresses, for example `tensor.data_ptr()`, with one byte count for all or one for each."""
        sizes = [byte_count] * len(addresses) if isinstance(byte_count, int) else byte_count
        for values, what in ((addresses, "an address"), (sizes, "a byte count")):
            if len(values):
                _abi.in_range(min(values), what)
                _abi.in_range(max(values), what)
        array = (_abi.Span * len(addresses))(
            *((address, size, size) for address, size in zip(addresses, sizes, strict=True))
        )
        return cls(array, len(addresses), None)

    @classmethod
    def from_words(cls, words: Any) -> Spans:
        """From writable memory of three 64-bit words a piece: address, byte count, byte count.

        This is how numpy makes a long list without a loop; it is used as it is.
        """
        address, size, lent = address_of(words, writable=True)
        if size % ctypes.sizeof(_abi.Span):
            raise ValueError("each piece has three 64-bit words")
        return cls(ctypes.c_void_p(address), size // ctypes.sizeof(_abi.Span), (lent, words))

    def lengths(self) -> list[int]:
        """The byte count of each piece: after a restore, those of the stored regions."""
        return [self.pointer[index].length for index in range(self.count)]
