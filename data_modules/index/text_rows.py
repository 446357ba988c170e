"""Texts of a part of a file: lines of JSON, compressed or not, or rows of Parquet."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from data_modules.index.storage import FilePart, InputFile, opened
from data_modules.index.text_files import COMPRESSED, Lost, is_parquet
from data_modules.reading.files import listed
from data_modules.reading.json_lines import strings_of
from lit_mm.mistake import Mistake

_PEEKED = 100  # lines of the first file that are looked at before all of it is read
_AHEAD = 16 << 10  # bytes of zstd that are unpacked at once; so many before the place where a file is cut are lost
_BATCH = 1024  # rows of Parquet that are read at once


def rows_of(part: FilePart, column: str) -> Iterator[str | Lost | None]:
    """Every row of a part of a file: its text, why it has none, or None for a blank line.

    Args:
        part: lines, or groups of rows, that begin in these bytes belong to it.
        column: that holds the texts.

    Raises:
        OSError: the file can't be opened.
        BrokenFile: the storage does not give it.
    """
    return _rows_of_parquet(part, column) if is_parquet(part) else _lines_of(part, column)


def check_first(file: InputFile, column: str, key: str) -> None:
    """Look into a source's first file before all are read, as most mistakes can be seen there.

    Args:
        file: the first.
        column: that should hold the texts.
        key: the YAML key, for the message.

    Raises:
        Mistake: there is no such column, or it holds no strings.
    """
    try:
        with opened(file) as stream:
            if is_parquet(file):
                _check_schema(pq.ParquetFile(stream).schema_arrow, file, column, key)
                return
            with _unpacked(stream, file) as lines:
                some = [line for line in islice(lines, _PEEKED) if line.strip()]
    except (OSError, EOFError, zlib.error, pa.ArrowException):  # whoever reads all of it says what is wrong
        return
    losses = [_text_of(line, column) for line in some]
    missing = f"has no column '{column}'"
    if losses and all(isinstance(loss, Lost) and loss.reason.startswith(missing) for loss in losses):
        raise Mistake(f"{key}: '{file.path}' {cast(Lost, losses[0]).reason}")


def _check_schema(schema: pa.Schema, file: InputFile, column: str, key: str) -> None:
    reason = _why_not(schema, column)
    if reason is not None:
        raise Mistake(f"{key}: '{file.path}' {reason}")


def _why_not(schema: pa.Schema, column: str) -> str | None:
    """Why a table has no texts."""
    if column not in schema.names:
        return f"has no column '{column}'; there are {listed(schema.names, 'and')}"
    if (count := schema.names.count(column)) > 1:
        return f"has {count} columns '{column}'; give each its own name"
    kind = schema.field(column).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        return f"has a column '{column}' of {kind}, but a string in every row is expected"
    return None


def _unpacked(stream: IO[bytes], file: InputFile) -> IO[bytes]:
    name = file.path.lower()
    if name.endswith(".gz"):  # Arrow's refuses zeros behind the end, as tapes and block devices leave them
        return cast(IO[bytes], gzip.GzipFile(fileobj=stream))
    if name.endswith(COMPRESSED):
        return io.BufferedReader(cast(Any, pa.CompressedInputStream(pa.PythonFile(stream, "r"), "zstd")), _AHEAD)
    return stream


def _text_of(line: bytes, column: str) -> str | Lost:
    try:
        (text,) = strings_of(line, (column,))
        text = cast(str, text)
        text.encode()  # half of a pair of surrogates can be written in JSON, but is no text
    except UnicodeEncodeError:
        return Lost("line", 0, f"has half of a character in '{column}'")
    except ValueError as error:
        return Lost("line", 0, str(error))
    return text


def _lines_of(part: FilePart, column: str) -> Iterator[str | Lost | None]:
    number = 0
    with opened(part) as stream:
        if part.first:  # a line that begins before belongs to the part before
            stream.seek(part.first - 1)
            stream.readline()
        packed = part.path.lower().endswith(COMPRESSED)
        try:
            with _unpacked(stream, part) as lines:
                while packed or lines.tell() < part.stop:
                    line = lines.readline()
                    if not line:
                        return
                    number += 1
                    line = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                    found = _text_of(line, column) if line.strip() else None
                    yield Lost("line", number, found.reason) if isinstance(found, Lost) else found
        except (OSError, EOFError, zlib.error) as error:
            if not packed:
                raise
            yield Lost("after line", number, f"it cannot be read: {error}")


def _rows_of_parquet(part: FilePart, column: str) -> Iterator[str | Lost | None]:
    number = 0
    with opened(part) as stream:
        try:
            table = pq.ParquetFile(stream)
        except (pa.ArrowException, OSError) as error:
            yield Lost("", 0, str(error), unread=part.stop - part.first)
            return
        groups = row_groups_of(table.metadata, part)
        reason = _why_not(table.schema_arrow, column)
        if reason is not None:
            rows = sum(table.metadata.row_group(group).num_rows for group in groups)
            yield Lost("", 0, reason, rows)
            return
        for group in groups:
            count, read = table.metadata.row_group(group).num_rows, 0
            try:
                for batch in table.iter_batches(_BATCH, [group], [column], use_threads=False):
                    for text in _strings(batch.column(0)):
                        found = Lost("row", 0, f"has nothing in column '{column}'") if text is None else text
                        yield Lost("row", number, found.reason) if isinstance(found, Lost) else found
                        number, read = number + 1, read + 1
            except (pa.ArrowException, OSError) as error:
                yield Lost("row", number, f"cannot be read: {error}", count - read)
                number += count - read


def row_groups_of(metadata: Any, part: FilePart) -> list[int]:
    """Numbers of the groups of rows that begin in a part of a Parquet file."""
    starts = []
    for number in range(metadata.num_row_groups):
        column = metadata.row_group(number).column(0)
        starts.append(column.dictionary_page_offset or column.data_page_offset)
    return [number for number, start in enumerate(starts) if part.first <= start < part.stop]


def _strings(column: pa.Array) -> Iterator[str | Lost | None]:
    try:
        yield from column.to_pylist()
        return
    except UnicodeDecodeError:
        pass
    for value in column:
        try:
            yield value.as_py()
        except UnicodeDecodeError as error:
            yield Lost("row", 0, f"is not UTF-8 ({error.reason} at byte {error.start})")
