"""Pairs of tables: the rows that have a caption."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_modules.reading.cropping import CENTRE, Cropping
from data_modules.reading.files import Stamps
from data_modules.reading.pair_table import PairPictures, PairTable
from data_modules.reading.pairs import PairCounts, Pairs


class TablePairs(Pairs):
    """Rows of tables, counted through all of them; those without a caption are left out.

    Args:
        parts: the tables, tokenized.
        size: side of a picture in pixels.
        counts: what was found when they were read.
        files: theirs, as they were then.
        cropping: how drawn pictures become squares.
    """

    def __init__(
        self, parts: Sequence[PairTable], size: int, counts: PairCounts, files: Stamps, cropping: Cropping = CENTRE
    ) -> None:
        self.pictures: PairPictures = PairPictures(parts, size, cropping)
        self.counts, self.files = counts, files
        captions = np.concatenate([part.lengths for part in parts], axis=1)
        self._kept = None if (captions[0] > 0).all() else np.flatnonzero(captions[0] > 0)
        self._captions = captions if self._kept is None else captions[:, self._kept]

    def __len__(self) -> int:
        return self._captions.shape[1]

    def lengths(self, captions: tuple[int | None, ...], constants: tuple[int, ...]) -> np.ndarray:
        """See `Pairs.lengths`."""
        nothing = np.zeros(len(self), np.int32)
        used = [nothing if caption is None else self._captions[caption] for caption in captions]
        return np.stack([tokens + c for tokens, c in zip(used, constants, strict=True)]).astype(np.int32)

    def caption_ids(self, pair: int, caption: int) -> list[int]:
        """Tokens of a caption."""
        part, row = self.pictures.locate(self.picture_key(pair))
        return part.caption_ids(row, caption)

    def picture_key(self, pair: int) -> int:
        """The row of a pair."""
        return pair if self._kept is None else int(self._kept[pair])

    def picture_keys(self) -> np.ndarray:
        """Rows that have a caption."""
        return np.arange(len(self)) if self._kept is None else self._kept
