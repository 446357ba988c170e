"""Where single values of a Parquet file lie, if they are stored as they are.

Pictures are written so by Hugging Face `datasets`: plainly encoded, one after the other behind their lengths, and not
compressed again. Such a value is read without the others of its group of rows.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from data_modules.dataset import BrokenFile

Read = Callable[[int, int], bytes]  # bytes of a file: from where on, and how many
MOST_HEADER = 1 << 15  # bytes of a page's header, which may quote values
# What Parquet's PageHeader says, by the numbers of its fields there.
_KIND, _SIZE, _INFO, _INFO_2 = 1, 3, 5, 8
_DATA_PAGE, _DATA_PAGE_2 = 0, 3  # kinds
_PLAIN, _RLE = 0, 3  # encodings


def places_of_values(table: pq.ParquetFile, group: int, path: str, rows: int, read: Read) -> np.ndarray | None:
    """Of each row of a group where its value begins in the file, and how many bytes it takes.

    Args:
        table: the file.
        group: of rows.
        path: of the column, in the schema of Parquet.
        rows: of the group.
        read: reads the file; of the pages their headers are read, and of each value its length.

    Returns:
        (rows, 2) int64; None if there is no such column, a row has no value, or they are stored in any other way.
    """
    metadata = table.metadata.row_group(group)
    paths = [metadata.column(number).path_in_schema for number in range(metadata.num_columns)]
    if path not in paths:
        return None
    chunk, column = metadata.column(paths.index(path)), table.schema.column(paths.index(path))
    plain = chunk.physical_type == "BYTE_ARRAY" and chunk.compression == "UNCOMPRESSED"
    counted = chunk.statistics is not None and chunk.statistics.has_null_count
    if not plain or chunk.has_dictionary_page or column.max_repetition_level or not counted:
        return None
    if chunk.statistics.null_count:
        return None
    try:
        places = list(_places(chunk, column.max_definition_level > 0, read))
    except (LookupError, ValueError, RecursionError, struct.error, BrokenFile):  # damaged, or of another kind
        return None
    return np.array(places, np.int64).reshape(-1, 2) if len(places) == rows else None


def _places(chunk: pq.ColumnChunkMetaData, with_levels: bool, read: Read) -> Iterator[tuple[int, int]]:
    at, end = chunk.data_page_offset, chunk.data_page_offset + chunk.total_compressed_size
    while at < end:
        header = _Structs(read(at, min(MOST_HEADER, end - at)))
        page = header.next()
        begin = at + header.at
        at = begin + page[_SIZE]
        if at > end:
            raise ValueError("a page is longer than its column")
        count, begin = _values_of(page, begin, with_levels, read)
        for _ in range(count):
            if begin + 4 > at:
                raise ValueError("values are longer than their page")
            size = _length(read, begin)
            yield begin + 4, size
            begin += 4 + size
        if begin != at:
            raise ValueError("a page holds more than its values")


def _values_of(page: dict[int, Any], begin: int, with_levels: bool, read: Read) -> tuple[int, int]:
    """How many values a page has, and where the first begins: levels, which say what is null, come before it."""
    if page[_KIND] == _DATA_PAGE_2:
        info = page[_INFO_2]
        count, encoding = info[1], info[4]
        begin += info[5] + info[6]
    elif page[_KIND] == _DATA_PAGE:
        info = page[_INFO]
        count, encoding = info[1], info[2]
        if with_levels and info[3] != _RLE:
            raise ValueError("levels without their length")
        begin += 4 + _length(read, begin) if with_levels else 0
    else:
        raise ValueError("a page of something else than data")
    if encoding != _PLAIN:
        raise ValueError("values that are encoded")
    return count, begin


def _length(read: Read, at: int) -> int:
    (length,) = struct.unpack("<I", read(at, 4))
    return int(length)


class _Structs:
    """Structs as Thrift's compact protocol writes them.

    Args:
        content: bytes that begin with one.

    Attributes:
        at: the byte that is read next.
    """

    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0

    def next(self) -> dict[int, Any]:
        """The next struct: values by the numbers of their fields.

        Raises:
            LookupError, ValueError, RecursionError: it is none that a page's header may be.
        """
        found: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            found[number] = self._value(head & 15)
        return found

    def _value(self, kind: int) -> Any:
        if kind in (1, 2):  # true or false
            return kind == 1
        if kind in (4, 5, 6):  # of 16, 32 or 64 bits
            return self._integer()
        if kind == 8:  # bytes, which no one asks for
            length = self._unsigned()
            self.at += length
            return length
        if kind == 12:
            return self.next()
        raise ValueError(f"a field of kind {kind}")

    def _byte(self) -> int:
        self.at += 1
        return self.content[self.at - 1]

    def _unsigned(self) -> int:
        found = shift = 0
        while (byte := self._byte()) & 128:
            found |= (byte & 127) << shift
            shift += 7
        return found | byte << shift

    def _integer(self) -> int:
        found = self._unsigned()
        return found >> 1 ^ -(found & 1)
