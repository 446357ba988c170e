"""Columns of memory-mapped tables."""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
import pyarrow as pa


class Column:
    """One column of a table.

    Asking a table for a column makes an array of all its pieces, which takes longer the larger the table is; this keeps
    the array, so looking up a row takes the same time in tables of any size.

    Args:
        rows: the table.
        name: of the column.
    """

    def __init__(self, rows: datasets.Dataset, name: str) -> None:
        self.rows, self.name = rows, name
        self.array: pa.ChunkedArray = rows.data.column(name)

    def __getstate__(self) -> dict[str, Any]:
        return {"rows": self.rows, "name": self.name}  # a worker maps the file into its memory; arrays would be copied

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __getitem__(self, row: int) -> Any:
        """The value of a row as Python has it."""
        return self.array[row].as_py()

    def numbers(self, row: int) -> np.ndarray:
        """The list of numbers of a row, not copied."""
        return self.array[row].values.to_numpy()

    def all(self) -> np.ndarray:
        """(rows,) values."""
        return self.array.to_numpy()

    def missing(self) -> np.ndarray:
        """(rows,) bool, which rows have no value."""
        return self.array.is_null().to_numpy()

    def lengths(self) -> np.ndarray:
        """(rows,) int32, how long the list of each row is."""
        return _joined([chunk.value_lengths() for chunk in self.array.chunks])

    def flat(self) -> np.ndarray:
        """The numbers or texts of the lists of all rows, one list after the other."""
        return _joined([chunk.flatten() for chunk in self.array.chunks])

    def inner_lengths(self) -> np.ndarray:
        """Of rows that are lists of lists: how long each inner list is, one row after the other; int32."""
        return _joined([chunk.flatten().value_lengths() for chunk in self.array.chunks])


def _joined(parts: list[pa.Array]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int32), *(part.to_numpy(zero_copy_only=False) for part in parts)])
