"""Values of tables that pages were made of: where their pictures may lie."""

from __future__ import annotations

from typing import Protocol

import datasets
import numpy as np
import pyarrow as pa

from data_modules.index.parquet_files import RowGroups
from data_modules.index.ranges import RangeReader
from data_modules.index.storage import InputFile
from data_modules.reading.files import Stamps
from data_modules.reading.picture_identity import Identifier


class StoredValues(Protocol):
    """Gives single values of a table."""

    def value(self, row: int, column: str) -> pa.Scalar:
        """What a column holds in a row.

        Raises:
            BrokenFile: it cannot be read.
        """

    def numbers(self, identifier: Identifier) -> list[int]:
        """Of every file that values are in, in order."""


class TableValues:
    """Values of a table of `datasets`.

    Args:
        rows: the table.
    """

    def __init__(self, rows: datasets.Dataset) -> None:
        self.rows = rows.with_format("arrow")

    def value(self, row: int, column: str) -> pa.Scalar:
        """See `StoredValues`."""
        return self.rows[row][column][0]

    def numbers(self, identifier: Identifier) -> list[int]:
        """See `StoredValues`."""
        return [identifier.text("table", self.rows._fingerprint)]


class ParquetValues:
    """Values of Parquet files, read where they lie by groups of rows.

    Args:
        files: as they were when they were looked up.
        starts: (files,) int64, of each the number of its first row.
    """

    def __init__(self, files: Stamps, starts: np.ndarray) -> None:
        self.files = [InputFile(path, size, str(changed)) for path, size, changed in files]
        self.starts, self.groups = starts, RowGroups(RangeReader())

    def value(self, row: int, column: str) -> pa.Scalar:
        """See `StoredValues`."""
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.groups.value(self.files[number], row - int(self.starts[number]), column)

    def numbers(self, identifier: Identifier) -> list[int]:
        """See `StoredValues`."""
        return [identifier.file(file.path, file.size, file.changed) for file in self.files]
