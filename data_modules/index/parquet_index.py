"""The index of one Parquet file of pictures and captions: which rows are pairs, and the tokens of their captions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_modules.dataset import BrokenFile
from data_modules.index.caption_arrays import GUESSED, caption_arrays, counts_of
from data_modules.index.captions import decode_text
from data_modules.index.parquet_files import DamagedParquet, open_parquet, read_group
from data_modules.index.parquet_values import places_of_values
from data_modules.index.ranges import RangeReader
from data_modules.index.source_view import Totals
from data_modules.index.storage import InputFile, is_remote
from data_modules.reading.conditions import Condition
from data_modules.reading.files import listed
from data_modules.reading.parquet_columns import check_text, form_of, path_of_bytes
from lit_mm.mistake import Mistake
from lit_mm.tokenizer import Tokenizer

FILE_NAME = "file_name"  # the column that names the picture in a Hugging Face image folder


@dataclass(frozen=True)
class TableFields:
    """Which columns hold pictures and captions.

    Args:
        image: of pictures; in files called `metadata` it is `file_name`.
        captions: of captions. A row that lacks one has the first that it has in its place.
        longest: tokens to which captions are cut.
        conditions: on numbers in columns; rows of which one does not hold are left out.
    """

    image: str
    captions: tuple[str, ...]
    longest: int
    conditions: tuple[Condition, ...] = ()

    def image_of(self, path: str) -> str:
        """The column of pictures of a file."""
        return FILE_NAME if PurePosixPath(path).name.startswith("metadata.") else self.image

    def check(self, file: InputFile, key: str) -> None:
        """Look at the columns of a source's first file before all are read.

        Raises:
            Mistake: one is not there, or holds something else.
        """
        try:
            schema = open_parquet(file, RangeReader()).schema_arrow
        except BrokenFile:  # whoever reads all of it says so
            return
        try:
            self.check_schema(schema, file.path)
        except ValueError as error:
            raise Mistake(f"{key}: '{file.path}'{error}") from error
        for condition in self.conditions:
            if condition.name not in schema.names:
                there = listed(schema.names, "and")
                raise Mistake(f"{key} (keep): '{file.path}' has no column '{condition.name}'; there are {there}")

    def check_schema(self, schema: pa.Schema, path: str) -> None:
        """Refuse a file without these columns.

        Raises:
            ValueError: see `form_of`.
        """
        form_of(schema, self.image_of(path))
        for caption in self.captions:
            check_text(schema, caption)

    def nothing(self, path: str, totals: Totals) -> str:
        """Why there are no pairs."""
        if not totals.bare:
            return f"'{path}' holds no pairs"
        columns = listed([f"'{column}'" for column in self.captions])
        return f"none of the {totals.bare} pairs of '{path}' has a caption in {columns}"


def index_parquet(
    file: InputFile, fields: TableFields, tokenizer: Tokenizer
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read a file's captions, and of its pictures where they lie.

    Args:
        file: Parquet.
        fields: what is looked for.
        tokenizer: of the captions.

    Returns:
        Arrays of `caption_arrays`, the samples of each kind in the order of their rows, and besides:
            group: (samples,) uint32, the group of rows that it is in.
            row: (samples,) uint32, its row there.
            begins: (groups,) uint64, the first row of each group.
            offset: (samples,) uint64, where its picture begins in the file.
            size: (samples,) uint32, bytes of the picture; 0 where it has to be read with its group.
        Numbers of samples, as of `index_pairs`; `lost` are those of groups that cannot be read, and one of a file that
        cannot be read at all. Names: `reports`, why the first are lost; `endings`, none.

    Raises:
        BrokenFile: the file is not there, or the storage does not give it.
    """
    rows = _Rows()
    try:
        table = open_parquet(file, RangeReader())
        fields.check_schema(table.schema_arrow, file.path)
        sizes = [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]
    except ValueError as error:
        sizes = []
        rows.lose(str(error).lstrip(" :"), 1)
    except DamagedParquet as error:
        sizes = []
        rows.lose(error.reason, 1)
    for group, size in enumerate(sizes):
        try:
            rows.read(table, group, fields, file)
        except DamagedParquet as error:
            rows.lose(error.reason, size)
    arrays, order = caption_arrays(rows.texts, len(fields.captions), rows.flags, fields.longest, tokenizer)
    arrays["group"] = np.array([rows.places[i][0] for i in order], np.uint32)
    arrays["row"] = np.array([rows.places[i][1] for i in order], np.uint32)
    stored = np.concatenate([np.zeros((0, 2), np.int64), *rows.stored])[order]
    arrays["offset"], arrays["size"] = stored[:, 0].astype(np.uint64), stored[:, 1].astype(np.uint32)
    arrays["begins"] = np.cumsum([0, *sizes], dtype=np.uint64)[:-1]
    counts = counts_of(arrays["flags"])
    counts |= {"lost": rows.lost, "unkept": rows.unkept, "unknown": rows.unknown}
    return arrays, {**counts, "reports": rows.reports, "endings": {}}


class _Rows:
    """What is found, row by row."""

    def __init__(self) -> None:
        self.texts: list[list[str]] = []
        self.flags: list[int] = []
        self.places: list[tuple[int, int]] = []
        self.stored: list[np.ndarray] = []  # of each group, (samples, 2) int64
        self.ranges = RangeReader()
        self.lost = self.unkept = self.unknown = 0
        self.reports: list[str] = []

    def lose(self, reason: str, count: int) -> None:
        """Count rows that cannot be read."""
        self.lost += count
        self.reports += [reason][: not self.reports]

    def read(self, table: pq.ParquetFile, group: int, fields: TableFields, file: InputFile) -> None:
        """Read a group of rows."""
        named = [condition.name for condition in fields.conditions if condition.name in table.schema_arrow.names]
        found = read_group(table, group, list(dict.fromkeys([*fields.captions, *named])), file.path)
        captions = [_decoded(found.column(name)) for name in fields.captions]
        values = {name: found.column(name).to_pylist() for name in named}
        before = len(self.places)
        for row in range(len(found)):
            held = [one.holds(values[one.name][row] if one.name in values else None) for one in fields.conditions]
            if None in held or not all(held):
                self.unkept += 1
                self.unknown += None in held
                continue
            self.texts.append([texts[row][0] for texts in captions])
            self.flags.append(GUESSED if any(texts[row][1] for texts in captions) else 0)
            self.places.append((group, row))
        kept = [row for _, row in self.places[before:]]
        self.stored.append(self._stored(table, group, fields.image_of(file.path), file, len(found))[kept])

    def _stored(self, table: pq.ParquetFile, group: int, image: str, file: InputFile, rows: int) -> np.ndarray:
        """Where the pictures of a group lie, (rows, 2) int64, of which nothing but zeros may be known."""
        path = path_of_bytes(table.schema_arrow, image)
        places = None
        if path is not None and not is_remote(file.path):  # from afar, lengths cost as much as pictures
            places = places_of_values(table, group, path, rows, partial(self.ranges.read, file))
        return np.zeros((rows, 2), np.int64) if places is None else places


def _decoded(column: pa.ChunkedArray) -> list[tuple[str, bool]]:
    """Texts without space around them, empty where there are none; and whether each was read as Latin-1."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.large_string())
    if pa.types.is_null(column.type):
        return [("", False)] * len(column)
    contents = column.cast(pa.large_binary()).to_pylist()
    decoded = [("", False) if content is None else decode_text(content) for content in contents]
    return [(text.strip(), guessed) for text, guessed in decoded]
