"""Lengths of documents that cost no memory: one memory-mapped number each, a constant apart in every variant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


class MappedLengths:
    """(variants, documents) int32, as an array of that shape would be indexed by variants and documents.

    Args:
        file: (documents,) or (rows, documents) uint16 as a .npy file, the part of a document that variants may use.
        uses: (variants,) whether each has that part.
        constants: (variants,) positions besides.
        longest: largest number in the file.
        rows: (variants,) which row of the file each variant uses, where it holds several; the first by default.

    Attributes:
        shape: (variants, documents).
    """

    dtype = np.dtype(np.int32)
    ndim = 2

    def __init__(
        self,
        file: Path,
        uses: Sequence[bool],
        constants: Sequence[int],
        longest: int,
        rows: Sequence[int] | None = None,
    ) -> None:
        self.file = file
        self.uses, self.constants = np.asarray(uses, np.int32), np.asarray(constants, np.int32)
        self.longest = max(c + longest * u for c, u in zip(self.constants.tolist(), self.uses.tolist(), strict=True))
        self.rows = np.zeros(len(self.uses), np.int64) if rows is None else np.asarray(rows)
        self._parts = _mapped(file)
        self.shape = (len(self.uses), self._parts.shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getstate__(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "_parts": None,
        }  # a process maps the file itself; its pages are shared by all of a node

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._parts = _mapped(self.file)

    def __getitem__(self, place: Any) -> np.ndarray:
        variants, documents = place if isinstance(place, tuple) else (place, slice(None))
        uses, constants, rows = self.uses[variants], self.constants[variants], self.rows[variants]
        if isinstance(variants, slice):
            parts = np.asarray(self._parts[:, documents], np.int32)
            return parts[rows] * uses[:, None] + constants[:, None]
        return np.asarray(self._parts[rows, documents], np.int32) * uses + constants


def _mapped(file: Path) -> np.ndarray:
    parts: np.ndarray = np.load(file, mmap_mode="r").view(np.ndarray)  # see `stored_array`
    return parts if parts.ndim == 2 else parts[None]
