"""Pictures with captions: image folders, JSON Lines or Parquet, WebDataset tars, or a data set of the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_modules.base import DocumentDataModule, Split
from data_modules.dataset import DocumentDataset, DocumentFormat, Draw
from data_modules.prompting.prompt_items import PICTURE_SUFFIXES
from data_modules.reading.files import find_files, say, stamp, warn
from data_modules.reading.pair_table import PairPictures, PairTable
from lit_mm.mistake import MissingFile, Mistake
from lit_mm.sequence import Document, Text

SUFFIXES = (".jsonl", ".ndjson", ".csv", ".parquet", ".tar")
FILE_NAME = "file_name"  # the column that names the picture in a Hugging Face image folder


class ImageTextDataModule(DocumentDataModule):
    """Pictures and captions; most are shown caption first (to learn to draw), the rest picture first (to describe).

    Files: a Hugging Face image folder (pictures and a metadata.jsonl or .csv with `file_name` and a caption), JSON
    Lines or CSV with the picture's path (relative to that file), Parquet with its bytes or path, or WebDataset tars
    (there `image_column` and `caption_column` are endings, such as `jpg` and `txt`). Pairs without a caption are left
    out, and their number is said.

    Args:
        train: file, folder, pattern such as `data/*.tar`, or Hub name such as `hf://owner/name`
            (`hf://owner/name/config:split` where a configuration or another split is meant).
        val: the same for validation; none by default. A Hub name without a split means its `validation`.
        image_column: column with the picture; image folders have it in `file_name`.
        caption_column: column with the caption.
        caption_first: share of draws with the caption before the picture, in [0, 1]; Transfusion's by default (arXiv
            2408.11039; ours: the paper has a source for each direction and states no shares).
        condition_dropout: share of the caption-first draws that lose their caption, which guidance needs (paper).
        max_caption: longer captions are cut to so many tokens.
    """

    def __init__(
        self,
        train: str,
        val: str | None = None,
        image_column: str = "image",
        caption_column: str = "caption",
        caption_first: float = 0.8,
        condition_dropout: float = 0.1,
        max_caption: int = 128,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, share in {"caption_first": caption_first, "condition_dropout": condition_dropout}.items():
            if not 0 <= share <= 1:
                raise Mistake(f"{name}: {share} is not a share; give a number from 0 to 1")
        if max_caption < 1:
            raise Mistake(f"max_caption: {max_caption} tokens hold no caption; give 1 or more")
        self.paths: dict[Split, str | None] = {"train": train, "val": val}
        self.image_column = image_column
        self.caption_column = caption_column
        self.shares = (caption_first * (1 - condition_dropout), caption_first * condition_dropout, 1 - caption_first)
        self.max_caption = max_caption

    def dataset(self, split: Split, source: str, format: DocumentFormat) -> ImageTextDataset | None:
        """Pairs of one split; captions are tokenized once, pictures are read when drawn."""
        path = self.paths[split]
        if path is None:
            return None
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
        if cut := sum(part.cut for part in tokenized):
            say("%s: %d of %d captions are cut to %d tokens (max_caption)", key, cut, captioned, self.max_caption)
        dataset = ImageTextDataset(source, tokenized, self.shares, format, skipped)
        dataset.files = stamp([file for part in parts for file in part.files if file.is_file()])
        return dataset

    def _parts(self, path: str, split: Split, key: str) -> tuple[list[PairTable], int]:
        from data_modules.reading.records import HUB, check_column, is_json, load_hub, load_records

        if path.startswith(HUB):
            rows = load_hub(path, "train" if split == "train" else "validation", key)
            for column in (self.image_column, self.caption_column):
                check_column(rows, column, f"'{path}'", key)
            return [PairTable(rows, self.image_column, self.caption_column, [Path(path)])], 0
        parts: list[PairTable] = []
        skipped = 0
        for _, group in groupby(_tables(path, key), lambda f: f.parent):
            files = list(group)
            image = FILE_NAME if all(f.name.startswith("metadata.") for f in files) else self.image_column
            columns = (image, self.caption_column)
            rows, left_out = load_records(files, columns, key, self.tolerance, optional=columns[1:])
            lost = left_out if is_json(files[0]) else 0
            parts.append(PairTable(rows, image, self.caption_column, files, lost))
            skipped += left_out
        return parts, skipped


def _tables(path: str, key: str) -> list[Path]:
    try:
        return find_files(path, SUFFIXES, key)
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

    def __init__(
        self,
        source: str,
        parts: Sequence[PairTable],
        shares: tuple[float, ...],
        format: DocumentFormat,
        skipped: int,
    ) -> None:
        self.source = source
        self.pictures: PairPictures = PairPictures(parts, format.image_size)
        self.shares = shares
        self.format = format
        self.skipped_at_setup = skipped
        captions = np.concatenate([part.lengths for part in parts])
        self.kept = None if (captions > 0).all() else np.flatnonzero(captions > 0)
        captions = captions if self.kept is None else captions[self.kept]
        bare = 2 + format.bracketed_frames(1)
        self.lengths = np.stack([captions + bare, np.full_like(captions, bare), captions + bare]).astype(np.int32)

    def document(self, draw: Draw) -> Document:
        """One pair; see `variants`."""
        index = draw.index if self.kept is None else int(self.kept[draw.index])
        part, row = self.pictures.locate(index)
        variant, t = self.variants[draw.variant], self.format.tokenizer
        frames = self.frames([index], clean=variant == "image_first")
        caption = [] if variant == "unconditional" else part.caption_ids(row)
        if variant == "caption_first":
            opening = Text(torch.tensor([t.bos_id, *caption, t.boi_id]))
            return Document((opening, *frames, Text(t.ids(t.eoi_id, t.eos_id))), self.source)
        # That a document begins with a picture is our choice, nothing to be learned.
        opening = Text(t.ids(t.bos_id, t.boi_id), loss=False)
        closing = Text(torch.tensor([t.eoi_id, *caption, t.eos_id]))
        return Document((opening, *frames, closing), self.source)

    def picture_keys(self) -> np.ndarray:
        """Rows that have a caption."""
        return np.arange(self.pictures.starts[-1]) if self.kept is None else self.kept
