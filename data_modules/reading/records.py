"""Tables of documents through Hugging Face `datasets`: JSON Lines, Parquet, CSV, text files, WebDataset tars, the Hub.

Everything ends in a memory-mapped Arrow file in the `datasets` cache, so a source costs disk, not memory.
"""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_modules.dataset import BrokenFile
from data_modules.reading.files import Tolerance, listed, settle_broken, stamp
from lit_mm.mistake import Mistake

HUB = "hf://"
BUILDERS = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".jsonl.gz": "json",
    ".json.gz": "json",
    ".parquet": "parquet",
    ".csv": "csv",
    ".txt": "text",
    ".tar": "webdataset",
}
UNREADABLE = (datasets.exceptions.DatasetGenerationError, pa.ArrowException, tarfile.TarError, OSError)
LAYOUT = 1  # of the rows made by `_lines`; a new number makes their cached files stale


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
    try:
        return datasets.load_dataset("/".join(parts[:2]), config, split=wanted or split)
    except Exception as error:  # network, permissions, unknown names and splits: each has its own exception
        reason = " ".join(str(error).split())
        raise Mistake(f"{key}: '{name}' cannot be loaded from the Hugging Face Hub: {reason}") from error


def load_records(
    files: Sequence[Path], columns: Sequence[str], key: str, tolerance: Tolerance
) -> tuple[datasets.Dataset, int]:
    """Rows of files of one format, and how many were left out because they cannot be read.

    Args:
        files: all of one kind (see `BUILDERS`).
        columns: the columns wanted.
        key: the YAML key, for error messages.
        tolerance: where it skips, unreadable lines (of JSON), or files (of the other formats) are left out.

    Raises:
        BrokenFile: the first unreadable file (and its line), if nothing is to be left out.
        Mistake: a column is missing, the files are of several formats, or more is unreadable than may be left out.
    """
    kinds = sorted({builder_of(f) for f in files})
    if len(kinds) > 1:
        raise Mistake(f"{key}: there are {listed(kinds, 'and')} files; name those of one format with a pattern")
    builder = kinds[0]
    if builder == "json":
        return _load_json(files, columns, key, tolerance)
    try:
        return _checked_columns(_load(builder, files, columns), columns, files, key), 0
    except UNREADABLE as error:
        broken = [BrokenFile(f, reason) for f in files if (reason := why_broken(f, columns))]
        skipped = settle_broken(broken, len(files), key, tolerance)
        whole = [f for f in files if str(f) not in {b.path for b in broken}]
        if not broken or not whole:
            raise Mistake(f"{key}: '{files[0]}' cannot be read: {error.__cause__ or error}") from error
        return _checked_columns(_load(builder, whole, columns), columns, whole, key), skipped


def _load_json(
    files: Sequence[Path], columns: Sequence[str], key: str, tolerance: Tolerance
) -> tuple[datasets.Dataset, int]:
    """`datasets`' own reader where every line has its strings; else line by line, to tell which one has not."""
    if tolerance.on_error == "raise":
        try:
            rows = _checked_columns(_load("json", files, columns), columns, files, key)
            if all(is_string(rows, column) and not rows.data.column(column).null_count for column in columns):
                return rows, 0
        except UNREADABLE:
            pass
    rows, broken = _load_lines(files, columns)
    return rows, settle_broken(broken, len(rows) + len(broken), key, tolerance)


def builder_of(file: Path) -> str:
    """Name of the `datasets` builder that reads a file, by its ending."""
    return next(builder for suffix, builder in BUILDERS.items() if file.name.lower().endswith(suffix))


def _load(builder: str, files: Sequence[Path], columns: Sequence[str]) -> datasets.Dataset:
    options: dict[str, Any] = {"sample_by": "document"} if builder == "text" else {}
    if builder == "parquet" and set(columns) <= set(pq.read_schema(files[0]).names):
        options = {"columns": list(columns)}
    return datasets.load_dataset(builder, data_files={"train": [str(f) for f in files]}, split="train", **options)


def _checked_columns(
    rows: datasets.Dataset, columns: Sequence[str], files: Sequence[Path], key: str
) -> datasets.Dataset:
    for column in columns:
        check_column(rows, column, f"'{files[0]}'", key)
    return rows.select_columns(list(columns))


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


