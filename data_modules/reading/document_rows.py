"""Tables of laid out documents: made of pages once, and cached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
from datasets import List, Value

from data_modules.reading.cached import mapped
from data_modules.reading.columns import Column
from data_modules.reading.layout import BOTH, Layout
from data_modules.reading.pages import Pages

COLUMNS = {
    "row": Value("int64"),
    "ids": List(Value("int32")),
    "learned": List(Value("bool")),
    "positions": Value("int32"),
    "pictures": List(Value("string")),
    "places": List(Value("int32")),
    "twice": Value("int32"),
    "delimiters": Value("int32"),
    "left_out": Value("int32"),
}


class DocumentRows:
    """Rows of such a table while they are made.

    Attributes:
        columns: see `COLUMNS`. `twice` is the number of pictures that are drawn and then read, `delimiters` that of
            such tokens. A row of no positions only says how much of a page is in no document.
    """

    def __init__(self) -> None:
        self.columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}

    def add(self, row: int, layout: Layout, pictures: Sequence[Mapping[str, Any]], positions: int) -> None:
        """A document of the page `row`, with its pictures in order."""
        names = [one.get("path") or one["column"] for one in pictures]
        places = [one.get("number", -1) for one in pictures]
        twice, delimiters = layout.ids.count(BOTH), layout.delimiters()
        self._add(row, layout.ids, layout.learned, positions, names, places, twice, delimiters, 0)

    def leave_out(self, row: int, count: int) -> None:
        """Note that so many parts of a page are in no document."""
        if count:
            self._add(row, [], [], 0, [], [], 0, 0, count)

    def _add(self, *values: Any) -> None:
        for column, value in zip(self.columns.values(), values, strict=True):
            column.append(value)


def documents_of(
    pages: Pages, lay_out: Callable[..., dict[str, list]], settings: Mapping[str, Any], key: str
) -> tuple[datasets.Dataset, int]:
    """Lay out all pages.

    Args:
        pages: of a source.
        lay_out: turns a batch of pages and their numbers into columns of `DocumentRows`.
        settings: its other arguments.
        key: the YAML key, for the progress bar.

    Returns:
        The documents, and how many parts are in none.
    """
    rows = pages.rows.select_columns(["page"])
    made = mapped(rows, lay_out, settings, datasets.Features(COLUMNS), f"{key}: tokenizing", with_indices=True)
    kept = np.flatnonzero(Column(made, "positions").all())
    left_out = int(Column(made, "left_out").all().sum())
    return (made if len(kept) == len(made) else made.select(kept).flatten_indices()), left_out
