"""Pairs of pictures and captions, as an image-text source reads them from any kind of file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from data_modules.reading.files import Stamps
from data_modules.reading.lengths import MappedLengths
from data_modules.reading.picture_source import PictureSource


@dataclass(frozen=True)
class PairCounts:
    """What was found when pairs were read or indexed.

    Args:
        lost: pairs that cannot be read.
        without_caption: pairs whose caption is missing or blank.
        cut: captions that are longer than is kept.
    """

    lost: int = 0
    without_caption: int = 0
    cut: int = 0


class Pairs(ABC):
    """Pairs by number.

    Attributes:
        pictures: theirs.
        counts: what is not among them.
        files: path, bytes and time of change of the files behind them.
    """

    pictures: PictureSource
    counts: PairCounts
    files: Stamps

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def lengths(self, captions: tuple[int | None, ...], constants: tuple[int, ...]) -> np.ndarray | MappedLengths:
        """(variants, pairs) int32: in each variant a constant, and the tokens of the caption that it uses, if any."""

    @abstractmethod
    def caption_ids(self, pair: int, caption: int) -> list[int]:
        """Tokens of one of a pair's captions, or of the first that it has; none where it has no caption."""

    @abstractmethod
    def picture_keys(self) -> np.ndarray:
        """(pairs,) int64, ascending: the keys of their pictures in `pictures`."""

    @abstractmethod
    def picture_key(self, pair: int) -> int:
        """One of them."""
