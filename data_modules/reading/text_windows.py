"""Windows of tokenized texts, as a source of texts reads them from any kind of file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from data_modules.reading.files import Stamps
from data_modules.reading.lengths import MappedLengths

if TYPE_CHECKING:
    import datasets


class TextWindows(ABC):
    """Windows by number.

    Attributes:
        lengths: (1, windows) int32, tokens of each.
        bytes_per_token: UTF-8 bytes of the texts over their tokens, delimiters not counted.
        files: path, bytes and time of change of the files behind them.
    """

    lengths: np.ndarray | MappedLengths
    bytes_per_token: float
    files: Stamps = ()

    @abstractmethod
    def ids(self, window: int) -> np.ndarray:
        """(tokens,) of a window."""


class TableWindows(TextWindows):
    """Windows in a table.

    Args:
        windows: with the columns `ids` and `bytes`, the text's in its first window, and else 0.
        files: behind them.
    """

    def __init__(self, windows: datasets.Dataset, files: Stamps = ()) -> None:
        from data_modules.reading.columns import Column

        self._ids, self._sizes = Column(windows, "ids"), Column(windows, "bytes")
        self.lengths = self._ids.lengths()[None]
        self.files = files

    def ids(self, window: int) -> np.ndarray:
        """Tokens of a window."""
        return self._ids.numbers(window)

    @cached_property
    def bytes_per_token(self) -> float:  # type: ignore[override]
        """See `TextWindows`."""
        sizes = self._sizes.all()
        texts = int((sizes > 0).sum())
        return float(sizes.sum() / (self.lengths.sum(dtype=np.int64) - 2 * texts))  # type: ignore[union-attr]
