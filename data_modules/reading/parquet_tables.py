"""Parquet files as memory-mapped tables, each with an Arrow file in the cache; columns of every form that holds a text
or a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from data_modules.dataset import BrokenFile
from data_modules.reading.cached import usable_cache
from data_modules.reading.code import identity
from data_modules.reading.files import Tolerance, listed, settle_broken, stamp
from data_modules.reading.findings import note_cache
from lit_mm.mistake import Mistake

PARQUET = ".parquet"
LAYOUT = 1  # of the Arrow files; a new number makes older ones stale
BATCH = 128  # rows that are read at once: pictures are large
TEXT, BYTES = pa.large_string(), pa.large_binary()
PICTURE = pa.struct([("bytes", BYTES), ("path", TEXT)])
# What a picture may be stored in, and what it becomes.
FORMS: tuple[tuple[Any, pa.DataType], ...] = (
    (pa.types.is_string, TEXT),
    (pa.types.is_large_string, TEXT),
    (pa.types.is_string_view, TEXT),
)
FORMS += ((pa.types.is_binary, BYTES), (pa.types.is_large_binary, BYTES), (pa.types.is_binary_view, BYTES))
FORMS += ((pa.types.is_fixed_size_binary, BYTES), (pa.types.is_null, TEXT))


def load_parquet(
    files: Sequence[Path], columns: Sequence[str], key: str, tolerance: Tolerance
) -> tuple[datasets.Dataset, int]:
    """Rows of Parquet files, and how many files were left out because they cannot be read.

    Args:
        files: with the same columns.
        columns: those that are read.
        key: the YAML key, for error messages.
        tolerance: what is left out.

    Raises:
        BrokenFile: a file cannot be read, if nothing is to be left out.
        Mistake: a column is missing or twice there, or more is unreadable than may be left out.
    """
    tables, broken = [], []
    for file in files:
        try:
            tables.append(_table(file, columns, key))
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            broken.append(BrokenFile(file, " ".join(str(error).split())))
    skipped = settle_broken(next(iter(broken), None), len(broken), len(files), key, tolerance)
    if not tables:
        raise Mistake(f"{key}: none of {len(files)} files can be read; the first is {broken[0]}")
    rows = datasets.concatenate_datasets(tables) if len(tables) > 1 else tables[0]
    rows._fingerprint = identity(LAYOUT, stamp(files), tuple(columns), skipped)
    return rows, skipped


def _table(file: Path, columns: Sequence[str], key: str) -> datasets.Dataset:
    made = usable_cache() / f"{identity(LAYOUT, stamp([file]), tuple(columns))}.arrow"
    with FileLock(made.with_suffix(".lock")):
        try:
            table = datasets.Dataset.from_file(str(made))
        except (pa.ArrowException, OSError):  # it is not there yet, or damaged
            beside = made.with_suffix(".part")
            _convert(file, beside, columns, key)
            beside.replace(made)
            table = datasets.Dataset.from_file(str(made))
    note_cache(made)
    return table


def _convert(file: Path, made: Path, columns: Sequence[str], key: str) -> None:
    with pq.ParquetFile(file) as source:
        schema = source.schema_arrow
        stored = {name: read_as(schema, name, f"{key}: '{file}'") for name in columns}
        wanted = pa.schema(list(stored.items()))
        with pa.OSFile(str(made), "wb") as sink, pa.ipc.new_stream(sink, wanted) as out:
            for batch in source.iter_batches(BATCH, columns=list(columns), use_threads=False):
                arrays = [_as(batch.column(name), kind) for name, kind in stored.items()]
                out.write_batch(pa.record_batch(arrays, schema=wanted))


def read_as(schema: pa.Schema, name: str, where: str) -> pa.DataType:
    """What a column is kept as: text, bytes, or a picture's bytes and path.

    Args:
        schema: of the file.
        name: of the column.
        where: the YAML key and the file, for the message.

    Raises:
        Mistake: there is no such column, there are several, or it holds neither texts nor pictures.
    """
    if (count := schema.names.count(name)) != 1:
        there = f"there are {listed(list(dict.fromkeys(schema.names)), 'and')}"
        found = f"{count} columns '{name}'; give each its own name" if count else f"no column '{name}'; {there}"
        raise Mistake(f"{where} has {found}")
    kind = schema.field(name).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if stored := next((form for is_form, form in FORMS if is_form(kind)), None):
        return stored
    if pa.types.is_struct(kind) and {"bytes", "path"} & {field.name for field in kind}:
        return PICTURE
    raise Mistake(
        f"{where}: column '{name}' holds {kind}, but a string, or a picture as its path, its bytes or {{bytes, path}}, "
        "is expected in every row"
    )


def _as(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """An array as a type that holds the same.

    Raises:
        pa.ArrowException: a text is not UTF-8.
    """
    array = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
    if kind == PICTURE:
        names = [field.name for field in array.type]
        flat = dict(zip(names, array.flatten(), strict=True))
        fields = [flat[f.name].cast(f.type) if f.name in flat else pa.nulls(len(array), f.type) for f in PICTURE]
        return pa.StructArray.from_arrays(fields, fields=list(PICTURE))
    array = array.cast(kind)
    array.validate(full=True)
    return array
