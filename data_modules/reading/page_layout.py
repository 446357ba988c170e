"""Pages laid out as documents, and cut where they are long: text anywhere, frames never."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from data_modules.reading.document_rows import DocumentRows
from data_modules.reading.layout import BOTH, DRAWN, Layout, positions
from lit_mm.tokenizer import Tokenizer


def lay_out_pages(
    batch: dict[str, list[str | None]],
    rows: list[int],
    tokenizer: Tokenizer,
    mark: int,
    window: int,
    most_pictures: int,
    tokens_per_frame: int,
) -> dict[str, list]:
    """Documents of a batch of pages; see `documents_of`. `mark`: how pictures are shown, see `layout`."""
    pages = [json.loads(page) if page else [] for page in batch["page"]]
    texts = [part for page in pages for part in page if isinstance(part, str)]
    ids = iter(tokenizer.encode_batch(texts))
    out = DocumentRows()
    for row, page in zip(rows, pages, strict=True):
        if page:
            parts = [next(ids) if isinstance(part, str) else part for part in page]
            writer = _Writer(tokenizer, mark, window, most_pictures, tokens_per_frame)
            for layout, pictures in writer.write([[tokenizer.bos_id], *parts, [tokenizer.eos_id]]):
                out.add(row, layout, pictures, positions(layout.ids, tokens_per_frame))
    return out.columns


class _Writer:
    """Fills one document after the other."""

    def __init__(self, tokenizer: Tokenizer, mark: int, window: int, most_pictures: int, tokens_per_frame: int) -> None:
        self.tokenizer, self.mark, self.window, self.most_pictures = tokenizer, mark, window, most_pictures
        self.picture = 2 + tokens_per_frame * (2 if mark == BOTH else 1)
        self.done: list[tuple[Layout, list[dict[str, Any]]]] = []
        self._start()

    def _start(self) -> None:
        self.layout, self.pictures, self.room = Layout(self.tokenizer), list[dict[str, Any]](), self.window

    def write(self, parts: Sequence[list[int] | dict[str, Any]]) -> list[tuple[Layout, list[dict[str, Any]]]]:
        """All documents of a page's texts and pictures."""
        for part in parts:
            if isinstance(part, dict):
                if self.room < self.picture or len(self.pictures) == self.most_pictures:
                    self._end()
                self.layout.picture(self.mark, learned=True)
                self.pictures.append(part)
                self.room -= self.picture
                continue
            while part:
                if not self.room:
                    self._end()
                now, part = part[: self.room], part[self.room :]
                self.layout.add(now, learned=True)
                self.room -= len(now)
        self._end()
        return self.done

    def _end(self) -> None:
        ids, eoi, eos = self.layout.ids, self.tokenizer.eoi_id, self.tokenizer.eos_id
        if self.mark == BOTH:
            last = len(ids) - (2 if ids[-1:] == [eoi] else 3)  # where a picture stands that nothing follows
            if last >= 0 and ids[last] == BOTH and ids[last + 2 :] in ([], [eos]):
                ids[last] = DRAWN
        if len(ids) > 1:  # a single token has nothing to be predicted from
            self.done.append((self.layout, self.pictures))
        self._start()
