"""Documents of texts and pictures in any order as flat lists: ids, with a mark where a picture stands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lit_mm.sequence import Frame, Segment, Text
from lit_mm.tokenizer import Tokenizer

READ, BOTH, DRAWN = -1, -2, -3  # marks: a picture that is read, one that is drawn and then read, one that is drawn


class Layout:
    """A document while it is put together.

    Attributes:
        ids: tokens with delimiters, and marks.
        learned: of each id, whether it is predicted.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.ids: list[int] = []
        self.learned: list[bool] = []
        self._brackets = tokenizer.boi_id, tokenizer.eoi_id
        self._ends = tokenizer.bos_id, tokenizer.eos_id

    def add(self, ids: Sequence[int], learned: bool) -> None:
        """Tokens behind what is there."""
        self.ids += ids
        self.learned += [learned] * len(ids)

    def picture(self, mark: int, learned: bool) -> None:
        """A picture between its delimiters. That a document begins with one is nothing to be learned."""
        opening, closing = self._brackets
        self.add([opening], learned and len(self.ids) > 1)
        self.add([mark], False)
        self.add([closing], learned)

    def delimiters(self) -> int:
        """How many of the tokens are delimiters."""
        return sum(self.ids.count(one) for one in (*self._brackets, *self._ends))


def positions(ids: Sequence[int], tokens_per_frame: int) -> int:
    """Positions of a laid out document in a row; a picture that is drawn and then read takes its place twice."""
    marks = [i for i in ids if i < 0]
    return len(ids) - len(marks) + tokens_per_frame * (len(marks) + marks.count(BOTH))


def segments(ids: np.ndarray, learned: np.ndarray, frames: Sequence[Frame]) -> tuple[Segment, ...]:
    """The segments of a laid out document.

    A picture that is drawn and then read stands there twice: drawn in a branch of its own, which sees what comes before
    it and is seen by nothing, and clean in the place where the document goes on. That is how the model meets it when it
    draws a picture and writes on.

    Args:
        ids: (n,) tokens and marks.
        learned: (n,) bool, see `Layout`.
        frames: its pictures in order.
    """
    out: list[Segment] = []
    remaining, branch = iter(frames), 0
    changes = np.flatnonzero((np.diff(learned.astype(np.int8)) != 0) | (ids[1:] < 0) | (ids[:-1] < 0)) + 1
    for start, stop in zip([0, *changes.tolist()], [*changes.tolist(), len(ids)], strict=True):
        mark = int(ids[start])
        if mark >= 0:
            out.append(Text(torch.from_numpy(ids[start:stop].astype(np.int64)), bool(learned[start])))
            continue
        frame = next(remaining)
        if mark == BOTH:
            branch += 1
            out.append(Frame(frame.image, False, frame.origin, branch))
        out.append(Frame(frame.image, mark != DRAWN, frame.origin))
    return tuple(out)
