"""The order in which a source's documents are drawn: a pure function of the draw's number, also where it has grown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_modules.mixing.permutation import key_of, permute_in_windows


class Stretch(NamedTuple):
    """Draws from number `begin` on, of the first `size` documents."""

    begin: int
    size: int


class Order:
    """Every document once per pass, each pass in a new order.

    Where a source has grown, the pass that it was in goes on with the documents that it has not shown, the new ones
    among them.

    Args:
        stretches: how many documents there were from which draw on; the first begins at 0.
        window: documents that are shuffled among each other, see `permute_in_windows`; None shuffles all.
        key: parts of every key, such as the run's seed and the source's name.
    """

    def __init__(self, stretches: Sequence[Stretch], window: int | None, *key: object) -> None:
        self.stretches, self.window = list(stretches), window
        self.key = key

    def indices(self, numbers: np.ndarray) -> np.ndarray:
        """Documents (draws,) int64 of the draws of these `numbers`."""
        index = np.zeros(len(numbers), np.int64)
        stretch = np.searchsorted([s.begin for s in self.stretches], numbers, side="right") - 1
        for s in np.unique(stretch).tolist():
            here = np.flatnonzero(stretch == s)
            passes, positions = self._places(s, numbers[here])
            for p in np.unique(passes).tolist():
                of_pass = passes == p
                index[here[of_pass]] = self._shuffled(s, p, positions[of_pass])
        return index

    def _places(self, s: int, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pass that each draw of a stretch belongs to, and its position in there, (draws,) each."""
        begin, size = self.stretches[s]
        begun, shown = self._begins(s)
        counted = numbers - begin + shown  # from the start of the pass that the stretch begins in
        return begun + counted // size, counted % size

    def _begins(self, s: int) -> tuple[int, int]:
        """The pass that a stretch begins in, and how many documents it has shown by then."""
        if s == 0:
            return 0, 0
        passes, positions = self._places(s - 1, np.array([self.stretches[s].begin]))
        return int(passes[0]), int(positions[0])

    def _shuffled(self, s: int, number: int, positions: np.ndarray) -> np.ndarray:
        """Documents at some positions of a pass, as a stretch orders it."""
        size = self.stretches[s].size
        begun, shown = self._begins(s)
        if number > begun or not shown:
            return permute_in_windows(positions, size, key_of(*self.key, "order", number), self.window)
        before = self.stretches[s - 1].size
        left = permute_in_windows(positions - shown, size - shown, key_of(*self.key, "grown", s), self.window)
        old = left < before - shown
        index = before + left - (before - shown)
        index[old] = self._shuffled(s - 1, number, shown + left[old])
        return index
