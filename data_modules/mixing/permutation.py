"""A keyed permutation computed index by index, so that shuffling a source of any size costs no memory."""

from __future__ import annotations

import hashlib

import numpy as np

BLOCK = 1024  # neighbours that stay together where a source is shuffled in windows
_ROUNDS = 8  # four leave sources of a dozen documents visibly unevenly shuffled


def key_of(*parts: object) -> int:
    """A 63-bit integer that depends on every part and on nothing else (not on PYTHONHASHSEED)."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def mix(values: np.ndarray, key: int) -> np.ndarray:
    """Hash uint64 `values` with `key` (the splitmix64 finaliser); returns uint64 of the same shape."""
    with np.errstate(over="ignore"):
        x = values.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def permute(positions: np.ndarray, size: int, key: int) -> np.ndarray:
    """Where a shuffle with `key` puts each of `positions` in [0, size).

    A balanced Feistel network over the next even power of two; values that fall outside [0, size) walk on
    until they are inside, which keeps it a bijection (at most four steps on average).

    Args:
        positions: (n,) integers in [0, size).
        size: how many items are shuffled.
        key: which shuffle.

    Returns:
        (n,) int64 in [0, size).
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    out = positions.astype(np.uint64)
    outside = np.ones(out.shape, dtype=bool)
    while outside.any():
        left, right = out[outside] >> np.uint64(half), out[outside] & mask
        for step in range(_ROUNDS):
            left, right = right, left ^ (mix(right, (key + step * 0x632BE59BD9B4E019) & (2**63 - 1)) & mask)
        out[outside] = (left << np.uint64(half)) | right
        outside = out >= np.uint64(size)
    return out.astype(np.int64)


def permute_in_windows(positions: np.ndarray, size: int, key: int, window: int | None) -> np.ndarray:
    """A shuffle that touches only part of a source at a time, so that storage is not read all over.

    Blocks of `BLOCK` neighbours are shuffled, and items are shuffled within windows of as many blocks as `window`
    holds; what is left over at the end belongs to the last one. Where blocks begin depends on the key.

    Args:
        positions: (n,) integers in [0, size).
        size: how many items are shuffled.
        key: which shuffle.
        window: items, a multiple of `BLOCK`; None, or a size up to it, shuffles all of them at once.

    Returns:
        (n,) int64 in [0, size).
    """
    if window is None or size <= window:
        return permute(positions, size, key)
    positions = positions.astype(np.int64)
    windows = size // window
    number = np.minimum(positions // window, windows - 1)
    mixed = np.empty_like(positions)
    for one in np.unique(number).tolist():
        here = number == one
        length = window if one < windows - 1 else size - one * window
        mixed[here] = one * window + permute(positions[here] - one * window, length, key_of(key, "window", one))
    blocks = size // BLOCK  # whole ones; the rest is not moved
    block, whole = mixed // BLOCK, mixed < blocks * BLOCK
    block[whole] = permute(block[whole], blocks, key_of(key, "blocks"))
    return (block * BLOCK + mixed % BLOCK + key % size) % size
