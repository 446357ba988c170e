"""Pairs of tars that stay where they are: captions from their indexes, pictures by their places in the tars."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from data_modules.index.keys import key_of_texts
from data_modules.index.making import opened_view
from data_modules.index.pair_index import PairFields, index_pairs
from data_modules.index.ranges import RangeReader
from data_modules.index.sidecars import Indexing, Sidecar
from data_modules.index.source_view import SourceView, make_view
from data_modules.index.storage import InputFile
from data_modules.reading.code import code_of
from data_modules.reading.cropping import CENTRE, Cropping, Cut
from data_modules.reading.lengths import MappedLengths
from data_modules.reading.pairs import PairCounts, Pairs
from data_modules.reading.picture_source import READING, PictureSource
from data_modules.reading.pictures import read_picture
from lit_mm.tokenizer import Tokenizer


def pair_sidecars(files: Sequence[InputFile], fields: PairFields, tokenizer: Tokenizer, cache: Path) -> Indexing:
    """The indexes of tars of pairs, and what makes them.

    Args:
        files: the tars.
        fields: what is looked for in them.
        tokenizer: of the captions.
        cache: folder of all indexes.
    """
    depends_on = f"pairs {code_of(index_pairs)} {fields} {tokenizer.fingerprint()}"
    sidecars = [Sidecar.of(file, depends_on, cache) for file in files]
    return Indexing(sidecars, partial(index_pairs, fields=fields, tokenizer=tokenizer))


class IndexedPairs(Pairs):
    """Pairs of indexed tars.

    Args:
        view: of their indexes.
        size: side of a picture in pixels.
        ranges: reads the tars.
        cropping: how drawn pictures become squares.
    """

    def __init__(self, view: SourceView, size: int, ranges: RangeReader, cropping: Cropping = CENTRE) -> None:
        self.view = view
        self.pictures: PictureSource = TarPictures(view, size, ranges, cropping)
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


class TarPictures(PictureSource):
    """Pictures inside tars, each read by its place there.

    Args:
        view: of the tars' indexes.
        size: side of a picture in pixels.
        ranges: reads the tars.
        cropping: how drawn pictures become squares.
    """

    def __init__(self, view: SourceView, size: int, ranges: RangeReader, cropping: Cropping = CENTRE) -> None:
        self.view, self.size, self.ranges = view, size, ranges
        self.cropping, self.cut_anew = cropping, cropping.rule == "random"

    def _place(self, key: int) -> tuple[InputFile, int, int]:
        number, row = self.view.locate(key)
        index = self.view.index(number)
        return self.view.sidecars[number].file, int(index["offset"][row]), int(index["size"][row])

    def read(self, keys: Sequence[int]) -> list[Tensor]:
        """(3, size, size) uint8 each, cut without chance."""
        return [self._picture(key, self.cropping.still) for key in keys]

    def ahead(self, keys: Sequence[int]) -> None:
        """Have them on their way."""
        for key in keys:
            self.ranges.ahead(*self._place(key))

    def read_drawn(self, keys: Sequence[int], seed: int) -> list[Tensor]:
        """(3, size, size) uint8 each, cut as the seed has it."""
        return [self._picture(key, self.cropping.cut(seed, number)) for number, key in enumerate(keys)]

    def _picture(self, key: int, cut: Cut | None = None) -> Tensor:
        file, offset, size = self._place(key)
        return read_picture(self.ranges.read(file, offset, size), self.size, self.origin(key), cut)

    def origin(self, key: int) -> str:
        """The tar, and where in it the picture begins."""
        file, offset, _ = self._place(key)
        return f"{file.path} at byte {offset}"

    def identity(self) -> str:
        """Of the tars as they were when they were indexed."""
        return key_of_texts(
            [str(READING), str(self.size), *self.cropping.named, *(sidecar.name for sidecar in self.view.sidecars)]
        )[:16]


def open_pairs(indexing: Indexing, with_bare: bool, cache: Path, key: str) -> SourceView:
    """Index what is not indexed yet, and open all of it.

    Args:
        indexing: of the tars.
        with_bare: whether pairs without a caption are wanted.
        cache: folder of all indexes.
        key: the YAML key, for messages.

    Raises:
        BrokenFile: a tar cannot be read at all.
    """
    sidecars = indexing.sidecars
    return opened_view(
        lambda: SourceView(sidecars, with_bare, cache), lambda: make_view(sidecars, with_bare, cache), indexing, key
    )
