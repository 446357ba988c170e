"""The pictures of pages: files that are named, files as text (`data:` addresses), or bytes in a table."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np
from torch import Tensor

from data_modules.dataset import BrokenFile
from data_modules.reading.columns import Column
from data_modules.reading.named_pictures import is_absent
from data_modules.reading.pages import Pages
from data_modules.reading.picture_identity import Identifier, numbers_within
from data_modules.reading.picture_source import PictureSource
from data_modules.reading.pictures import Square

INLINE = "data:"  # what a picture that is written out as text begins with


class PagePictures(PictureSource):
    """Pictures of documents made of pages; a picture's key is its number, counted through all documents.

    Args:
        documents: a row for each, with the columns `row` (its page), `pictures` (paths, or names of columns) and
            `places` (-1 for a path, else the number in the column).
        pages: what they were made of.
        folder: that paths are relative to; None for that of the file with the page.
        to: what they become.
    """

    def __init__(self, documents: datasets.Dataset, pages: Pages, folder: Path | None, to: Square) -> None:
        self.pages, self.folder, self.to = pages, folder, to
        self.rows, self.names, self.places = (Column(documents, name) for name in ("row", "pictures", "places"))
        self.starts = np.cumsum([0, *self.names.lengths()], dtype=np.int64)

    def keys(self, document: int) -> range:
        """Those of a document's pictures."""
        return range(int(self.starts[document]), int(self.starts[document + 1]))

    def _named(self, key: int) -> tuple[int, str, int]:
        """The page of a picture, its path or column, and its place in the column."""
        document = int(np.searchsorted(self.starts, key, side="right")) - 1
        number = key - int(self.starts[document])
        return self.rows[document], self.names[document][number], self.places[document][number]

    def read(self, keys: Sequence[int]) -> list[Tensor]:
        """(3, to.size, to.size) uint8 each."""
        return [self._picture(key) for key in keys]

    def _picture(self, key: int) -> Tensor:
        row, name, place = self._named(key)
        if place >= 0:
            return self.to.read(self._stored(row, name, place), self.origin(key))
        if name.startswith(INLINE):
            try:
                content = base64.b64decode(name.partition(",")[2], validate=True)
            except binascii.Error as error:
                raise BrokenFile(self.origin(key), f"it is not base64 ({error})") from error
            return self.to.read(content, self.origin(key))
        try:
            return self.to.read(str(self._path(row, name)))
        except BrokenFile as error:
            if is_absent(error, name):
                where = self.pages.path(row)
                raise BrokenFile(
                    f"'{where}' names '{name}', but there is no such file in '{self._folder(row)}'"
                ) from error
            raise

    def _stored(self, row: int, column: str, place: int) -> bytes:
        from pyarrow import types

        assert self.pages.stored is not None
        value = self.pages.stored.value(row, column)
        if types.is_list(value.type) or types.is_large_list(value.type):
            value = value[place]
        content: bytes = (value["bytes"] if types.is_struct(value.type) else value).as_py()
        return content

    def _folder(self, row: int) -> Path:
        return self.folder or Path(self.pages.path(row)).parent

    def _path(self, row: int, name: str) -> Path:
        return self._folder(row) / name

    def origin(self, key: int) -> str:
        """Path of a picture, or where its bytes are."""
        row, name, place = self._named(key)
        if place < 0 and not name.startswith(INLINE):
            return str(self._path(row, name))
        return f"picture {max(place, 0)} of entry {row} of {self.pages.path(row)}"

    def identities(self, keys: np.ndarray) -> np.ndarray:
        """See `PictureSource.identities`; a picture that is written out as text is what it says."""
        identifier = Identifier(self.root, self.to.size, *([self.to.cut] if self.to.cut else []))
        documents = np.searchsorted(self.starts, keys, side="right") - 1
        rows, names, places = self.rows.all()[documents], self.names.flat()[keys], self.places.flat()[keys]
        found, stored = np.empty(len(keys), np.uint64), np.flatnonzero(places >= 0)
        for i in np.flatnonzero(places < 0).tolist():
            inline = names[i].startswith(INLINE)
            path = "" if inline else str(self._path(int(rows[i]), names[i]))
            found[i] = identifier.text(names[i]) if inline else identifier.present(path)
        if len(stored):
            found[stored] = self._stored_identities(rows[stored], names[stored], places[stored], identifier)
        return found

    def _stored_identities(
        self, rows: np.ndarray, names: np.ndarray, places: np.ndarray, identifier: Identifier
    ) -> np.ndarray:
        """(n,) uint64 of pictures by their pages, columns and places there."""
        assert self.pages.stored is not None
        tables = np.array(self.pages.stored.numbers(identifier), np.uint64)
        files = np.searchsorted(self.pages.starts, rows, side="right") - 1
        columns, which = np.unique(names.astype(str), return_inverse=True)
        of_column = np.array([identifier.text("column", name) for name in columns], np.uint64)[which]
        of_row = numbers_within(tables[files], rows - self.pages.starts[files])
        return numbers_within(of_row ^ of_column, places)
