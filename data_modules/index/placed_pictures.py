"""Pictures inside indexed files: members of tars, rows of Parquet."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from data_modules.dataset import BrokenFile
from data_modules.index.parquet_files import RowGroups, has_bytes, read_group
from data_modules.index.parquet_index import TableFields
from data_modules.index.ranges import Range, RangeReader
from data_modules.index.source_view import SourceView
from data_modules.index.storage import InputFile, is_remote
from data_modules.reading.cropping import CENTRE, Cropping, Cut
from data_modules.reading.named_pictures import read_named_picture
from data_modules.reading.picture_identity import Identifier, by_group, numbers_within
from data_modules.reading.picture_source import PictureSource
from data_modules.reading.pictures import read_picture


class PlacedPictures(PictureSource):
    """Pictures whose places are in the indexes of their files; a picture's key is its document.

    Args:
        view: of the indexes.
        size: side of a picture in pixels.
        cropping: how drawn pictures become squares.
    """

    def __init__(self, view: SourceView, size: int, cropping: Cropping = CENTRE) -> None:
        self.view, self.size = view, size
        self.cropping, self.cut_anew = cropping, cropping.rule == "random"

    @abstractmethod
    def picture(self, key: int, cut: Cut | None) -> Tensor:
        """One of them, (3, size, size) uint8.

        Raises:
            BrokenFile: it cannot be read.
        """

    def read(self, keys: Sequence[int]) -> list[Tensor]:
        """(3, size, size) uint8 each, cut without chance."""
        return [self.picture(key, self.cropping.still) for key in keys]

    def read_drawn(self, keys: Sequence[int], seed: int) -> list[Tensor]:
        """(3, size, size) uint8 each, cut as the seed has it."""
        return [self.picture(key, self.cropping.cut(seed, number)) for number, key in enumerate(keys)]

    def identities(self, keys: np.ndarray) -> np.ndarray:
        """See `PictureSource.identities`; files are as they were when they were indexed."""
        identifier = Identifier(self.root, self.size, *self.cropping.named)
        starts = self.view.starts
        numbers = np.searchsorted(starts, keys, side="right") - 1
        return by_group(numbers, lambda number, some: self.within(number, keys[some] - starts[number], identifier))

    @abstractmethod
    def within(self, number: int, rows: np.ndarray, identifier: Identifier) -> np.ndarray:
        """(n,) uint64 of pictures in one file.

        Args:
            number: of the file.
            rows: (n,) int64, in its index.
            identifier: of files.
        """


class TarPictures(PlacedPictures):
    """Pictures inside tars, each read by its place there.

    Args:
        view: of the tars' indexes.
        size: side of a picture in pixels.
        ranges: reads the tars.
        cropping: how drawn pictures become squares.
    """

    def __init__(self, view: SourceView, size: int, ranges: RangeReader, cropping: Cropping = CENTRE) -> None:
        super().__init__(view, size, cropping)
        self.ranges = ranges

    def _place(self, key: int) -> tuple[InputFile, int, int]:
        number, row = self.view.locate(key)
        index = self.view.index(number)
        return self.view.sidecars[number].file, int(index["offset"][row]), int(index["size"][row])

    def picture(self, key: int, cut: Cut | None) -> Tensor:
        """See `PlacedPictures.picture`."""
        file, offset, size = self._place(key)
        return read_picture(self.ranges.read(file, offset, size), self.size, self.origin(key), cut)

    def ahead(self, keys: Sequence[int]) -> None:
        """Have them on their way."""
        for key in keys:
            self.ranges.ahead(*self._place(key))

    def within(self, number: int, rows: np.ndarray, identifier: Identifier) -> np.ndarray:
        """By where they begin."""
        file = self.view.sidecars[number].file
        return numbers_within(
            identifier.file(file.path, file.size, file.changed), self.view.index(number)["offset"][rows]
        )

    def origin(self, key: int) -> str:
        """The tar, and where in it the picture begins."""
        file, offset, _ = self._place(key)
        return f"{file.path} at byte {offset}"


class ParquetPictures(PlacedPictures):
    """Pictures of Parquet files: their bytes, or those of files that are named there.

    Where bytes lie in the file as they are, they alone are read; else all of a group of rows is.

    Args:
        view: of the files' indexes.
        size: side of a picture in pixels.
        groups: reads the files.
        fields: their columns.
        folder: that names of pictures are relative to; that of the file by default.
        cropping: how drawn pictures become squares.
    """

    def __init__(
        self,
        view: SourceView,
        size: int,
        groups: RowGroups,
        fields: TableFields,
        folder: Path | None,
        cropping: Cropping = CENTRE,
    ) -> None:
        super().__init__(view, size, cropping)
        self.groups, self.fields, self.folder = groups, fields, folder

    def _place(self, key: int) -> tuple[InputFile, int, int, int]:
        """The file, the group of rows, the row in it, and the row in the file."""
        number, sample = self.view.locate(key)
        index = self.view.index(number)
        group, row = int(index["group"][sample]), int(index["row"][sample])
        return self.view.sidecars[number].file, group, row, int(index["begins"][group]) + row

    def _stored(self, key: int) -> Range | None:
        """Where its bytes lie as they are."""
        number, sample = self.view.locate(key)
        index = self.view.index(number)
        size = int(index["size"][sample])
        return (self.view.sidecars[number].file, int(index["offset"][sample]), size) if size else None

    def value(self, key: int) -> tuple[str | None, bytes | None]:
        """Path and bytes of a picture, as far as they are there.

        Raises:
            BrokenFile: they cannot be read.
        """
        if stored := self._stored(key):
            return None, self.groups.ranges.read(*stored)
        file, group, row, _ = self._place(key)
        return _path_and_bytes(self.groups.column(file, group, self.fields.image_of(file.path))[row].as_py())

    def picture(self, key: int, cut: Cut | None) -> Tensor:
        """See `PlacedPictures.picture`."""
        path, content = self.value(key)
        if content is not None:
            return read_picture(content, self.size, self.origin(key), cut)
        file, _, _, number = self._place(key)
        if path is None:
            raise BrokenFile(file.path, f"row {number} has no picture in '{self.fields.image_of(file.path)}'")
        if is_remote(file.path):
            raise BrokenFile(file.path, f"row {number} names '{path}', but beside a remote table no pictures are read")
        return read_named_picture(path, file.path, self.folder, self.size, cut)

    def ahead(self, keys: Sequence[int]) -> None:
        """Have them, or the groups that they are in, on their way."""
        for key in keys:
            if stored := self._stored(key):
                self.groups.ranges.ahead(*stored)
            else:
                file, group, _, _ = self._place(key)
                self.groups.ahead(file, group, self.fields.image_of(file.path))

    def origin(self, key: int) -> str:
        """The row, and the file."""
        file, _, _, number = self._place(key)
        return f"picture {number} in {file.path}"

    def within(self, number: int, rows: np.ndarray, identifier: Identifier) -> np.ndarray:
        """By their rows, or by the files that these name, as they are now."""
        file, index = self.view.sidecars[number].file, self.view.index(number)
        groups = index["group"][rows].astype(np.int64)
        table, column = self.groups.file(file) if not is_remote(file.path) else None, self.fields.image_of(file.path)
        if table is None or has_bytes(table, column):
            whole = identifier.file(file.path, file.size, file.changed, column)
            return numbers_within(whole, index["begins"][groups] + index["row"][rows])
        places, folder = index["row"][rows].tolist(), self.folder or Path(file.path).parent

        def named(group: int, some: slice) -> np.ndarray:
            values = read_group(table, group, [column], file.path).column(column).to_pylist()
            paths = [_path_and_bytes(values[row])[0] or "" for row in places[some]]
            return np.array([identifier.present(str(folder / path)) for path in paths], np.uint64)

        return by_group(groups, named)


def _path_and_bytes(value: Any) -> tuple[str | None, bytes | None]:
    if isinstance(value, dict):
        return value.get("path"), value.get("bytes")
    return (value, None) if isinstance(value, str) else (None, value)
