"""Tables of pictures and captions: where each picture is, and the tokens of each caption."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from data_modules.dataset import BrokenFile
from data_modules.reading.cropping import CENTRE, Cropping, Cut
from data_modules.reading.named_pictures import read_named_picture
from data_modules.reading.picture_identity import Identifier, by_group, numbers_within
from data_modules.reading.picture_source import PictureSource
from data_modules.reading.pictures import read_picture
from data_modules.reading.table_files import common_folder
from lit_mm.tokenizer import Tokenizer

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

    from data_modules.reading.columns import Column

LOOKED_AT = 1 << 16  # rows whose pictures are looked up at once


class PairTable:
    """Rows of pictures and captions of files.

    Args:
        rows: the table; its picture column may hold a path, the file's bytes, or `datasets`' {bytes, path}.
        image: name of the picture column.
        captions: names of the caption columns. A row that lacks one has the first that it has in its place.
        files: where the rows come from.
        lost: how many of the rows hold nothing, as what they come from cannot be read.
        folder: that paths of pictures are relative to; that of all files by default.

    Attributes:
        lengths: (captions, rows) int32, tokens of each caption, once they are tokenized.
        cut: captions that are longer than is kept.
    """

    def __init__(
        self,
        rows: datasets.Dataset,
        image: str,
        captions: Sequence[str],
        files: Sequence[Path],
        lost: int = 0,
        folder: Path | None = None,
    ) -> None:
        self.folder, self.named_in = folder or common_folder(files), folder
        self.rows, self.image, self.captions, self.files = rows, image, captions, files
        self.where = files[0] if len(files) == 1 else common_folder(files)
        self.raw = rows.with_format("arrow")  # as stored: `datasets` would decode the picture itself
        self.lost = lost
        self.ids: list[Column] = []
        self.lengths = np.zeros((0, 0), np.int32)
        self.cut = 0

    def tokenize(self, tokenizer: Tokenizer, longest: int, key: str) -> PairTable:
        """Tokenize the captions, once and for all.

        Raises:
            Mistake: the captions are not strings.
        """
        from datasets import Features, List, Value

        from data_modules.reading.cached import mapped
        from data_modules.reading.columns import Column
        from data_modules.reading.records import check_strings

        features = Features({"ids": List(Value("int32")), "cut": Value("bool")})
        for caption in self.captions:
            check_strings(self.rows, caption, key)
            settings = {"tokenizer": tokenizer, "column": caption, "longest": longest}
            captions = self.rows.select_columns([caption])
            made = mapped(captions, tokenize_captions, settings, features, f"{key}: tokenizing captions")
            self.ids.append(Column(made, "ids"))
            self.cut += int(np.count_nonzero(Column(made, "cut").all()))
        own = np.stack([ids.lengths() for ids in self.ids])
        first = np.take_along_axis(own, (own > 0).argmax(axis=0)[None], axis=0)
        self.lengths = np.where(own > 0, own, first)
        return self

    def caption_ids(self, row: int, caption: int) -> list[int]:
        """Tokens of one caption."""
        return self.ids[caption][row] or next((ids for column in self.ids if (ids := column[row])), [])

    def picture(self, row: int, size: int, cut: Cut | None = None) -> Tensor:
        """One picture, (3, size, size) uint8, its centre or what `cut` says.

        Raises:
            BrokenFile: it is not there, or cannot be read.
        """
        path, content = self._stored(row)
        if content is not None:
            return read_picture(content.as_py(), size, self.origin(row), cut)
        if not path:
            raise BrokenFile(self.where, f"row {row} has no picture in '{self.image}'")
        return read_named_picture(path, self.where, self.named_in, size, cut)

    def origin(self, row: int) -> str:
        """Path of a picture, or where its bytes are."""
        path, content = self._stored(row)
        if content is None and path is not None:
            return str(self.folder / path)
        return f"{path or f'picture {row}'} in {self.where}"

    def _stored(self, row: int) -> tuple[str | None, pa.Scalar | None]:
        """Path and bytes of a picture as the table has them, whichever there are; the bytes are not copied."""
        from pyarrow import types

        value = self.raw[row][self.image][0]
        if types.is_struct(value.type):
            names = [field.name for field in value.type]
            path, content = (value[name] if name in names else None for name in ("path", "bytes"))
        elif types.is_binary(value.type) or types.is_large_binary(value.type):
            path, content = None, value
        else:
            path, content = value, None
        has_bytes = content is not None and content.is_valid
        return path.as_py() if path is not None else None, content if has_bytes else None

    def identities(self, rows: np.ndarray, identifier: Identifier) -> np.ndarray:
        """(n,) uint64, what the pictures of some rows are: files of their own, or rows of the table."""
        found = numbers_within(identifier.text("table", self.rows._fingerprint), rows)
        for start in range(0, len(rows), LOOKED_AT):
            paths, inside = self._paths(rows[start : start + LOOKED_AT])
            for i in np.flatnonzero(~inside).tolist():
                found[start + i] = identifier.present(str(self.folder / (paths[i] or "")))
        return found

    def _paths(self, rows: np.ndarray) -> tuple[list[str | None], np.ndarray]:
        """Paths of the pictures of some rows, and (rows,) bool which have their bytes in the table."""
        from pyarrow import compute, types

        column = self.raw[rows][self.image]
        nothing: list[str | None] = [None] * len(rows)
        if types.is_binary(column.type) or types.is_large_binary(column.type):
            return nothing, column.is_valid().to_numpy()
        if not types.is_struct(column.type):
            return column.to_pylist(), np.zeros(len(rows), bool)
        fields = {field.name: compute.struct_field(column, field.name) for field in column.type}
        inside = fields["bytes"].is_valid().to_numpy() if "bytes" in fields else np.zeros(len(rows), bool)
        return fields["path"].to_pylist() if "path" in fields else nothing, inside


def tokenize_captions(
    batch: dict[str, list[str | None]], tokenizer: Tokenizer, column: str, longest: int
) -> dict[str, list]:
    """Captions to ids, cut to `longest`."""
    ids = tokenizer.encode_batch([(caption or "").strip() for caption in batch[column]])
    return {"ids": [i[:longest] for i in ids], "cut": [len(i) > longest for i in ids]}


class PairPictures(PictureSource):
    """Pictures of pairs; a picture's key is its row, counted through all tables.

    Args:
        parts: the tables.
        size: side of a picture in pixels.
        cropping: how drawn pictures become squares.
    """

    def __init__(self, parts: Sequence[PairTable], size: int, cropping: Cropping = CENTRE) -> None:
        self.parts, self.size, self.cropping = parts, size, cropping
        self.cut_anew = cropping.rule == "random"
        self.starts = np.cumsum([0, *(len(part.rows) for part in parts)])

    def locate(self, key: int) -> tuple[PairTable, int]:
        """The table that holds a picture, and the row in it."""
        number = int(np.searchsorted(self.starts, key, side="right")) - 1
        return self.parts[number], key - int(self.starts[number])

    def read(self, keys: Sequence[int]) -> list[Tensor]:
        """(3, size, size) uint8 each, cut without chance."""
        located = [self.locate(key) for key in keys]
        return [part.picture(row, self.size, self.cropping.still) for part, row in located]

    def read_drawn(self, keys: Sequence[int], seed: int) -> list[Tensor]:
        """(3, size, size) uint8 each, cut as the seed has it."""
        located = [self.locate(key) for key in keys]
        cuts = [self.cropping.cut(seed, number) for number in range(len(keys))]
        return [part.picture(row, self.size, cut) for (part, row), cut in zip(located, cuts, strict=True)]

    def origin(self, key: int) -> str:
        """Path of a picture, or where its bytes are."""
        part, row = self.locate(key)
        return part.origin(row)

    def identities(self, keys: np.ndarray) -> np.ndarray:
        """See `PictureSource.identities`."""
        identifier = Identifier(self.root, self.size, *self.cropping.named)
        numbers = np.searchsorted(self.starts, keys, side="right") - 1
        return by_group(
            numbers, lambda number, some: self.parts[number].identities(keys[some] - self.starts[number], identifier)
        )
