"""Tables of documents through Hugging Face `datasets`: JSON Lines, Parquet, CSV, text files, WebDataset tars, the Hub.

Everything ends in a memory-mapped Arrow file in the `datasets` cache, so a source costs disk, not memory.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_modules.dataset import BrokenFile
from data_modules.reading.cached import code_of, generated, progress, remembered, usable_cache
from data_modules.reading.columns import Column
from data_modules.reading.files import HUB, Stamps, Tolerance, listed, settle_broken, stamp, total_size
from data_modules.reading.json_lines import strings_of
from lit_mm.mistake import Mistake

BUILDERS = {
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".jsonl.gz": "json",
    ".json.gz": "json",
    ".parquet": "parquet",
    ".csv": "csv",
    ".txt": "text",
    ".txt.gz": "text",
    ".tar": "webdataset",
}
LARGE = 2**28  # bytes that are worth a progress bar
UNREADABLE = (
    datasets.exceptions.DatasetGenerationError,
    pa.ArrowException,
    tarfile.TarError,
    OSError,
    EOFError,
    zlib.error,
)


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
    files: Sequence[Path], columns: Sequence[str], key: str, tolerance: Tolerance, optional: Sequence[str] = ()
) -> tuple[datasets.Dataset, int]:
    """Rows of files of one format, and how many lines or files were left out because they cannot be read.

    Lines of JSON that are left out are still rows, with nothing in any column; files of the other formats are not.

    Args:
        files: all of one kind (see `BUILDERS`).
        columns: the columns wanted.
        key: the YAML key, for error messages.
        tolerance: what is left out.
        optional: those of the columns that need not have a value in every row.

    Raises:
        BrokenFile: the first unreadable file (and its line), if nothing is to be left out.
        Mistake: a column is missing, the files are of several formats, or more is unreadable than may be left out.
    """
    builder = format_of(files, key)
    if builder == "json":
        return _load_json(files, columns, key, tolerance, optional)
    try:
        return _checked_columns(_load(builder, files, columns), columns, files, key), 0
    except UNREADABLE as error:
        broken = [BrokenFile(f, reason) for f in files if (reason := why_broken(f, columns))]
        skipped = settle_broken(next(iter(broken), None), len(broken), len(files), key, tolerance)
        whole = [f for f in files if str(f) not in {b.path for b in broken}]
        if not broken or not whole:
            raise Mistake(f"{key}: '{files[0]}' cannot be read: {error.__cause__ or error}") from error
        return _checked_columns(_load(builder, whole, columns), columns, whole, key), skipped


def format_of(files: Sequence[Path], key: str) -> str:
    """The one format of all files.

    Raises:
        Mistake: there are several.
    """
    kinds = sorted({builder_of(f) for f in files})
    if len(kinds) > 1:
        raise Mistake(f"{key}: there are {listed(kinds, 'and')} files; name those of one format with a pattern")
    return kinds[0]


def _load_json(
    files: Sequence[Path], columns: Sequence[str], key: str, tolerance: Tolerance, optional: Sequence[str]
) -> tuple[datasets.Dataset, int]:
    """`datasets`' own reader where every line has its strings; else line by line, to tell which one has not."""
    settings = {"columns": tuple(columns), "optional": tuple(optional)}
    stamps = stamp(files)
    if remembered(lambda: _reads_whole(files, columns, key, optional), stamps, code_of(_reads_whole), settings):
        return _checked_columns(_load("json", files, columns), columns, files, key), 0
    features = {name: datasets.Value("string") for name in (*columns, "_file", "_broken")}
    rows = generated(_lines, stamps, settings, datasets.Features(features))
    bad = np.flatnonzero(~Column(rows, "_broken").missing())
    first = BrokenFile(*(rows[int(bad[0])][name] for name in ("_file", "_broken"))) if len(bad) else None
    return rows.select_columns(list(columns)), settle_broken(first, len(bad), len(rows), key, tolerance)


