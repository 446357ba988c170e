"""Pictures with captions: image folders, JSON Lines or Parquet, WebDataset tars, or a data set of the Hub."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from data_modules.base import DocumentDataModule, Split
from data_modules.dataset import BrokenFile, DocumentDataset, DocumentFormat, Draw
from data_modules.index.indexed_pairs import IndexedPairs, open_pairs, pair_sidecars
from data_modules.index.input_files import find_input_files
from data_modules.index.pair_index import PairFields, fields_of_tar
from data_modules.index.sidecars import Indexing
from data_modules.index.storage import is_remote
from data_modules.prompting.prompt_items import PICTURE_SUFFIXES
from data_modules.reading.cropping import CENTRE, Cropping
from data_modules.reading.files import find_files, is_on_hub, say, settle_broken, stamp, warn
from data_modules.reading.findings import note_lost
from data_modules.reading.pair_table import PairTable
from data_modules.reading.pairs import PairCounts, Pairs
from data_modules.reading.table_pairs import TablePairs
from lit_mm.mistake import MissingFile, Mistake
from lit_mm.sequence import Document, Text
from lit_mm.tokenizer import Tokenizer

TAR = ".tar"
SUFFIXES = (".jsonl", ".ndjson", ".csv", ".parquet", TAR)
FILE_NAME = "file_name"  # the column that names the picture in a Hugging Face image folder
LONGEST = 65535  # tokens of a caption, as many as an index can say


class ImageTextDataModule(DocumentDataModule):
    """Pictures and captions; most are shown caption first (to learn to draw), the rest picture first (to describe).

    Files: a Hugging Face image folder (pictures and a metadata.jsonl or .csv with `file_name` and a caption), JSON
    Lines or CSV with the picture's path (relative to that file), Parquet with its bytes or path, or WebDataset tars,
    which are indexed and read where they are, also from `s3://`, `https://` and other storage that fsspec knows. Pairs
    without a caption are left out, and their number is said.

    Args:
        train: file, folder, pattern such as `data/*.tar`, or Hub name such as `hf://owner/name`
            (`hf://owner/name/config:split` where a configuration or another split is meant).
        val: the same for validation; none by default. A Hub name without a split means its `validation`.
        image_column: column with the picture, `image` by default; image folders have it in `file_name`. In tars its
            ending such as `jpg`, or several such as `jpg;png`; any picture by default.
        caption_column: column with the caption, `caption` by default. In tars its ending, `txt` by default, or the key
            of a JSON member such as `json.caption`.
        caption_first: share of draws with the caption before the picture, in [0, 1]; Transfusion's by default (arXiv
            2408.11039; ours: the paper has a source for each direction and states no shares).
        condition_dropout: share of the caption-first draws that lose their caption, which guidance needs (paper).
        max_caption: longer captions are cut to so many tokens.
        without_caption: what happens to pictures of tars that have no caption: they are left out, or shown like those
            that lose theirs.
        crop: how training pictures become squares; their centres by default.
    """

    def __init__(
        self,
        train: str,
        val: str | None = None,
        image_column: str | None = None,
        caption_column: str | None = None,
        caption_first: float = 0.8,
        condition_dropout: float = 0.1,
        max_caption: int = 128,
        without_caption: Literal["leave_out", "unconditional"] = "leave_out",
        crop: Cropping = CENTRE,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, share in {"caption_first": caption_first, "condition_dropout": condition_dropout}.items():
            if not 0 <= share <= 1:
                raise Mistake(f"{name}: {share} is not a share; give a number from 0 to 1")
        if not 1 <= max_caption <= LONGEST:
            raise Mistake(f"max_caption: {max_caption} tokens; give 1 to {LONGEST}")
        self.paths: dict[Split, str | None] = {"train": train, "val": val}
        self.tar_fields: PairFields = fields_of_tar(image_column, caption_column, max_caption)
        self.image_column = image_column or "image"
        self.caption_column = caption_column or "caption"
        self.shares = (caption_first * (1 - condition_dropout), caption_first * condition_dropout, 1 - caption_first)
        self.max_caption = max_caption
        self.without_caption, self.crop = without_caption, crop

    def dataset(self, split: Split, source: str, format: DocumentFormat) -> ImageTextDataset | None:
        """Pairs of one split; captions are tokenized once, pictures are read when drawn."""
        path = self.paths[split]
        if path is None:
            return None
        key = f"{self.key}.{split}"
        self.crop.check(f"{self.key}.crop", format.image_size)
        indexing = self.indexing(split, format.tokenizer)
        if indexing is not None:
            pairs: Pairs = self._indexed(path, split, indexing, format)
        else:
            pairs = self._tables(path, split, format)
        if cut := pairs.counts.cut:
            say("%s: %d of %d captions are cut to %d tokens (max_caption)", key, cut, len(pairs), self.max_caption)
        return ImageTextDataset(source, pairs, self.shares, format)

    def _cropping(self, split: Split) -> Cropping:
        return self.crop if split == "train" else CENTRE

    def indexing(self, split: Split, tokenizer: Tokenizer) -> Indexing | None:
        """The indexes of one split where it is in tars, and what makes them."""
        path, key = self.paths[split], f"{self.key}.{split}"
        if path is None or not _are_tars(path, key):
            return None
        return pair_sidecars(find_input_files(path, (TAR,), key), self.tar_fields, tokenizer, self.cache)

    def _indexed(self, path: str, split: Split, indexing: Indexing, format: DocumentFormat) -> Pairs:
        key = f"{self.key}.{split}"
        unconditional = self.without_caption == "unconditional"
        view = open_pairs(indexing, unconditional, self.cache, key)
        totals = view.totals
        if totals.report is not None:
            everything = totals.captioned + totals.bare + totals.lost
            settle_broken(BrokenFile(*totals.report), totals.lost, everything, key, self.tolerance)
        if totals.bare:
            done = "shown without one" if unconditional else "left out"
            pairs = totals.captioned + totals.bare
            warn("%s: %d of %d pairs have no caption and are %s", key, totals.bare, pairs, done)
            note_lost("without a caption", 0 if unconditional else totals.bare)
        if totals.guessed:
            warn("%s: %d captions are not UTF-8 and are read as Latin-1", key, totals.guessed)
        if not len(view):
            raise Mistake(f"{key}: '{path}' holds no pairs: {self.tar_fields.sought}, but {view.totals.members}")
        return IndexedPairs(view, format.image_size, self._cropping(split))

    def _tables(self, path: str, split: Split, format: DocumentFormat) -> Pairs:
        key = f"{self.key}.{split}"
        parts, skipped = self._parts(path, split, key)
        tokenized = [part.tokenize(format.tokenizer, self.max_caption, key) for part in parts]
        total = sum(len(part.rows) for part in tokenized)
        if not total:
            raise Mistake(f"{key}: '{path}' holds no pairs")
        captioned = sum(int(np.count_nonzero(part.lengths)) for part in tokenized)
        if not captioned:
            raise Mistake(f"{key}: none of the {total} pairs of '{path}' has a caption in '{self.caption_column}'")
        if uncaptioned := total - captioned - sum(part.lost for part in tokenized):
            warn("%s: left out %d of %d pairs, which have no caption", key, uncaptioned, total)
            note_lost("without a caption", uncaptioned)
        counts = PairCounts(skipped, uncaptioned, sum(part.cut for part in tokenized))
        files = [file for part in parts for file in part.files if file.is_file()]
        return TablePairs(tokenized, format.image_size, counts, stamp(files), self._cropping(split))

    def _parts(self, path: str, split: Split, key: str) -> tuple[list[PairTable], int]:
        from data_modules.reading.records import check_column, keeps_broken, load_hub, load_records

        if is_on_hub(path, (TAR,)):
            rows = load_hub(path, "train" if split == "train" else "validation", key)
            for column in (self.image_column, self.caption_column):
                check_column(rows, column, f"'{path}'", key)
            return [PairTable(rows, self.image_column, self.caption_column, [Path(path)])], 0
        parts: list[PairTable] = []
        skipped = 0
        for _, group in groupby(_found(path, key), lambda f: f.parent):
            files = list(group)
            image = FILE_NAME if all(f.name.startswith("metadata.") for f in files) else self.image_column
            columns = (image, self.caption_column)
            rows, left_out = load_records(files, columns, key, self.tolerance, optional=columns[1:])
            lost = left_out if keeps_broken(files[0]) else 0
            parts.append(PairTable(rows, image, self.caption_column, files, lost))
            skipped += left_out
        return parts, skipped


def _are_tars(path: str, key: str) -> bool:
    """Whether a path names tars alone.

    Raises:
        MissingFile: it names nothing that can be read.
        Mistake: it names tars and tables.
    """
    if is_remote(path):
        return not is_on_hub(path, (TAR,))
    kinds = {file.suffix.lower() == TAR for file in _found(path, key)}
    if len(kinds) > 1:
        raise Mistake(f"{key}: '{path}' holds tars and tables; name those of one format with a pattern")
    return kinds == {True}


def _found(path: str, key: str) -> list[Path]:
    try:
        return find_files(path, SUFFIXES, key, PICTURE_SUFFIXES)
    except MissingFile as error:
        folder = Path(path).expanduser()
        count = sum(file.suffix.lower() in PICTURE_SUFFIXES for file in folder.rglob("*")) if folder.is_dir() else 0
        if not count:
            raise
        raise MissingFile(
            f"{error}, but {count} pictures; write a metadata.jsonl beside them, a line for each: "
            '{"file_name": "1.png", "caption": "a red cube"}'
        ) from error


class ImageTextDataset(DocumentDataset):
    """Pairs in three variants.

    Attributes:
        variants: their names, in the order of `lengths`.
        skipped_at_setup: pairs left out because they cannot be read.
    """

    variants = ("caption_first", "unconditional", "image_first")

    def __init__(self, source: str, pairs: Pairs, shares: tuple[float, ...], format: DocumentFormat) -> None:
        self.source, self.pairs = source, pairs
        self.pictures = pairs.pictures
        self.shares = shares
        self.format = format
        self.skipped_at_setup, self.files = pairs.counts.lost, pairs.files
        bare = 2 + format.bracketed_frames(1)
        self.lengths = pairs.lengths((True, False, True), (bare, bare, bare))

    def document(self, draw: Draw) -> Document:
        """One pair; see `variants`. One without a caption is unconditional in each."""
        t, caption = self.format.tokenizer, self.pairs.caption_ids(draw.index)
        variant = self.variants[draw.variant] if caption else "unconditional"
        clean = int(variant == "image_first")
        frames = self.frames([self.pairs.picture_key(draw.index)], clean, draw.seed)
        if variant == "unconditional":
            caption = []
        if variant == "caption_first":
            opening = Text(torch.tensor([t.bos_id, *caption, t.boi_id]))
            return Document((opening, *frames, Text(t.ids(t.eoi_id, t.eos_id))), self.source)
        # That a document begins with a picture is our choice, nothing to be learned.
        opening = Text(t.ids(t.bos_id, t.boi_id), loss=False)
        closing = Text(torch.tensor([t.eoi_id, *caption, t.eos_id]))
        return Document((opening, *frames, closing), self.source)

    @property
    def picture_count(self) -> int:
        """One for each pair."""
        return len(self)

    def picture_keys(self) -> np.ndarray:
        """Those of all pairs."""
        return self.pairs.picture_keys()
