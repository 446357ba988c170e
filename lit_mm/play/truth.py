"""What is truly seen where a model imagines, whatever simulator knows it."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from data_modules.prompting.steering import Move

GRID = 8  # pictures without tiles are compared in so many rows and columns
FAR = 24  # mean difference of a tile's values, of 255, from which on it differs


class Truth(Protocol):
    """A simulator that walks beside the model; one for each session. Pictures are (height, width, 3) uint8 RGB.

    Attributes:
        name: of the simulator, for people.
        rows: of the tiles by which pictures are compared.
        columns: likewise.
    """

    name: str
    rows: int
    columns: int

    def begin(self, number: int, frames: int) -> list[np.ndarray]:
        """Go to the n-th place that it has, and show the last so many frames there, oldest first."""

    def step(self, move: Move | None, words: str) -> tuple[np.ndarray, bool]:
        """Take a step, and show what is seen then.

        Args:
            move: dx, dy and dyaw of a step as keys say them, or None where words do.
            words: the sentence in place of keys.

        Returns:
            The picture, and whether it was understood what to do; if not, time has gone on without a move.
        """

    def back(self) -> bool:
        """Undo the last step; False where that is too long ago."""

    def differ(self, imagined: np.ndarray, true: np.ndarray) -> list[int]:
        """Numbers of the tiles, row by row, that are not the same in two pictures."""

    def close(self) -> None:
        """Nobody walks here any more."""


def blocks_that_differ(imagined: np.ndarray, true: np.ndarray) -> list[int]:
    """Numbers of those of `GRID` x `GRID` blocks, row by row, whose values differ by more than `FAR` on average."""
    difference = np.abs(imagined.astype(np.int16) - true.astype(np.int16)).mean(2)
    blocks = [np.array_split(band, GRID, axis=1) for band in np.array_split(difference, GRID, axis=0)]
    return [n for n, block in enumerate(block for band in blocks for block in band) if block.mean() > FAR]