def _reads_whole(files: Sequence[Path], columns: Sequence[str], key: str, optional: Sequence[str]) -> bool:
    """Whether `datasets`' reader finds a string in UTF-8 wherever there has to be one.

    Raises:
        Mistake: no line has one of the columns.
    """
    try:
        rows = _load("json", files, columns)
        for column in columns:
            check_column(rows, column, f"'{files[0]}'", key)
            strings = rows.data.column(column)
            if not is_string(rows, column) or (strings.null_count and column not in optional):
                return False
            strings.validate(full=True)
    except UNREADABLE:
        return False
    return True


def builder_of(file: Path) -> str:
    """Name of the `datasets` builder that reads a file, by its ending."""
    return next(builder for suffix, builder in BUILDERS.items() if file.name.lower().endswith(suffix))


def is_json(file: Path) -> bool:
    """Whether a file holds JSON Lines."""
    return builder_of(file) == "json"


def _load(builder: str, files: Sequence[Path], columns: Sequence[str]) -> datasets.Dataset:
    options: dict[str, Any] = {"sample_by": "document"} if builder == "text" else {}
    if builder == "parquet" and columns and set(columns) <= set(pq.read_schema(files[0]).names):
        options = {"columns": list(columns)}
    usable_cache()
    with progress(total_size(stamp(files)) >= LARGE):
        return datasets.load_dataset(builder, data_files={"train": [str(f) for f in files]}, split="train", **options)


def load_table(files: Sequence[Path]) -> datasets.Dataset:
    """All columns of files of one format."""
    return _load(builder_of(files[0]), files, ())


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


def first_null(rows: datasets.Dataset, column: str, where: str) -> tuple[BrokenFile | None, int]:
    """A report for the first row that has nothing in `column`, and how many there are."""
    null = np.flatnonzero(Column(rows, column).missing())
    return (BrokenFile(where, f"row {null[0]} has nothing in column '{column}'") if len(null) else None), len(null)


def _lines(items: Stamps, columns: Sequence[str], optional: Sequence[str]) -> Iterator[dict[str, str | None]]:
    for path, _, _ in items:
        for values, broken in read_lines(Path(path), columns, optional):
            yield {**dict(zip(columns, values, strict=True)), "_file": path if broken else None, "_broken": broken}


def read_lines(
    file: Path, columns: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[tuple[list[str | None], str | None]]:
    """Values of `columns` for every line of a JSON Lines file, or why the line is broken.

    A file that cannot be read on ends with why.
    """
    opened: Callable[..., Any] = gzip.open if file.suffix == ".gz" else open
    nothing: list[str | None] = [None] * len(columns)
    number = 0
    try:
        with opened(file, "rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    broken = None
                    try:
                        values = strings_of(line, columns, optional)
                    except ValueError as error:
                        values, broken = nothing, f"line {number} {error}"
                    yield values, broken
    except (OSError, EOFError, zlib.error) as error:
        yield nothing, f"after line {number} it cannot be read: {error}"


def why_broken(file: Path, columns: Sequence[str]) -> str | None:
    """Read a file of text, JSON Lines, Parquet or tar through, and say why it cannot be, or None."""
    builder = builder_of(file)
    try:
        if builder == "json":
            return next((broken for _, broken in read_lines(file, columns) if broken), None)
        if builder in ("text", "csv"):
            packed = file.read_bytes()
            (gzip.decompress(packed) if file.suffix == ".gz" else packed).decode("utf-8")
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
    except (pa.ArrowException, tarfile.TarError, OSError, EOFError, zlib.error) as error:
        return str(error)
    return None


def find_broken(files: Sequence[Path], columns: Sequence[str]) -> BrokenFile:
    """The first of `files` that is not UTF-8, after a reader said that one of them is not."""
    for file in files:
        if file.is_file() and (reason := why_broken(file, columns)):
            return BrokenFile(file, reason)
    return BrokenFile(files[0], "a text in it is not UTF-8")
