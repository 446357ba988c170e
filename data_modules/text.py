"""Plain text: JSON Lines and Parquet where they are, text files, or a data set of the Hugging Face Hub."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from data_modules.base import DocumentDataModule
from data_modules.dataset import BrokenFile, DocumentDataset, DocumentFormat, Draw
from data_modules.index.making import missing_of
from data_modules.index.sidecars import Indexing
from data_modules.index.storage import is_remote
from data_modules.index.text_files import INDEXED, PARQUET, hold_an_array
from data_modules.index.unpacked_shards import open_shards, unpacking
from data_modules.mixing.mixture import Mixture
from data_modules.reading.files import Stamps, Tolerance, is_on_hub, listed, settle_broken
from data_modules.reading.text_windows import TableWindows, TextWindows
from data_modules.reading.token_shards import ShardFile, holds_tokens, shard_files
from data_modules.reading.token_windows import TokenWindows
from data_modules.source import Source, Split
from lit_mm.mistake import Mistake
from lit_mm.sequence import Document, Text
from lit_mm.tokenizer import Tokenizer

if TYPE_CHECKING:
    import datasets

TABLES = {".csv": "CSV", ".txt": "text", ".txt.gz": "text"}  # tokenized through `datasets`
SUFFIXES = (*INDEXED, *TABLES)


class TextSource(Source):
    """Text documents, `<bos> text <eos>`.

    Files: JSON Lines (.jsonl, .ndjson, .json, also .gz or .zst), JSON arrays, Parquet or CSV with one document a row,
    or .txt (also .gz) with one document a file. JSON Lines and Parquet are tokenized once and left where they are,
    also on `s3://`, `https://` and other storage that fsspec knows. Tokens of other programs are taken as they are:
    Megatron's .bin and .idx, and folders with the `index.json` of MDS or of litData's tokens, which may be compressed
    or on other machines.

    Args:
        train: file, folder, pattern such as `data/part-*.jsonl`, or Hub name such as `hf://roneneldan/TinyStories`
            (`hf://owner/name/config:split` where a configuration or another split is meant).
        val: the same for validation; none by default. A Hub name without a split means its `validation`.
        column: key or column that holds the text, or an MDS' tokens.
        window: long documents are cut into pieces of at most so many tokens, which are shuffled on their own; the
            row length is a good choice.
    """

    def __init__(self, train: str, val: str | None = None, column: str = "text", window: int = 512) -> None:
        super().__init__()
        if window < 3:
            raise Mistake(f"window: {window} tokens cannot hold <bos>, text and <eos>; give 3 or more")
        self.paths: dict[Split, str | None] = {"train": train, "val": val}
        self.column = column
        self.window = window

    def dataset(self, split: Split, source: str, format: DocumentFormat) -> TextDataset | None:
        """Tokenized documents of one split; see `DocumentDataModule.dataset`."""
        from data_modules.index.indexed_texts import IndexedTexts, open_texts

        path = self.paths[split]
        if path is None:
            return None
        key = f"{self.key}.{split}"
        files = self._shard_files(path, key)
        if files is not None:
            shards = open_shards(files, self.cache, key)
            if not shards:
                raise Mistake(f"{key}: '{path}' holds no tokens")
            tokens = TokenWindows(shards, self.window, format.tokenizer.vocab_size)
            return TextDataset(source, tokens, 0)
        indexing = self.indexing(split, format.tokenizer)
        if indexing is None:
            return load_text(path, split, key, source, format.tokenizer, self)
        view = open_texts(indexing, self.window, self.cache, key)
        totals = view.totals
        report = totals.report and BrokenFile(*totals.report)
        skipped = settle_broken(report, totals.lost, totals.rows, key, self.tolerance)
        if not len(view):
            raise Mistake(f"{key}: '{path}' holds no text in column '{self.column}'")
        return TextDataset(source, IndexedTexts(view), skipped)

    def _shard_files(self, path: str, key: str) -> list[ShardFile] | None:
        """Of tokens; None where a path names other files."""

        def looking() -> list[ShardFile] | None:
            return shard_files(path, self.column, key) if holds_tokens(path) else None

        return self.listing.look(("tokens", path, self.column), looking)

    def indexing(self, split: Split, tokenizer: Tokenizer) -> Indexing | None:
        """The indexes of one split where it is read in place, and what makes them."""
        from data_modules.index.indexed_texts import text_sidecars
        from data_modules.index.text_rows import check_first

        path, key = self.paths[split], f"{self.key}.{split}"
        if path is None or is_on_hub(path, INDEXED):
            return None
        shards = self._shard_files(path, key)
        if shards is not None:
            return unpacking(shards, self.cache)
        files = self.listing.find(path, INDEXED if is_remote(path) else SUFFIXES, key)
        kinds = sorted({_kind(file.path) for file in files})
        if len(kinds) > 1:
            raise Mistake(f"{key}: there are {listed(kinds, 'and')} files; name those of one format with a pattern")
        if kinds[0] in TABLES.values():
            return None
        if hold_an_array(files):
            if is_remote(path):
                raise Mistake(f"{key}: '{files[0].path}' is a JSON array; copy it to a local disk, or write JSON Lines")
            return None
        indexing = text_sidecars(files, self.column, tokenizer, self.cache)
        if missing_of(indexing.sidecars[:1]):
            check_first(files[0], self.column, key)
        return indexing


class TextDataModule(DocumentDataModule):
    """Texts alone, see `TextSource`."""

    def mix(self, **mixed: Any) -> Mixture:
        """The source, of these arguments."""
        return Mixture.of_one(TextSource(**mixed))


def _kind(path: str) -> str:
    kinds = {PARQUET: "Parquet", **TABLES}
    return next((kind for ending, kind in kinds.items() if path.lower().endswith(ending)), "JSON")


class TextDataset(DocumentDataset):
    """Windows of tokens, memory-mapped.

    Args:
        source: its name.
        windows: the tokens.
        skipped: see the attribute.

    Attributes:
        bytes_per_token: UTF-8 bytes of the texts over their tokens: from nats per token to bits per byte.
        skipped_at_setup: documents left out because they cannot be read.
    """

    splittable = True

    def __init__(self, source: str, windows: TextWindows, skipped: int) -> None:
        self.source, self.windows = source, windows
        self.skipped_at_setup = skipped
        self.lengths, self.files = windows.lengths, windows.files

    def document(self, draw: Draw) -> Document:
        """One window; `<bos>` and `<eos>` stand only where its document begins and ends."""
        return Document((Text(torch.from_numpy(self.windows.ids(draw.index).astype(np.int64))),), self.source)

    @property
    def bytes_per_token(self) -> float:
        """See the class."""
        return self.windows.bytes_per_token


def load_text(path: str, split: Split, key: str, source: str, tokenizer: Tokenizer, module: TextSource) -> TextDataset:
    """Read and tokenize one split; both results are cached by `datasets`.

    Raises:
        BrokenFile: a document cannot be read, unless `module.tolerance` is `skip`.
        MissingFile, Mistake: a path, column or text is missing.
    """
    stamps = () if is_on_hub(path, INDEXED) else module.listing.stamps(path, SUFFIXES, key)
    rows, skipped = _read(path, stamps, split, key, module.column, module.tolerance)
    windows = _tokenize(rows, key, module.column, module.window, tokenizer)
    if not len(windows):
        raise Mistake(f"{key}: '{path}' holds no text in column '{module.column}'")
    return TextDataset(source, TableWindows(windows, stamps), skipped)


def _read(
    path: str, stamps: Stamps, split: Split, key: str, column: str, tolerance: Tolerance
) -> tuple[datasets.Dataset, int]:
    from data_modules.reading.records import (
        check_column,
        check_strings,
        first_null,
        load_hub,
        load_records,
    )

    if stamps:
        rows, skipped = load_records(stamps, (column,), key, tolerance)
    else:
        rows, skipped = load_hub(path, "train" if split == "train" else "validation", key), 0
        check_column(rows, column, f"'{path}'", key)
    check_strings(rows, column, key)
    if stamps:  # rows without text are known already, and have no text to be tokenized
        return rows, skipped
    first, nulls = first_null(rows, column, path)
    return rows, skipped + settle_broken(first, nulls, len(rows), key, tolerance)


def _tokenize(rows: datasets.Dataset, key: str, column: str, window: int, tokenizer: Tokenizer) -> datasets.Dataset:
    from datasets import Features, List, Value

    from data_modules.reading.cached import mapped

    settings = {"tokenizer": tokenizer, "column": column, "window": window}
    features = Features({"ids": List(Value("int32")), "bytes": Value("int64")})
    return mapped(rows, cut_into_windows, settings, features, f"{key}: tokenizing")


def cut_into_windows(
    batch: dict[str, list[str | None]], tokenizer: Tokenizer, column: str, window: int
) -> dict[str, list]:
    """Texts to rows of at most `window` ids, as even as can be; empty texts, and rows without one, are left out.

    The first row of a text has its size in UTF-8 bytes, the others 0.
    """
    texts = [text for text in batch[column] if text]
    pieces: list[list[int]] = []
    sizes: list[int] = []
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        whole = [tokenizer.bos_id, *ids, tokenizer.eos_id]
        count = -(-len(whole) // window)
        bounds = [len(whole) * i // count for i in range(count + 1)]
        pieces += [whole[a:b] for a, b in pairwise(bounds)]
        sizes += [len(text.encode("utf-8")), *[0] * (count - 1)]
    return {"ids": pieces, "bytes": sizes}
