"""Pictures with captions: image folders, JSON Lines or Parquet, WebDataset tars, or a data set of the Hub."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from data_modules.base import DocumentDataModule, Split
from data_modules.dataset import BrokenFile, DocumentDataset, DocumentFormat, Draw
from data_modules.files import find_files, settle_broken
from data_modules.pictures import read_picture
from lit_mm.sequence import Document, Frame, Text
from lit_mm.tokenizer import Tokenizer

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger(__name__)

SUFFIXES = (".jsonl", ".ndjson", ".csv", ".parquet", ".tar")
FILE_NAME = "file_name"  # the column that names the picture in a Hugging Face image folder


class ImageTextDataModule(DocumentDataModule):
    """Pictures and captions; most are shown caption first (to learn to draw), the rest picture first (to describe).

    Files: a Hugging Face image folder (pictures and a metadata.jsonl or .csv with `file_name` and a caption), JSON
    Lines or CSV with the picture's path (relative to that file), Parquet with its bytes or path, or WebDataset tars
    (there `image_column` and `caption_column` are endings, such as `jpg` and `txt`).

    Args:
        train: file, folder, pattern such as `data/*.tar`, or Hub name such as `hf://owner/name`
            (`hf://owner/name/config:split` where a configuration or another split is meant).
        val: the same for validation; none by default. A Hub name without a split means its `validation`.
        image_column: column with the picture; image folders have it in `file_name`.
        caption_column: column with the caption.
        caption_first: share of draws with the caption before the picture, in [0, 1].
        condition_dropout: share of the caption-first draws that lose their caption, which guidance needs.
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
                raise ValueError(f"{name}: {share} is not a share; give a number from 0 to 1")
        if max_caption < 1:
            raise ValueError(f"max_caption: {max_caption} tokens hold no caption; give 1 or more")
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
        key = f"{source}.{split}"
        parts, skipped = self._parts(path, split, key)
        tokenized = [part.tokenize(format.tokenizer, self.max_caption, key) for part in parts]
        if not any(len(part.rows) for part in tokenized):
            raise ValueError(f"{key}: '{path}' holds no pairs")
        empty = [BrokenFile(part.where, f"row {i} has no caption") for part in tokenized for i in part.empty]
        total = sum(len(part.rows) for part in tokenized)
        skipped += settle_broken(empty, total, key, self.on_error)
        cut = sum(part.cut for part in tokenized)
        if cut:
            logger.info("%s: %d of %d captions are cut to %d tokens (max_caption)", key, cut, total, self.max_caption)
        return ImageTextDataset(source, tokenized, self.shares, format, skipped)

    def _parts(self, path: str, split: Split, key: str) -> tuple[list[PairTable], int]:
        from data_modules.records import HUB, check_column, load_hub, load_records

        if path.startswith(HUB):
            rows = load_hub(path, "train" if split == "train" else "validation", key)
            for column in (self.image_column, self.caption_column):
                check_column(rows, column, f"'{path}'", key)
            return [PairTable(rows, self.image_column, self.caption_column, [Path(path)])], 0
        parts: list[PairTable] = []
        skipped = 0
        for _, group in groupby(find_files(path, SUFFIXES, key), lambda f: f.parent):
            files = list(group)
            image = FILE_NAME if all(f.name.startswith("metadata.") for f in files) else self.image_column
            rows, left_out = load_records(files, (image, self.caption_column), key, self.on_error)
            parts.append(PairTable(rows, image, self.caption_column, files))
            skipped += left_out
        return parts, skipped


