"""Tables of documents: rows of JSON, CSV and text files, and of the Hugging Face Hub.

Everything ends in a memory-mapped Arrow file in the `datasets` cache, so a source costs disk, not memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import datasets
import numpy as np

from data_modules.dataset import BrokenFile
from data_modules.reading.cached import generated, progress, usable_cache
from data_modules.reading.columns import Column
from data_modules.reading.entries import JSON_SUFFIXES
from data_modules.reading.files import HUB, Stamps, Tolerance, has_suffix, listed, settle_broken
from data_modules.reading.row_files import CSV, TEXT, columns_of, read_rows
from data_modules.reading.table_files import common_folder
from lit_mm.mistake import Mistake

KINDS = {"JSON": JSON_SUFFIXES, "CSV": (CSV,), "text": TEXT}


def load_hub(name: str, split: str, key: str) -> datasets.Dataset:
    """A data set of the Hugging Face Hub: `hf://owner/name`, with `/config` and `:split` where they are needed.

    Args:
        name: such as `hf://roneneldan/TinyStories` or `hf://HuggingFaceFW/fineweb-edu/sample-10BT:train[:95%]`.
        split: the split if the name has none.
        key: the YAML key, for the error message.

    Raises:
        Mistake: it cannot be loaded; the reason is said.
    """
    path, _, wanted = name.removeprefix(HUB).removeprefix("datasets/").partition(":")
    parts = path.split("/")
    if len(parts) not in (2, 3):
        raise Mistake(f"{key}: '{name}' is not a Hub name; write hf://owner/name, hf://owner/name/config:split")
    config = parts[2] if len(parts) == 3 else None
    usable_cache()
    try:
        with progress(True):
            return datasets.load_dataset("/".join(parts[:2]), config, split=wanted or split)
    except Exception as error:  # network, permissions, unknown names and splits: each has its own exception
        reason = " ".join(str(error).split())
        raise Mistake(f"{key}: '{name}' cannot be loaded from the Hugging Face Hub: {reason}") from error


def load_records(
    stamps: Stamps,
    columns: Sequence[str],
    key: str,
    tolerance: Tolerance,
    optional: Sequence[str] = (),
    paths: str | None = None,
) -> tuple[datasets.Dataset, int]:
    """Rows of files of one format, and how many were left out because they cannot be read.

    Rows that are left out are still there, with nothing in any column.

    Args:
        stamps: of files of one kind (see `KINDS`).
        columns: the columns wanted.
        key: the YAML key, for error messages.
        tolerance: what is left out.
        optional: those of the columns that need not have a value in every row.
        paths: the column of paths that are relative to the file they are in; in the table they are relative to
            `common_folder` of all files.

    Raises:
        BrokenFile: the first unreadable file (and its line), if nothing is to be left out.
        Mistake: a column is missing, the files are of several formats, or more is unreadable than may be left out.
    """
    files = [Path(path) for path, _, _ in stamps]
    check_format(files, key)
    relative = (paths, str(common_folder(files))) if paths else None
    settings = {"columns": tuple(columns), "optional": tuple(optional), "relative": relative}
    features = {name: datasets.Value("string") for name in (*columns, "_file", "_broken")}
    rows = generated(_rows, stamps, settings, datasets.Features(features))
    bad = np.flatnonzero(~Column(rows, "_broken").missing())
    first = BrokenFile(*(rows[int(bad[0])][name] for name in ("_file", "_broken"))) if len(bad) else None
    skipped = settle_broken(first, len(bad), len(rows), key, tolerance)
    for column in optional:
        if len(rows) and Column(rows, column).missing().all() and column not in (there := columns_of(files[0])):
            raise Mistake(f"{key}: '{files[0]}' has no column '{column}'; there are {listed(there, 'and')}")
    return rows.select_columns(list(columns)), skipped


def check_format(files: Sequence[Path], key: str) -> None:
    """Refuse files of several formats.

    Raises:
        Mistake: they are.
    """
    kinds = sorted({kind for kind, endings in KINDS.items() for file in files if has_suffix(file, endings)})
    if len(kinds) > 1:
        raise Mistake(f"{key}: there are {listed(kinds, 'and')} files; name those of one format with a pattern")


def _rows(
    items: Stamps, columns: Sequence[str], optional: Sequence[str], relative: tuple[str, str] | None
) -> Iterator[dict[str, str | None]]:
    for path, _, _ in items:
        for values, broken in read_rows(Path(path), columns, optional):
            row = dict(zip(columns, values, strict=True))
            if relative is not None and (named := row[relative[0]]):
                row[relative[0]] = str(Path(path).parent.relative_to(relative[1]) / named)
            yield {**row, "_file": path if broken else None, "_broken": broken}


def check_column(rows: datasets.Dataset, column: str, where: str, key: str) -> None:
    """Raise a Mistake that lists the columns there are if `column` is not among them."""
    if column not in rows.column_names:
        raise Mistake(f"{key}: {where} has no column '{column}'; there are {listed(rows.column_names, 'and')}")


def is_string(rows: datasets.Dataset, column: str) -> bool:
    """Whether `column` is one of strings."""
    return getattr(rows.features[column], "dtype", None) in ("string", "large_string")


def check_strings(rows: datasets.Dataset, column: str, key: str) -> None:
    """Raise a Mistake unless every row of `column` may hold a string."""
    if not is_string(rows, column):
        kind = getattr(rows.features[column], "dtype", None) or type(rows.features[column]).__name__
        raise Mistake(f"{key}: column '{column}' holds {kind}, but a string in every row is expected")


def first_null(rows: datasets.Dataset, column: str, where: str) -> tuple[BrokenFile | None, int]:
    """A report for the first row that has nothing in `column`, and how many there are."""
    null = np.flatnonzero(Column(rows, column).missing())
    return (BrokenFile(where, f"row {null[0]} has nothing in column '{column}'") if len(null) else None), len(null)