def without_nulls(rows: datasets.Dataset, column: str, where: str) -> tuple[datasets.Dataset, list[BrokenFile]]:
    """Rows that have a value in `column`, and a report for each of the others."""
    values = rows.data.column(column)
    if not values.null_count:
        return rows, []
    null = values.is_null().to_numpy()
    reports = [BrokenFile(where, f"row {i} has nothing in column '{column}'") for i in np.flatnonzero(null)]
    return rows.select(np.flatnonzero(~null)), reports


def _load_lines(files: Sequence[Path], columns: Sequence[str]) -> tuple[datasets.Dataset, list[BrokenFile]]:
    """JSON line by line: slower than `datasets`' own reader, but it knows which line is broken."""
    features = {name: datasets.Value("string") for name in (*columns, "_file", "_broken")}
    rows = datasets.Dataset.from_generator(
        _lines,
        features=datasets.Features(features),
        gen_kwargs={"stamps": stamp(files), "columns": tuple(columns), "layout": LAYOUT},
    )
    reasons = rows.data.column("_broken")
    if reasons.null_count == len(rows):
        return rows.select_columns(list(columns)), []
    bad = [i for i, fine in enumerate(reasons.is_null().to_pylist()) if not fine]
    broken = [BrokenFile(row["_file"], row["_broken"]) for row in rows.select(bad)]
    good = sorted(set(range(len(rows))) - set(bad))
    return rows.select(good).select_columns(list(columns)).flatten_indices(), broken


def _lines(
    stamps: Sequence[tuple[str, int, int]], columns: Sequence[str], layout: int
) -> Iterator[dict[str, str | None]]:
    for path, _, _ in stamps:
        for values, broken in read_lines(Path(path), columns):
            yield {**dict(zip(columns, values, strict=True)), "_file": path if broken else None, "_broken": broken}


def read_lines(file: Path, columns: Sequence[str]) -> Iterator[tuple[list[str | None], str | None]]:
    """Values of `columns` for every line of a JSON Lines file, or why the line is broken."""
    opened: Callable[..., Any] = gzip.open if file.suffix == ".gz" else open
    nothing: list[str | None] = [None] * len(columns)
    with opened(file, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line.decode("utf-8"))
                values = [entry[column] for column in columns]
            except UnicodeDecodeError as error:
                yield nothing, f"line {number} is not UTF-8 ({error.reason} at byte {error.start})"
            except json.JSONDecodeError as error:
                yield nothing, f"line {number} is not a JSON object ({error.msg} at character {error.pos})"
            except KeyError as error:
                there = f"there are {listed(list(entry), 'and')}" if entry else "it is empty"
                yield nothing, f"line {number} has no column '{error.args[0]}'; {there}"
            except TypeError:
                yield nothing, f"line {number} is not a JSON object"
            else:
                wrong = [c for c, value in zip(columns, values, strict=True) if not isinstance(value, str)]
                yield (nothing, f"line {number} has no string in '{wrong[0]}'") if wrong else (values, None)


def why_broken(file: Path, columns: Sequence[str]) -> str | None:
    """Read a file of text, JSON Lines, Parquet or tar through, and say why it cannot be, or None."""
    builder = builder_of(file)
    try:
        if builder == "json":
            return next((broken for _, broken in read_lines(file, columns) if broken), None)
        if builder in ("text", "csv"):
            file.read_bytes().decode("utf-8")
        elif builder == "parquet":
            table = pq.ParquetFile(file)
            for group in range(table.num_row_groups):
                table.read_row_group(group, columns=list(columns))
        elif builder == "webdataset":
            with tarfile.open(file) as tar:
                for member in tar:
                    content = tar.extractfile(member)
                    if content is not None and len(content.read()) < member.size:
                        return f"it ends inside '{member.name}'"
    except UnicodeDecodeError as error:
        return f"it is not UTF-8 ({error.reason} at byte {error.start})"
    except (pa.ArrowException, tarfile.TarError, OSError, EOFError) as error:
        return str(error)
    return None


def find_broken(files: Sequence[Path], columns: Sequence[str]) -> BrokenFile:
    """The first of `files` that is not UTF-8, after a reader said that one of them is not."""
    for file in files:
        if file.is_file() and (reason := why_broken(file, columns)):
            return BrokenFile(file, reason)
    return BrokenFile(files[0], "a text in it is not UTF-8")
