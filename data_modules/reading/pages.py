"""Entries of JSON files, Parquet and the Hub as pages: texts and pictures, in any order, as JSON of one form."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_modules.dataset import BrokenFile
from data_modules.index.listing import Listing
from data_modules.reading.cached import generated, mapped
from data_modules.reading.columns import Column
from data_modules.reading.entries import JSON_SUFFIXES, read_entries
from data_modules.reading.files import HUB, Stamps, Tolerance, has_suffix, listed, settle_broken
from data_modules.reading.page_parts import Page
from data_modules.reading.records import load_hub
from data_modules.reading.stored_values import ParquetValues, StoredValues, TableValues
from lit_mm.mistake import Mistake, mistake_in

PARQUET = ".parquet"
SUFFIXES = (*JSON_SUFFIXES, PARQUET)
BATCH = 128  # rows that are read at once: pictures are large
Parse = Callable[[dict[str, Any]], Page]
FEATURES = {"page": datasets.Value("string"), "broken": datasets.Value("string")}


@dataclass(frozen=True)
class PageKind:
    """How a kind of pages is read.

    Args:
        from_files: yields pages of JSON files.
        from_table: makes pages of rows of a table.
        from_parquet: yields pages of Parquet files, of these columns.
        columns: those of a table that are read, as far as they are there.
        needed: those of which one has to be there.
    """

    from_files: Callable[[Stamps], Iterator[dict[str, Any]]]
    from_table: Callable[[pa.Table], dict[str, list]]
    from_parquet: Callable[[Stamps, Sequence[str]], Iterator[dict[str, Any]]]
    columns: tuple[str, ...]
    needed: tuple[str, ...]


@dataclass(frozen=True)
class Pages:
    """Pages of one source.

    Args:
        rows: a page each, in the column `page`, which is null where it is broken.
        stored: the table that they were made of, where its pictures may lie; None of JSON files.
        paths: of the files in order; a name on the Hub.
        starts: of each file the number of its first page.
        files: as they were when they were read.
        skipped: broken pages.
    """

    rows: datasets.Dataset
    stored: StoredValues | None
    paths: Sequence[str]
    starts: np.ndarray
    files: Stamps
    skipped: int

    def path(self, row: int) -> str:
        """Of the file that a page is in."""
        return self.paths[int(np.searchsorted(self.starts, row, side="right")) - 1]


def load_pages(path: str, split: str, key: str, tolerance: Tolerance, kind: PageKind, listing: Listing) -> Pages:
    """Read one split; the result is cached.

    Raises:
        BrokenFile: a page cannot be used, unless it may be left out.
        MissingFile, Mistake: files or columns are missing, or more is broken than may be left out.
    """
    if path.startswith(HUB):
        table = load_hub(path, split if split == "train" else "validation", key)
        return _of_table(table, [path], np.zeros(1, np.int64), (), key, tolerance, kind)
    stamps = listing.stamps(path, SUFFIXES, key)
    files = [Path(file) for file, _, _ in stamps]
    parquet = [has_suffix(file, (PARQUET,)) for file in files]
    if not any(parquet):
        return _of_files(stamps, key, tolerance, kind)
    if not all(parquet):
        raise Mistake(f"{key}: '{path}' holds JSON and Parquet files; name those of one format with a pattern")
    footers = listing.look(("footers", path), lambda: [_footer(file) for file in files])
    there = [name for name in kind.columns if all(name in names for names, _ in footers)]
    _check_columns(there or sorted(footers[0][0]), files[0], key, kind)
    try:
        rows = generated(kind.from_parquet, stamps, {"columns": tuple(there)}, datasets.Features(FEATURES))
    except datasets.exceptions.DatasetGenerationError as error:
        raise mistake_in(error) or error from error
    starts = np.cumsum([0, *(count for _, count in footers[:-1])])
    stored = ParquetValues(stamps, starts)
    return _settled(Pages(rows, stored, [path for path, _, _ in stamps], starts, stamps, 0), key, tolerance)


def _footer(file: Path) -> tuple[set[str], int]:
    """Names of the columns of a Parquet file, and its rows."""
    try:
        footer = pq.read_metadata(file)
        return set(footer.schema.to_arrow_schema().names), footer.num_rows
    except (pa.ArrowException, OSError) as error:
        raise BrokenFile(file, error) from error


def _check_columns(there: Sequence[str], where: object, key: str, kind: PageKind) -> None:
    if not set(there) & set(kind.needed):
        raise Mistake(
            f"{key}: '{where}' has none of the columns {listed(kind.needed)}; there are {listed(there, 'and')}"
        )


def _of_files(stamps: Stamps, key: str, tolerance: Tolerance, kind: PageKind) -> Pages:
    features = datasets.Features({**FEATURES, "file": datasets.Value("int32")})
    rows = generated(kind.from_files, stamps, {}, features)
    numbers = Column(rows, "file").all()
    starts = np.searchsorted(numbers, np.arange(len(stamps)))
    pages = Pages(rows, None, [path for path, _, _ in stamps], starts, stamps, 0)
    return _settled(pages, key, tolerance)


def _of_table(
    table: datasets.Dataset,
    paths: Sequence[str],
    starts: np.ndarray,
    stamps: Stamps,
    key: str,
    tolerance: Tolerance,
    kind: PageKind,
) -> Pages:
    _check_columns(table.column_names, paths[0], key, kind)
    raw = table.select_columns([name for name in kind.columns if name in table.column_names]).with_format("arrow")
    rows = mapped(raw, kind.from_table, {}, datasets.Features(FEATURES), f"{key}: reading").with_format(None)
    return _settled(Pages(rows, TableValues(raw), paths, starts, stamps, 0), key, tolerance)


def _settled(pages: Pages, key: str, tolerance: Tolerance) -> Pages:
    broken = np.flatnonzero(~Column(pages.rows, "broken").missing())
    first = None
    if len(broken):
        row, path = int(broken[0]), pages.path(int(broken[0]))
        reason = str(pages.rows[row]["broken"])
        inside = row - int(pages.starts[pages.paths.index(path)])
        first = BrokenFile(path, reason if pages.stored is None else f"row {inside} {reason}")
    skipped = settle_broken(first, len(broken), len(pages.rows), key, tolerance)
    return Pages(pages.rows, pages.stored, pages.paths, pages.starts, pages.files, skipped)


def page_entries(items: Stamps, parse: Parse) -> Iterator[dict[str, Any]]:
    """Pages of JSON files with the number of their file, or why one is broken."""
    for number, (path, _, _) in enumerate(items):
        for place, entry, broken in read_entries(Path(path)):
            page, reason = (None, broken) if entry is None else _parsed(entry, parse)
            yield {"page": page, "broken": f"{place} {reason}" if reason else None, "file": number}


def page_groups(
    items: Stamps, columns: Sequence[str], from_table: Callable[[pa.Table], dict[str, list]]
) -> Iterator[dict[str, Any]]:
    """Pages of Parquet files, or why one is broken; pictures stay where they are.

    Raises:
        BrokenFile: a file is damaged.
    """
    for path, _, _ in items:
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(BATCH, columns=list(columns), use_threads=False):
                    made = from_table(pa.Table.from_batches([batch]))
                    for page, broken in zip(made["page"], made["broken"], strict=True):
                        yield {"page": page, "broken": broken}
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise BrokenFile(path, " ".join(str(error).split())) from error


def page_rows(entries: Sequence[dict[str, Any]], parse: Parse) -> dict[str, list]:
    """Pages of rows of a table, or why one is broken."""
    made = [_parsed(entry, parse) for entry in entries]
    return {"page": [page for page, _ in made], "broken": [reason or None for _, reason in made]}


def _parsed(entry: dict[str, Any], parse: Parse) -> tuple[str | None, str]:
    try:
        return json.dumps(parse(entry), ensure_ascii=False), ""
    except ValueError as error:
        return None, str(error)


def outlines(table: pa.Table, pictures: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of a table as Python has them, with the places of pictures in place of their bytes."""
    columns = {
        name: _outline(table.column(name), name) if name in pictures else table.column(name).to_pylist()
        for name in table.column_names
    }
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _outline(column: pa.ChunkedArray, name: str) -> list[Any]:
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return [
            [_place(one, name, number) for number, one in enumerate(value)] if value.is_valid else None
            for value in column
        ]
    return [_place(value, name, 0) for value in column]


def _place(value: pa.Scalar, name: str, number: int) -> Any:
    """Of one picture: a path, its column and number, or None."""
    if not value.is_valid:
        return None
    if pa.types.is_struct(value.type):
        if "bytes" in (names := [field.name for field in value.type]) and value["bytes"].is_valid:
            return {"column": name, "number": number}
        return value["path"].as_py() if "path" in names else None
    if pa.types.is_binary(value.type) or pa.types.is_large_binary(value.type):
        return {"column": name, "number": number}
    return value.as_py()
