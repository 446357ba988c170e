"""The index of a part of a file of texts: their tokens, one text after the other."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, cast

import numpy as np

from data_modules.index.storage import FilePart, InputFile
from data_modules.index.text_files import Lost
from data_modules.index.text_rows import rows_of
from lit_mm.tokenizer import Tokenizer

_AT_ONCE = 4 << 20  # characters of texts that are tokenized at once
_SHOWN = 3  # broken rows that are named


def index_text(file: InputFile, column: str, tokenizer: Tokenizer) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read and tokenize a part of a file.

    Args:
        file: the part; see `text_parts`.
        column: that holds the texts.
        tokenizer: of them.

    Returns:
        Arrays:
            ids: uint16 or uint32, tokens of all texts, each between `<bos>` and `<eos>`.
            lengths: (texts,) uint32, tokens of each with both delimiters.
        Numbers: `texts`, `tokens` without delimiters, `bytes` of them in UTF-8, `rows` of the part, empty ones and
        blank lines included, `lost` of them, and `unread` bytes, which hold rows that nobody knows the number of; and
        `reports` on the first few: see `Lost`.

    Raises:
        OSError: the file can't be opened.
        BrokenFile: the storage does not give it.
    """
    kind = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
    counts = dict.fromkeys(("texts", "tokens", "bytes", "rows", "lost", "unread"), 0)
    reports: list[tuple[str, int, str]] = []
    ids: list[np.ndarray] = []
    lengths: list[int] = []
    for texts in _batches(cast(FilePart, file), column, counts, reports):
        encoded = [[tokenizer.bos_id, *one, tokenizer.eos_id] for one in tokenizer.encode_batch(texts)]
        ids.append(np.fromiter(chain.from_iterable(encoded), kind))
        lengths += map(len, encoded)
    counts |= {"texts": len(lengths), "tokens": sum(lengths) - 2 * len(lengths)}
    arrays = {"ids": np.concatenate([np.zeros(0, kind), *ids]), "lengths": np.array(lengths, np.uint32)}
    return arrays, {**counts, "reports": reports}


def _batches(
    part: FilePart, column: str, counts: dict[str, int], reports: list[tuple[str, int, str]]
) -> Iterator[list[str]]:
    """Texts, so many at once; what is no text is counted."""
    texts: list[str] = []
    characters = 0
    for row in rows_of(part, column):
        if isinstance(row, Lost):
            counts["rows"] += row.rows
            counts["lost"] += row.rows
            counts["unread"] += row.unread
            reports += [(row.where, row.row, row.reason)] if len(reports) < _SHOWN else []
            continue
        counts["rows"] += 1
        if row:
            texts.append(row)
            characters += len(row)
            counts["bytes"] += len(row.encode())
        if characters >= _AT_ONCE:
            yield texts
            texts, characters = [], 0
    if texts:
        yield texts
