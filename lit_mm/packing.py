"""Documents laid one after another into rows of fixed length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from lit_mm.mistake import Mistake
from lit_mm.sequence import IGNORE, Document, Frame, PackedBatch, PackedRow, Text


def pack_rows(
    rows: Sequence[PackedRow],
    *,
    length: int,
    tokens_per_frame: int,
    image_size: int,
    pad_id: int,
    sources: tuple[str, ...],
) -> PackedBatch:
    """Lay the documents of each row one after another and pad to `length`.

    Raises:
        Mistake: a row's documents need more than `length` positions, or a frame is neither
            (3, image_size, image_size) pixels nor (tokens_per_frame, C) latents like the others.
    """
    packer = _Packer(len(rows), length, tokens_per_frame, image_size, pad_id)
    frames_per_row = []
    for number, row in enumerate(rows):
        before, start = len(packer.frames), 0
        for d, document in enumerate(row.documents):
            stop = start + document.length(tokens_per_frame)
            if stop > length:
                raise ValueError(f"row {row.number} needs at least {stop} positions but a row has {length}")
            packer.document_ids[number, start:stop] = d
            packer.add(document, sources.index(document.source), number, start, before)
            start = stop
        frames_per_row.append(len(packer.frames) - before)
    return packer.batch(rows, frames_per_row, sources)


class _Packer:
    """A batch while it is filled, segment by segment; see `PackedBatch`. Arrays are filled faster than tensors."""

    def __init__(self, rows: int, length: int, tokens_per_frame: int, image_size: int, pad_id: int) -> None:
        self.length, self.tokens_per_frame, self.image_size = length, tokens_per_frame, image_size
        shape = (rows, length)
        self.tokens = np.full(shape, pad_id, np.int64)
        self.targets = np.full(shape, IGNORE, np.int64)
        self.document_ids = np.full(shape, -1, np.int32)
        self.frame_ids = np.full(shape, -1, np.int32)
        self.positions = np.zeros(shape, np.int64)
        self.branch_ids = np.zeros(shape, np.int32)
        self.source_ids = np.full(shape, -1, np.int64)
        self.frames: list[Frame] = []
        self.frame_sources: list[int] = []
        self.visual: list[int] = []  # where each frame begins, in the flattened positions

    def add(self, document: Document, source: int, row: int, start: int, frames_before: int) -> None:
        """Lay a document into a row from `start` on; `frames_before` frames lie in the rows before."""
        at, previous_is_text = start, False
        branch, position, trunk = 0, 0, 0
        for segment in document.segments:
            if segment.branch != branch:
                branch, position, previous_is_text = segment.branch, trunk, False
            taken = self.tokens_per_frame if isinstance(segment, Frame) else len(segment)
            there = slice(at, at + taken)
            self.positions[row, there] = np.arange(position, position + taken)
            self.branch_ids[row, there] = branch
            self.source_ids[row, there] = source
            position += taken
            trunk = position if branch == 0 else trunk
            if isinstance(segment, Frame):
                self._check(segment.image, document.source)
                self.frame_ids[row, there] = len(self.frames) - frames_before
                self.visual.append(row * self.length + at)
                self.frames.append(segment)
                self.frame_sources.append(source)
                previous_is_text = False
            elif taken:
                self._add_text(segment, row, at, previous_is_text)
                previous_is_text = True
            at += taken

    def _add_text(self, text: Text, row: int, at: int, follows_text: bool) -> None:
        ids = text.ids.numpy()
        stop = at + len(ids)
        self.tokens[row, at:stop] = ids
        if text.loss:
            self.targets[row, at : stop - 1] = ids[1:]
            if follows_text:
                self.targets[row, at - 1] = ids[0]

    def _check(self, image: Tensor, source: str) -> None:
        if image.is_floating_point():
            fits = image.ndim == 2 and len(image) == self.tokens_per_frame
            expected = f"({self.tokens_per_frame}, channels) of latents"
        else:
            fits = image.shape == (3, self.image_size, self.image_size)
            expected = f"(3, {self.image_size}, {self.image_size})"
        if not fits:
            raise Mistake(f"a frame of source '{source}' has shape {tuple(image.shape)}; {expected} is expected")
        first = self.frames[0].image if self.frames else image
        if (first.shape, first.dtype) != (image.shape, image.dtype):
            raise Mistake(
                f"a frame of source '{source}' is {image.dtype} {tuple(image.shape)}, but others of its batch are "
                f"{first.dtype} {tuple(first.shape)}; all sources have to give pixels, or latents of one kind"
            )

    def batch(self, rows: Sequence[PackedRow], frames_per_row: Sequence[int], sources: tuple[str, ...]) -> PackedBatch:
        """All of it, with what follows from it."""
        empty = torch.zeros((0, 3, self.image_size, self.image_size), dtype=torch.uint8)
        visual = np.array(self.visual, np.int64)[:, None] + np.arange(self.tokens_per_frame)
        clean = [frame.clean for frame in self.frames]
        drawn = [i for i, c in enumerate(clean) if not c]
        predicted = np.flatnonzero(self.targets != IGNORE)
        return PackedBatch(
            tokens=torch.from_numpy(self.tokens),
            targets=torch.from_numpy(self.targets),
            document_ids=torch.from_numpy(self.document_ids),
            frame_ids=torch.from_numpy(self.frame_ids),
            positions=torch.from_numpy(self.positions),
            branch_ids=torch.from_numpy(self.branch_ids),
            source_ids=torch.from_numpy(self.source_ids),
            # A worker process makes them in memory that is shared, from where they are not copied to be sent.
            frames=default_collate([frame.image for frame in self.frames]) if self.frames else empty,
            frame_clean=torch.tensor(clean, dtype=torch.bool),
            drawn_frames=torch.tensor(drawn, dtype=torch.int64),
            frame_source_ids=torch.tensor(self.frame_sources, dtype=torch.int64),
            visual_positions=torch.from_numpy(visual),
            predicted_positions=torch.from_numpy(predicted),
            frames_per_row=tuple(frames_per_row),
            frame_origins=tuple(frame.origin for frame in self.frames),
            seeds=tuple(row.seed for row in rows),
            row_numbers=tuple(row.number for row in rows),
            sources=sources,
            step_counts=(len(predicted), len(drawn), len(self.frames)),  # a step of its own; loaders know of others
        )
