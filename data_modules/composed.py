"""Documents of texts and pictures in any order, laid out once and memory-mapped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_modules.dataset import DocumentDataset, DocumentFormat, Draw
from data_modules.reading.layout import segments
from lit_mm.sequence import Document

if TYPE_CHECKING:
    import datasets

    from data_modules.reading.page_pictures import PagePictures
    from data_modules.reading.pages import Pages


class ComposedDataset(DocumentDataset):
    """Documents that are laid out (see `data_modules.reading.layout`), with pictures that are read when drawn.

    Args:
        source: name of the source.
        documents: a row for each, with the columns of `PagePictures`, and `ids`, `learned` and `positions`.
        pages: what they were made of.
        pictures: those of the documents.
        format: tokenizer and picture size.

    Attributes:
        skipped_at_setup: pages left out because they cannot be used.
    """

    lengths: np.ndarray

    def __init__(
        self, source: str, documents: datasets.Dataset, pages: Pages, pictures: PagePictures, format: DocumentFormat
    ) -> None:
        from data_modules.reading.columns import Column

        self.source, self.format = source, format
        self.ids, self.learned = Column(documents, "ids"), Column(documents, "learned")
        self.page_pictures = self.pictures = pictures
        self.skipped_at_setup, self.files = pages.skipped, pages.files
        self.lengths = Column(documents, "positions").all()[None].astype(np.int32)

    def document(self, draw: Draw) -> Document:
        """One document."""
        ids, learned = self.laid_out(draw)
        frames = self.frames(self.keys_of(draw))
        return Document(segments(ids, learned, frames), self.source)

    def keys_of(self, draw: Draw) -> range:
        """Of all its pictures."""
        return self.page_pictures.keys(draw.index)

    def laid_out(self, draw: Draw) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and marks of a document, and which are predicted."""
        return self.ids.numbers(draw.index), np.array(self.learned[draw.index], bool)

    def picture_keys(self) -> np.ndarray:
        """Those of all documents."""
        return np.arange(self.page_pictures.starts[-1])


def folder_of(pictures: str | None) -> Path | None:
    """The folder that is named in YAML."""
    return None if pictures is None else Path(pictures).expanduser()
