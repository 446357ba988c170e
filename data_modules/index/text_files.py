"""Files of texts that are read where they are: their kinds, and the parts that are indexed on their own."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any, cast

import pyarrow as pa

from data_modules.index.storage import FilePart, InputFile, is_remote, opened, parts_of

PART = 128 << 20  # bytes of a file that are indexed on their own
PARQUET = ".parquet"
COMPRESSED = (".gz", ".zst")  # such a file is one part, as it can be read from its start alone
LINES = tuple(f"{kind}{packed}" for kind in (".jsonl", ".ndjson", ".json") for packed in ("", *COMPRESSED))
INDEXED = (*LINES, PARQUET)  # endings of files whose texts are read where they are
UNREADABLE = (OSError, EOFError, zlib.error, pa.ArrowException)  # what a damaged file ends with
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LISTS = (".json", *(f".json{packed}" for packed in COMPRESSED))  # what tools call files that are one array
_PEEKED = 1 << 12  # bytes that a JSON array has begun within
_AHEAD = 16 << 10  # bytes of zstd that are unpacked at once; so many before the place where a file is cut are lost


@dataclass(frozen=True)
class Lost:
    """Why texts cannot be read.

    Args:
        where: what is counted: `line`, from 1 on, or `row`, from 0 on; empty for a file that cannot be read at all.
        row: number within the part.
        reason: what comes after the number.
        rows: how many are lost.
        unread: bytes of the file that hold rows nobody knows the number of.
    """

    where: str
    row: int
    reason: str
    rows: int = 1
    unread: int = 0


def text_parts(file: InputFile) -> list[FilePart]:
    """The parts of a file that are indexed on their own."""
    return parts_of(file, max(1, file.size) if file.path.lower().endswith(COMPRESSED) else PART)


def is_parquet(file: InputFile) -> bool:
    """Whether a file is Parquet, by its name."""
    return file.path.lower().endswith(PARQUET)


def unpacked(stream: IO[bytes], file: InputFile) -> IO[bytes]:
    """The bytes of a file as they were before it was compressed.

    Args:
        stream: the file's own bytes.
        file: whose name says how they are compressed.
    """
    name = file.path.lower()
    if name.endswith(".gz"):  # Arrow's refuses zeros behind the end, as tapes and block devices leave them
        return cast(IO[bytes], gzip.GzipFile(fileobj=stream))
    if name.endswith(COMPRESSED):
        return io.BufferedReader(cast(Any, pa.CompressedInputStream(pa.PythonFile(stream, "r"), "zstd")), _AHEAD)
    return stream


def hold_an_array(files: Sequence[InputFile]) -> bool:
    """Whether one of several files is one JSON array, and not lines of JSON.

    The first is looked into, and those on local disks whose names say that they may be.
    """
    local = [file for file in files[1:] if file.path.lower().endswith(_LISTS) and not is_remote(file.path)]
    return any(_holds_an_array(file) for file in (*files[:1], *local))


def _holds_an_array(file: InputFile) -> bool:
    if is_parquet(file):
        return False
    try:
        with opened(file) as stream, unpacked(stream, file) as content:
            return content.read(_PEEKED).removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"[")
    except UNREADABLE:  # whoever reads all of it says what is wrong
        return False
