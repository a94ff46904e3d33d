"""Memory of the caller that blocks are read from and written to, in place."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from typing import Any

from . import _abi


class _PyBuffer(ctypes.Structure):
    """Py_buffer, as PyObject_GetBuffer fills it."""

    _fields_ = [
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    ]


class _Borrowed:
    """Memory that may only be read, for as long as this object lives: ctypes lends no address of it."""

    def __init__(self, memory: Any) -> None:
        self.buffer = _PyBuffer()
        ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(memory), ctypes.byref(self.buffer), 0)

    def __del__(self) -> None:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(self.buffer))


def _tensor_address(tensor: Any) -> tuple[int, int, Any]:
    """Of a torch tensor, which has no buffer protocol; torch itself is not imported."""
    if tensor.device.type != "cpu":
        raise ValueError(
            f"the tensor is on {tensor.device}: copy it to the host first, or pass addresses with Spans.at where the device's "
            "memory can be read and written by the host"
        )
    if not tensor.is_contiguous():
        raise ValueError("memory must be contiguous; pass its pieces one by one, or tensor.contiguous() to offload")
    return tensor.data_ptr(), tensor.numel() * tensor.element_size(), tensor


def address_of(memory: Any, *, writable: bool = False) -> tuple[int, int, Any]:
    """Address and byte count of a torch tensor or an object with the buffer protocol (bytes, numpy arrays, mmap ...), and
    what must live while they are used."""
    if isinstance(memory, bytes) and not writable:
        pointer = ctypes.c_char_p(memory)
        return ctypes.cast(pointer, ctypes.c_void_p).value or 0, len(memory), memory
    if hasattr(memory, "data_ptr") and hasattr(memory, "is_contiguous"):
        return _tensor_address(memory)
    try:
        view = memoryview(memory)
    except TypeError:
        raise TypeError(
            "memory is a torch tensor or an object with the buffer protocol (bytes, bytearray, a numpy array), "
            f"not {type(memory).__name__}"
        ) from None
    if not view.c_contiguous:
        raise ValueError("memory must be contiguous; pass its pieces one by one")
    if view.nbytes == 0:
        return 0, 0, memory
    if view.readonly:
        if writable:
            raise ValueError("memory to restore into must be writable")
        borrowed = _Borrowed(view)
        return borrowed.buffer.buf or 0, view.nbytes, borrowed
    lent = (ctypes.c_char * view.nbytes).from_buffer(view)
    return ctypes.addressof(lent), view.nbytes, lent


def _spans(count: int) -> Any:
    """The type of an array of spans, which tuples are turned into; type checkers know of Span objects alone."""
    return _abi.Span * count


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
        """From bytes, bytearrays, memoryviews, numpy arrays, torch tensors; writable to restore into."""
        if isinstance(pieces, (bytes, bytearray, memoryview)) or hasattr(pieces, "data_ptr"):
            raise TypeError(
                f"memory is a list of pieces, one for each block and region, not one {type(pieces).__name__}: write [memory]"
            )
        lent = [address_of(piece, writable=writable) for piece in pieces]
        array = _spans(len(lent))(*((address, size, size) for address, size, _ in lent))
        return cls(array, len(lent), [owner for _, _, owner in lent])

    @classmethod
    def at(cls, addresses: Sequence[int], byte_count: int | Sequence[int]) -> Spans:
        """From addresses, for example `tensor.data_ptr()`, with one byte count for all or one for each."""
        sizes = [byte_count] * len(addresses) if isinstance(byte_count, int) else byte_count
        for values, what in ((addresses, "an address"), (sizes, "a byte count")):
            if len(values):
                _abi.in_range(min(values), what)
                _abi.in_range(max(values), what)
        array = _spans(len(addresses))(
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