class PairTable:
    """Rows of pictures and captions from files of one folder.

    Args:
        rows: the table; its picture column may hold a path, the file's bytes, or `datasets`' {bytes, path}.
        image: name of the picture column.
        caption: name of the caption column.
        files: where the rows come from; paths of pictures are relative to their folder.
    """

    def __init__(self, rows: datasets.Dataset, image: str, caption: str, files: Sequence[Path]) -> None:
        self.rows, self.image, self.caption, self.files = rows, image, caption, files
        self.where = files[0] if len(files) == 1 else files[0].parent
        self.raw = rows.with_format("arrow")  # as stored: `datasets` would decode the picture itself
        self.ids: datasets.Dataset | None = None
        self.empty: list[int] = []
        self.cut = 0

    def tokenize(self, tokenizer: Tokenizer, longest: int, key: str) -> PairTable:
        """Tokenize the captions (cached by `datasets`), and find the empty ones.

        Raises:
            BrokenFile: a caption is not UTF-8.
            ValueError: the captions are not strings.
        """
        from datasets import Features, List, Value

        from data_modules.records import check_strings, find_broken

        check_strings(self.rows, self.caption, key)
        captions = self.rows.select_columns([self.caption])
        try:
            self.ids = captions.map(
                tokenize_captions,
                fn_kwargs={"tokenizer": tokenizer, "column": self.caption, "longest": longest},
                batched=True,
                remove_columns=[self.caption],
                features=Features({"ids": List(Value("int32")), "cut": Value("bool")}),
                desc=f"{key}: tokenizing captions",
            )
        except UnicodeDecodeError as error:
            raise find_broken(self.files, (self.image, self.caption)) from error
        self.empty = np.flatnonzero(self.lengths == 0).tolist()
        self.cut = int(np.count_nonzero(self.ids.data.column("cut").to_numpy()))
        return self

    @property
    def lengths(self) -> np.ndarray:
        """(rows,) int32, tokens of each caption."""
        assert self.ids is not None
        chunks = self.ids.data.column("ids").chunks
        return np.concatenate([np.zeros(0, np.int32), *(c.value_lengths().to_numpy() for c in chunks)])

    def caption_ids(self, row: int) -> list[int]:
        """Tokens of one caption."""
        assert self.ids is not None
        return self.ids.data.column("ids")[row].as_py()

    def picture(self, row: int, size: int) -> Tensor:
        """One picture, (3, size, size) uint8.

        Raises:
            BrokenFile: it cannot be read.
        """
        value = self.raw[row][self.image][0].as_py()
        path, content = (value.get("path"), value.get("bytes")) if isinstance(value, dict) else (value, None)
        if isinstance(path, bytes):
            path, content = f"picture {row}", path
        if content is not None:
            return read_picture(content, size, name=path or f"picture {row}")
        if path is None:
            raise BrokenFile(self.where, f"row {row} has no picture in '{self.image}'")
        return read_picture(self.files[0].parent / path, size)


def tokenize_captions(
    batch: dict[str, list[str | None]], tokenizer: Tokenizer, column: str, longest: int
) -> dict[str, list]:
    """Captions to ids, cut to `longest`."""
    ids = tokenizer.encode_batch([(caption or "").strip() for caption in batch[column]])
    return {"ids": [i[:longest] for i in ids], "cut": [len(i) > longest for i in ids]}


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
        self.parts = parts
        self.shares = shares
        self.format = format
        self.skipped_at_setup = skipped
        captions = np.concatenate([part.lengths for part in parts])
        self.starts = np.cumsum([0, *(len(part.rows) for part in parts)])
        self.kept = None if (captions > 0).all() else np.flatnonzero(captions > 0)
        captions = captions if self.kept is None else captions[self.kept]
        bare = 2 + format.bracketed_frames(1)
        self.lengths = np.stack([captions + bare, np.full_like(captions, bare), captions + bare]).astype(np.int32)

    def document(self, draw: Draw) -> Document:
        """One pair; see `variants`."""
        index = draw.index if self.kept is None else int(self.kept[draw.index])
        number = int(np.searchsorted(self.starts, index, side="right")) - 1
        part, row = self.parts[number], index - int(self.starts[number])
        picture = part.picture(row, self.format.image_size)
        variant, t = self.variants[draw.variant], self.format.tokenizer
        caption = [] if variant == "unconditional" else part.caption_ids(row)
        if variant == "caption_first":
            opening = Text(torch.tensor([t.bos_id, *caption, t.boi_id]))
            return Document((opening, Frame(picture), Text(t.ids(t.eoi_id, t.eos_id))), self.source)
        # That a document begins with a picture is our choice, nothing to be learned.
        opening = Text(t.ids(t.bos_id, t.boi_id), loss=False)
        closing = Text(torch.tensor([t.eoi_id, *caption, t.eos_id]))
        return Document((opening, Frame(picture, clean=variant == "image_first"), closing), self.source)
