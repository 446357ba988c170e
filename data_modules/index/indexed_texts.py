"""Texts of files that stay where they are, from the tokens in their indexes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from data_modules.index.making import opened_view
from data_modules.index.sidecars import Indexing, Sidecar
from data_modules.index.storage import InputFile
from data_modules.index.text_files import text_parts
from data_modules.index.text_index import index_text
from data_modules.index.text_view import TextView, make_text_view
from data_modules.reading.code import code_of
from data_modules.reading.lengths import MappedLengths
from data_modules.reading.text_windows import TextWindows
from lit_mm.tokenizer import Tokenizer


def text_sidecars(files: Sequence[InputFile], column: str, tokenizer: Tokenizer, cache: Path) -> Indexing:
    """The indexes of files of texts, and what makes them.

    Args:
        files: JSON Lines or Parquet.
        column: that holds the texts.
        tokenizer: of them.
        cache: folder of all indexes.
    """
    depends_on = f"texts {code_of(index_text)} {column} {tokenizer.fingerprint()}"
    sidecars = [Sidecar.of(part, depends_on, cache) for file in files for part in text_parts(file)]
    return Indexing(sidecars, partial(index_text, column=column, tokenizer=tokenizer))


class IndexedTexts(TextWindows):
    """Windows of indexed texts.

    Args:
        view: of their indexes.
    """

    def __init__(self, view: TextView) -> None:
        self.view = view
        self.lengths = MappedLengths(view.lengths_file, (True,), (0,), view.longest)
        self.bytes_per_token = view.totals.bytes / max(1, view.totals.tokens)
        files = {s.file.path: (s.file.path, s.file.size, s.file.changed) for s in view.indexes.sidecars}
        self.files = tuple(files.values())

    def ids(self, window: int) -> np.ndarray:
        """Tokens of a window."""
        return self.view.ids(window)


def open_texts(indexing: Indexing, window: int, cache: Path, key: str) -> TextView:
    """Index what is not indexed yet, and open all of it.

    Args:
        indexing: of the files.
        window: most tokens of a window.
        cache: folder of all indexes.
        key: the YAML key, for messages.

    Raises:
        BrokenFile: a file cannot be read at all.
    """
    sidecars = indexing.sidecars
    return opened_view(
        lambda: TextView(sidecars, window, cache), lambda: make_text_view(sidecars, window, cache), indexing, key
    )
