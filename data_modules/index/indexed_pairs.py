"""Pairs of files that stay where they are: captions from their indexes, pictures by their places in the files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data_modules.index.making import opened_view
from data_modules.index.pair_index import PairFields, index_pairs
from data_modules.index.parquet_index import TableFields, index_parquet
from data_modules.index.sidecars import Indexing, Sidecar
from data_modules.index.source_view import SourceView, make_view
from data_modules.index.storage import InputFile
from data_modules.reading.code import code_of
from data_modules.reading.lengths import MappedLengths
from data_modules.reading.pairs import PairCounts, Pairs
from data_modules.reading.picture_source import PictureSource
from lit_mm.tokenizer import Tokenizer


def pair_sidecars(
    files: Sequence[InputFile], fields: PairFields | TableFields, tokenizer: Tokenizer, cache: Path
) -> Indexing:
    """The indexes of files of pairs, and what makes them.

    Args:
        files: tars, or with TableFields Parquet.
        fields: what is looked for in them.
        tokenizer: of the captions.
        cache: folder of all indexes.
    """
    indexer: Callable[..., Any] = index_pairs if isinstance(fields, PairFields) else index_parquet
    depends_on = f"pairs {code_of(indexer)} {fields} {tokenizer.fingerprint()}"
    sidecars = [Sidecar.of(file, depends_on, cache) for file in files]
    return Indexing(sidecars, partial(indexer, fields=fields, tokenizer=tokenizer))


class IndexedPairs(Pairs):
    """Pairs of indexed files.

    Args:
        view: of their indexes.
        pictures: theirs, by document.
    """

    def __init__(self, view: SourceView, pictures: PictureSource) -> None:
        self.view, self.pictures = view, pictures
        totals = view.totals
        self.counts = PairCounts(totals.lost, totals.bare, totals.cut)
        files = [sidecar.file for sidecar in view.sidecars]
        self.files = tuple((file.path, file.size, file.changed) for file in files)

    def __len__(self) -> int:
        return len(self.view)

    def lengths(self, captions: tuple[int | None, ...], constants: tuple[int, ...]) -> MappedLengths:
        """See `Pairs.lengths`."""
        uses, rows = [caption is not None for caption in captions], [caption or 0 for caption in captions]
        return MappedLengths(self.view.lengths_file, uses, constants, self.view.longest, rows)

    def caption_ids(self, pair: int, caption: int) -> list[int]:
        """Tokens of a caption."""
        number, row = self.view.locate(pair)
        index = self.view.index(number)
        start = int(index["starts"][row, caption])
        return index["ids"][start : start + int(index["tokens"][row, caption])].tolist()

    def picture_key(self, pair: int) -> int:
        """The pair itself: its pictures are counted as it is."""
        return pair

    def picture_keys(self) -> np.ndarray:
        """All of them."""
        return np.arange(len(self))


def open_pairs(indexing: Indexing, with_bare: bool, cache: Path, key: str) -> SourceView:
    """Index what is not indexed yet, and open all of it.

    Args:
        indexing: of the files.
        with_bare: whether pairs without a caption are wanted.
        cache: folder of all indexes.
        key: the YAML key, for messages.

    Raises:
        BrokenFile: a file cannot be read at all.
    """
    sidecars = indexing.sidecars
    return opened_view(
        lambda: SourceView(sidecars, with_bare, cache), lambda: make_view(sidecars, with_bare, cache), indexing, key
    )
