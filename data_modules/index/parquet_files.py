"""Parquet files that are read where they are, column by column and group of rows by group of rows."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_modules.dataset import BrokenFile
from data_modules.index.byte_view import ByteView
from data_modules.index.ranges import RangeReader
from data_modules.index.storage import InputFile
from data_modules.reading.parquet_columns import BYTES, PICTURE, form_of

MAX_OPEN = 64  # files whose footers a process keeps
KEPT = 256 << 20  # bytes of groups of rows that a process keeps, those read last; one group is kept at any size


class DamagedParquet(BrokenFile):
    """A file whose bytes are read, but are no whole Parquet."""


class _Ranges(ByteView):
    """A file whose every read is one range: what asks for it may have asked for it ahead."""

    def __init__(self, file: InputFile, ranges: RangeReader) -> None:
        super().__init__(file.size)
        self._file, self._ranges = file, ranges

    def _read(self, count: int) -> bytes:
        return self._ranges.read(self._file, self._at, count)


def open_parquet(file: InputFile, ranges: RangeReader) -> pq.ParquetFile:
    """A file whose footer is read.

    Raises:
        BrokenFile: it is not there, or has changed since it was found; a DamagedParquet, if it is damaged.
    """
    try:
        return pq.ParquetFile(pa.PythonFile(_Ranges(file, ranges), "r"))
    except (pa.ArrowException, OSError) as error:
        raise DamagedParquet(file.path, _reason(error)) from error


def read_group(table: pq.ParquetFile, group: int, columns: list[str], path: str) -> pa.Table:
    """Columns of a group of rows.

    Raises:
        DamagedParquet: they can't be understood.
        BrokenFile: they can't be read.
    """
    try:
        return table.read_row_group(group, columns=columns, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise DamagedParquet(path, f"group of rows {group}: {_reason(error)}") from error


def has_bytes(table: pq.ParquetFile, column: str) -> bool:
    """Whether a column holds pictures, and not their paths alone."""
    kind, form = table.schema_arrow.field(column).type, form_of(table.schema_arrow, column)
    if form != PICTURE:
        return form == BYTES
    if kind.get_field_index("bytes") < 0 or pa.types.is_null(kind.field("bytes").type):
        return False
    for group in map(table.metadata.row_group, range(table.num_row_groups)):
        chunk = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == f"{column}.bytes")
        nulls = chunk.statistics.null_count if chunk.statistics and chunk.statistics.has_null_count else 0
        if nulls < group.num_rows:
            return True
    return False


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())


class RowGroups:
    """A column of any group of rows of many files. Those that were read last are kept; a process has its own.

    Args:
        ranges: reads the files.
    """

    def __init__(self, ranges: RangeReader) -> None:
        self.ranges = ranges
        self._files: OrderedDict[str, tuple[pq.ParquetFile, np.ndarray]] = OrderedDict()  # and where groups begin
        self._kept: OrderedDict[tuple[str, int, str], pa.ChunkedArray] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"ranges": self.ranges}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def file(self, file: InputFile) -> pq.ParquetFile:
        """See `open_parquet`."""
        return self._opened(file)[0]

    def _opened(self, file: InputFile) -> tuple[pq.ParquetFile, np.ndarray]:
        if file.path not in self._files:
            while len(self._files) >= MAX_OPEN:
                self._files.popitem(last=False)
            table = open_parquet(file, self.ranges)
            sizes = [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]
            self._files[file.path] = table, np.cumsum([0, *sizes])
        self._files.move_to_end(file.path)
        return self._files[file.path]

    def column(self, file: InputFile, group: int, name: str) -> pa.ChunkedArray:
        """The values of a group of rows.

        Raises:
            BrokenFile: they can't be read.
        """
        place = file.path, group, name
        if place not in self._kept:
            found = read_group(self.file(file), group, [name], file.path).column(name)
            while self._kept and found.nbytes + sum(one.nbytes for one in self._kept.values()) > KEPT:
                self._kept.popitem(last=False)
            self._kept[place] = found
        self._kept.move_to_end(place)
        return self._kept[place]

    def value(self, file: InputFile, row: int, name: str) -> pa.Scalar:
        """One value, by the number of its row in the file.

        Raises:
            BrokenFile: it can't be read.
        """
        begins = self._opened(file)[1]
        group = int(np.searchsorted(begins, row, side="right")) - 1
        return self.column(file, group, name)[row - int(begins[group])]

    def ahead(self, file: InputFile, group: int, name: str) -> None:
        """Have them on their way."""
        if (file.path, group, name) in self._kept:
            return
        try:
            metadata = self.file(file).metadata.row_group(group)
        except BrokenFile:  # whoever reads it says so
            return
        for number in range(metadata.num_columns):
            chunk = metadata.column(number)
            if chunk.path_in_schema == name or chunk.path_in_schema.startswith(f"{name}."):
                begin = chunk.dictionary_page_offset or chunk.data_page_offset
                self.ranges.ahead(file, begin, chunk.total_compressed_size)
