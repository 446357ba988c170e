"""Documents of episodes with actions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from data_modules.dataset import DocumentDataset, DocumentFormat, Draw
from data_modules.reading.frame_keys import FRAME_BITS, MAX_FRAME, frame_keys, shuffled
from lit_mm.sequence import Document, Segment, Text

if TYPE_CHECKING:
    import datasets

    from data_modules.reading.action_documents import DocumentPlan
    from data_modules.reading.episodes import VideoPictures, VideoTable

TEXTS = {"action": "ids", "action_words": "words"}  # columns of what is written in each variant that has actions


class ActionVideoDataset(DocumentDataset):
    """Contexts with targets, in a fixed shuffled order (see `VideoDataset`).

    Variants: the actions in numbers, without actions, and, where some draws have them, the actions in words.

    Args:
        source: name of the source.
        plan: which documents episodes become.
        shares: of draws without actions, and with actions in words.
        table: of the episodes.
        documents: made by the plan.
        pictures: frames of the episodes.
        format: of documents.
        skipped: see `skipped_at_setup`.

    Attributes:
        variants: names of the variants, in the order of `lengths`.
        plan: which documents episodes become.
        order: (documents,) int64, index of each document in the table.
        skipped_at_setup: episodes left out because they cannot be read.
    """

    appends = False

    def __init__(
        self,
        source: str,
        plan: DocumentPlan,
        shares: tuple[float, float],
        table: VideoTable,
        documents: datasets.Dataset,
        pictures: VideoPictures,
        format: DocumentFormat,
        skipped: int,
    ) -> None:
        from data_modules.reading.columns import Column

        self.source = source
        self.table = table
        self.documents = documents
        self._columns = {name: Column(documents, name) for name in documents.column_names}
        self.format = format
        self.plan, self.fps = plan, plan.fps
        self.context, self.contexts, self.frame_step = plan.context, plan.contexts, plan.frame_step
        dropped, in_words = shares
        self.variants: tuple[str, ...] = ("action", "action_dropped")
        self.shares = (1 - in_words - dropped, dropped)
        if plan.words:
            self.variants, self.shares = (*self.variants, "action_words"), (*self.shares, in_words)
        self.skipped_at_setup = skipped
        self.pictures = pictures
        targets = self._columns["ahead"].lengths()
        # The last <eoi> of the context opens every branch, and <eos> ends it.
        bare = format.bracketed_frames(len(self._read())) + targets * (2 + format.bracketed_frames(1))
        lengths = np.stack([bare + self._text_lengths(variant, targets) for variant in self.variants])
        self.order = shuffled(len(targets))
        self.lengths = lengths[:, self.order].astype(np.int32)

    def _text_lengths(self, variant: str, targets: np.ndarray) -> np.ndarray:
        """Tokens (documents,) of all actions of each document, which has so many `targets` (documents,)."""
        if variant not in TEXTS:
            return np.zeros_like(targets)
        tokens = self._columns[TEXTS[variant]].inner_lengths()
        return np.add.reduceat(tokens, np.cumsum(targets) - targets)

    def _read(self) -> np.ndarray:
        """Frames that are read, counted from the last one of the first context."""
        return np.arange(1 - self.context, self.contexts) * self.frame_step

    def document(self, draw: Draw) -> Document:
        """Some contexts and their targets, in the variant that is drawn."""
        index = int(self.order[draw.index])
        of = self._columns["of"][index]
        texts = TEXTS.get(self.variants[draw.variant])
        actions = self._columns[texts][index] if texts else [[] for _ in of]
        read = self._read()
        frames = self.frames(self.keys_of(draw), clean=len(read))
        t = self.format.tokenizer
        segments: list[Segment] = []
        for number, frame in enumerate(frames[: len(read)]):
            segments += [Text(t.ids(t.eoi_id if number else t.bos_id, t.boi_id), loss=False), frame]
            for i, target in enumerate(frames[len(read) :]):
                if of[i] == number - (self.context - 1):
                    segments += [
                        Text(torch.tensor([t.eoi_id, *actions[i], t.boi_id]), loss=False, branch=i + 1),
                        replace(target, branch=i + 1),
                        Text(t.ids(t.eoi_id, t.eos_id), branch=i + 1),
                    ]
        return Document(tuple(segments), self.source)

    def keys_of(self, draw: Draw) -> list[int]:
        """Of the frames of all contexts, then of the targets."""
        index = int(self.order[draw.index])
        row, anchor, of, ahead = (self._columns[name][index] for name in ("row", "anchor", "of", "ahead"))
        numbers = anchor + np.concatenate([self._read(), np.add(of, ahead) * self.frame_step])
        return frame_keys(row, self._shown(row, numbers)).tolist()

    def picture_keys(self) -> np.ndarray:
        """Frames of contexts and targets; documents share theirs."""
        row, anchor = (self._columns[name].all() for name in ("row", "anchor"))
        shown = [frame_keys(row, anchor + frame) for frame in self._read()]
        of, ahead = (self._columns[name].flat() for name in ("of", "ahead"))
        document = np.repeat(np.arange(len(row)), self._columns["ahead"].lengths())
        shown.append(frame_keys(row[document], anchor[document] + (of + ahead) * self.frame_step))
        keys = np.unique(np.concatenate([np.unique(some) for some in shown]))
        if self.fps is None:
            return keys
        rows = keys >> FRAME_BITS
        parts = [frame_keys(r, self._shown(r, keys[rows == r] & MAX_FRAME)) for r in np.unique(rows).tolist()]
        return np.unique(np.concatenate([np.zeros(0, np.int64), *parts]))

    def _shown(self, row: int, numbers: np.ndarray) -> np.ndarray:
        """Frames of an episode's video, by their numbers among those that are seen."""
        from data_modules.reading.action_documents import frames_seen

        return numbers if self.fps is None else frames_seen(self.table.index(row), self.fps)[numbers]
