"""Numbers of the frames of a source's videos, and the order of the documents that show them."""

from __future__ import annotations

import numpy as np

from data_modules.mixing.permutation import key_of, permute

FRAME_BITS = 32  # of a picture's key that count frames; those above count videos
MAX_FRAME = 2**FRAME_BITS - 1


def frame_keys(rows: int | np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Keys (frames,) of pictures by their video's row in the table and their number in the video."""
    return (np.asarray(rows, np.int64) << FRAME_BITS) | frames.astype(np.int64)


def shuffled(count: int) -> np.ndarray:
    """Place (count,) of each document in its table, the same in every run: the first so many are from all files."""
    return permute(np.arange(count), count, key_of("documents of videos"))
