"""Rows of files of text, one by one: JSON Lines and lists, CSV, and plain texts. A broken row says why."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from data_modules.reading.entries import CUT, is_text, opened, read_entries
from data_modules.reading.files import has_suffix, listed

CSV, TSV, TEXT = ".csv", ".tsv", (".txt", ".txt.gz")
DELIMITERS = (",", ";", "\t")  # as spreadsheets write them
_PEEKED = 100  # rows whose columns are named in an error

Row = tuple[list[str | None], str | None]  # strings of the columns, and why there are none


@dataclass(frozen=True)
class Wanted:
    """Columns of strings.

    Args:
        columns: their names.
        optional: those that need not have a value in every row.
    """

    columns: tuple[str, ...]
    optional: tuple[str, ...] = ()

    def nothing(self, why: str) -> Row:
        """A broken row. Names of columns may hold bytes that are no text, which are written by their numbers."""
        return [None] * len(self.columns), why.encode(errors="backslashreplace").decode()


def read_rows(file: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> Iterator[Row]:
    """Every row of a file: strings of `columns`, or why it has none. A file that cannot be read on ends with why."""
    wanted = Wanted(tuple(columns), tuple(optional))
    if has_suffix(file, (CSV, TSV)):
        yield from _read_csv(file, wanted)
    elif has_suffix(file, TEXT):
        yield _read_text(file, wanted)
    else:
        for place, entry, why in read_entries(file):
            yield wanted.nothing(f"{place} {why}") if entry is None else _strings(place, entry, wanted)


def columns_of(file: Path) -> list[str]:
    """Names of the columns of a file, as its first rows have them."""
    if has_suffix(file, (CSV, TSV)):
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
            first = lines.readline()
        return [name.strip() for name in next(csv.reader([first], delimiter=delimiter_of(first)), [])]
    entries = (entry for _, entry, _ in islice(read_entries(file), _PEEKED) if entry is not None)
    return list(dict.fromkeys(name for entry in entries for name in entry))


def _strings(place: str, entry: dict[str, Any], wanted: Wanted) -> Row:
    for column in wanted.columns:
        if column in wanted.optional and entry.get(column) is None:
            continue
        if column not in entry:
            there = f"there are {listed(list(entry), 'and')}" if entry else "it is empty"
            return wanted.nothing(f"{place} has no column '{column}'; {there}")
        if not isinstance(entry[column], str):
            return wanted.nothing(f"{place} has no string in '{column}'")
    return [entry.get(column) for column in wanted.columns], None


def _read_text(file: Path, wanted: Wanted) -> Row:
    try:
        with opened(file) as stream:
            text = stream.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return wanted.nothing(f"it is not UTF-8 ({error.reason} at byte {error.start})")
    except CUT as error:
        return wanted.nothing(f"it cannot be read: {error}")
    return [text] * len(wanted.columns), None


def _read_csv(file: Path, wanted: Wanted) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)  # 128 KiB by default
    number = 0
    try:
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
            header, delimiter = _header(lines.readline(), wanted)
            lines.seek(0)
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            next(reader, None)
            number = 1
            for cells in reader:
                number = reader.line_num
                if any(cells):
                    yield _cells(f"line {number}", cells, header, wanted)
    except csv.Error as error:
        yield wanted.nothing(f"after line {number} it cannot be read: {error}")
    except OSError as error:
        yield wanted.nothing(f"after line {number} it cannot be read: {error.strerror}")


def delimiter_of(header: str) -> str:
    """What is between the names of the columns: of what may be, that which there is most of."""
    return max(DELIMITERS, key=header.count)


def _header(line: str, wanted: Wanted) -> tuple[list[str], str]:
    """Names of the columns, and what is between them: what gives all columns, or else those that are needed."""
    headers = {d: [name.strip() for name in next(csv.reader([line], delimiter=d), [])] for d in DELIMITERS}
    for needed in (set(wanted.columns), set(wanted.columns) - set(wanted.optional)):
        if found := next(((names, d) for d, names in headers.items() if needed <= set(names)), None):
            return found
    return headers[","], ","


def _cells(place: str, cells: list[str], header: list[str], wanted: Wanted) -> Row:
    if len(cells) != len(header):
        return wanted.nothing(f"{place} has {len(cells)} cells, but the header names {len(header)} columns")
    found: list[str | None] = []
    for column in wanted.columns:
        if header.count(column) > 1:
            return wanted.nothing(f"line 1 names {header.count(column)} columns '{column}'; give each its own name")
        if column not in header:
            if column in wanted.optional:
                found.append(None)
                continue
            return wanted.nothing(f"{place} has no column '{column}'; there are {listed(header, 'and')}")
        cell = cells[header.index(column)]
        if not is_text(cell):
            return wanted.nothing(f"{place} is not UTF-8 in '{column}'")
        if not cell and column not in wanted.optional:
            return wanted.nothing(f"{place} has no string in '{column}'")
        found.append(cell)
    return found, None
