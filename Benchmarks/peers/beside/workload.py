"""What every store is given: blocks of random bytes, and the prompts whose KV they stand for."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

POISON = 0xA5
"""What memory holds before something is read into it."""

Blocks = np.ndarray[Any, np.dtype[np.uint8]]
"""Shape [blocks, bytes of a block]; page-aligned, as engines' memory for direct I/O is."""

Tokens = np.ndarray[Any, np.dtype[np.uint32]]


def memory(count: int, block_bytes: int) -> Blocks:
    """Blocks whose pages are there already, so that no store pays for the first touch of its caller's memory."""
    whole = np.frombuffer(mmap.mmap(-1, max(count * block_bytes, mmap.PAGESIZE)), dtype=np.uint8)
    blocks = whole[: count * block_bytes].reshape(count, block_bytes)
    blocks.fill(POISON)
    return blocks


def fill(blocks: Blocks, seed: int) -> None:
    """Random bytes, the same for a seed in every process. Nothing of it compresses."""
    words = blocks.reshape(-1).view(np.uint64)
    words[:] = np.random.Generator(np.random.SFC64(seed)).integers(0, 1 << 64, words.size, dtype=np.uint64)


def payload(count: int, block_bytes: int, seed: int) -> Blocks:
    blocks = memory(count, block_bytes)
    fill(blocks, seed)
    return blocks


def tokens(count: int, seed: int) -> Tokens:
    """A prompt of so many tokens; other seeds differ from the first token on."""
    return np.random.Generator(np.random.SFC64(seed)).integers(0, 128_000, count, dtype=np.uint32)


def compare(expected: Blocks, found: Blocks, hits: np.ndarray[Any, np.dtype[np.bool_]]) -> dict[str, int]:
    """Every byte of every block that was said to be there."""
    equal = np.fromiter((bool(np.array_equal(a, b)) for a, b in zip(expected, found, strict=True)), bool, len(expected))
    return {
        "blocks": len(expected),
        "right": int((hits & equal).sum()),
        "wrong": int((hits & ~equal).sum()),
        "missed": int((~hits).sum()),
    }
