"""Which blocks a call is about: the tokens or digests of a prompt from its first one on."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from typing import Any

from . import _abi
from .memory import address_of

_TOKEN_TYPECODE = "I"
assert array(_TOKEN_TYPECODE).itemsize == 4


class Prompt:
    """The tokens, or the digests, that identify blocks; a call says which of these blocks it means.

    tokens: ids in a sequence, or in memory of 32-bit unsigned integers (`array('I')`, a numpy array), which is
    used as it is. digests: the digests of a namespace in digest mode, one after the other, head first, all of the
    namespace's `digest_bytes`.
    extra: bytes of each of the first blocks, hashed and compared along with its tokens.
    """

    __slots__ = ("_is_prefix", "_kept", "digest_bytes", "digest_count", "struct", "token_count")

    def __init__(
        self,
        tokens: Sequence[int] | Any | None = None,
        *,
        digests: Sequence[bytes] | None = None,
        extra: Sequence[bytes] | None = None,
    ) -> None:
        if isinstance(tokens, (str, bytes)):
            raise TypeError(f"tokens are numbers, as a tokenizer gives them, not {type(tokens).__name__}")
        if (tokens is None) == (digests is None):
            raise ValueError("a prompt has either tokens or digests")
        self.struct = _abi.Prompt(struct_size=ctypes.sizeof(_abi.Prompt))
        self._kept: list[Any] = []
        self._is_prefix = False
        self.token_count = self.digest_count = self.digest_bytes = 0
        if tokens is not None:
            memory = _token_memory(tokens)
            self.token_count = len(memory)
            self.struct.tokens = self._keep(memory)
            self.struct.token_count = self.token_count
        if digests is not None:
            whole = [bytes(digest) for digest in digests]
            self.digest_count = len(whole)
            self.digest_bytes = len(whole[0]) if whole else 0
            if any(len(digest) != self.digest_bytes for digest in whole):
                raise ValueError("digests of one prompt are of one length")
            self.struct.digests = self._keep(b"".join(whole))
            self.struct.digest_count = self.digest_count
        if extra:
            entries = (_abi.Bytes * len(extra))(*(_abi.Bytes(part or None, len(part)) for part in extra))
            self._kept += [entries, list(extra)]
            self.struct.extra = ctypes.cast(entries, ctypes.POINTER(_abi.Bytes))
            self.struct.extra_count = len(extra)

    @classmethod
    def of_digests(cls, memory: bytes, digest_bytes: int) -> Prompt:
        """A prompt of the digests that lie in memory one behind the other, which is used as it is."""
        count, rest = divmod(len(memory), digest_bytes)
        if rest:
            raise ValueError(f"{len(memory)} bytes are no whole number of digests of {digest_bytes}")
        prompt = cls.__new__(cls)
        prompt.struct = _abi.Prompt(struct_size=ctypes.sizeof(_abi.Prompt))
        prompt._kept = []
        prompt._is_prefix = False
        prompt.token_count = 0
        prompt.digest_count, prompt.digest_bytes = count, digest_bytes
        prompt.struct.digests = prompt._keep(memory)
        prompt.struct.digest_count = count
        return prompt

    def prefix(self, *, tokens: int | None = None, digests: int | None = None) -> Prompt:
        """The first `tokens` tokens, or `digests` digests, of this prompt; shares its memory."""
        shorter = Prompt.__new__(Prompt)
        shorter.struct = _abi.Prompt.from_buffer_copy(self.struct)
        shorter._kept = self._kept
        shorter._is_prefix = True
        shorter.token_count, shorter.digest_count = self.token_count, self.digest_count
        shorter.digest_bytes = self.digest_bytes
        if tokens is not None:
            if not 0 <= tokens <= self.token_count:
                raise ValueError(f"a prefix of {tokens} tokens of a prompt with {self.token_count}")
            shorter.token_count = shorter.struct.token_count = tokens
        if digests is not None:
            if not 0 <= digests <= self.digest_count:
                raise ValueError(f"a prefix of {digests} digests of a prompt with {self.digest_count}")
            shorter.digest_count = shorter.struct.digest_count = digests
        return shorter

    def whole_blocks(self, tokens_per_block: int) -> Prompt:
        """This prompt without the tokens at its end that fill no block."""
        return self.prefix(tokens=self.token_count - self.token_count % tokens_per_block)

    def argument(self, tokens_per_block: int, digest_bytes: int) -> Any:
        """What a call of the library takes, for a namespace whose blocks have so many tokens and whose digests so many
        bytes (0: it is in tokens mode).

        The library gets no length of them: it would read on behind digests that are too short.
        """
        if self.digest_count and self.digest_bytes != digest_bytes:
            if not digest_bytes:
                raise ValueError("the namespace identifies blocks by tokens, and the prompt has digests")
            raise ValueError(f"digests of {self.digest_bytes} bytes, and the namespace's have {digest_bytes}")
        if self._is_prefix:
            # Of the whole prompt's extra bytes those of the blocks that the prefix still has; their size is the namespace's.
            blocks = self.digest_count if digest_bytes else -(-self.token_count // tokens_per_block)
            if self.struct.extra_count > blocks:
                shorter = _abi.Prompt.from_buffer_copy(self.struct)
                shorter.extra_count = blocks
                return ctypes.byref(shorter)
        return ctypes.byref(self.struct)

    def _keep(self, memory: Any) -> int | None:
        """Keeps memory alive as long as the prompt, and returns its address; None if it is empty."""
        self._kept.append(memory)
        if len(memory) == 0:
            return None
        address, _, owner = address_of(memory)
        self._kept.append(owner)
        return address


def _token_memory(tokens: Any) -> Any:
    try:
        view = memoryview(tokens)
    except TypeError:
        # A tensor gives its numbers at once, and one by one it is slow.
        numbers = tokens.tolist() if hasattr(tokens, "tolist") else tokens
        try:
            return array(_TOKEN_TYPECODE, numbers)
        except TypeError:
            raise TypeError(
                f"tokens are a sequence of numbers from 0 to {2**32 - 1}, one row of them, not {type(tokens).__name__}"
            ) from None
    if view.format not in ("I", "L") or view.itemsize != 4 or not view.c_contiguous or view.ndim != 1:
        # Signed 32-bit ids, 64-bit ones: the values decide, and array() checks their range.
        return array(_TOKEN_TYPECODE, view.tolist())
    return tokens


def as_prompt(prompt: object) -> Prompt:
    """Says what is wrong with anything else."""
    if not isinstance(prompt, Prompt):
        raise TypeError(f"a prompt is a kvstore.Prompt, not {type(prompt).__name__}: write kvstore.Prompt(tokens)")
    return prompt
