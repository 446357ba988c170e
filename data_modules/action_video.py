"""Video with actions: context frames, what the agent does, and the frame it then sees."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from data_modules.base import DocumentDataModule, Split
from data_modules.dataset import DocumentDataset, DocumentFormat, Draw
from data_modules.reading.actions import Actions
from data_modules.reading.files import find_files, settle_broken, stamp, warn
from data_modules.reading.findings import note_lost
from lit_mm.mistake import Mistake
from lit_mm.sequence import Document, Segment, Text
from lit_mm.tokenizer import Tokenizer

if TYPE_CHECKING:
    import datasets

    from data_modules.reading.episodes import VideoTable

TEXTS = {"action": "ids", "action_words": "words"}  # columns of what is written in each variant that has actions


class ActionVideoDataModule(DocumentDataModule):
    """Episodes with actions: `<bos> <boi> c0 <eoi> ... <boi> c3 <eoi> action text <boi> target <eoi> <eos>`.

    All targets of a context share it: from the `<eoi>` of its last frame on they are branches of one document, which
    see the context and nothing of each other (see `lit_mm.sequence.Document`). To the model each is as if it stood
    alone, at little more than half the tokens with four of them.

    Files: `<episode>.mp4` (or another video format) and beside it `<episode>.csv` (or .parquet, .jsonl) with one row
    per frame; a column `frame` orders the rows. Other columns are those that `actions` and `words` name, and no
    others are read here.

    The action is text, `action: dx=+1.338, dy=-0.659, dyaw=+0.123, rel_t=+0.125`: dx forward and dy to the left, dyaw
    to the left in radians, rel_t the share of the horizon. It is read and never predicted. Where it stands is ours: the
    paper does not say.

    Args:
        train: file, folder or pattern of the videos.
        val: the same for validation; none by default.
        actions: `moves` (paper): the move from the last context frame to the target, as seen from the former, dx and dy
            in multiples of `unit` and dyaw in [-pi, pi). The tables have the columns x, y (position on the map) and
            angle (heading in degrees, counter-clockwise from the x axis).
            `told`: what the agent was told to do, which a wall may have kept it from. The tables have the columns dx,
            dy and dyaw, told from this frame to the next, which are summed up to the target and written as they are.
            The last row may lack them.
        words: share of draws whose actions are written in words in place of numbers, `action: move left` (ours). The
            tables have a column `words`, what was told from this frame to the next; those up to the target are joined,
            `action: move left, then wait`. Sentences of prompts are written alike. 0, the default, trains on none, and
            is the paper's case.
        unit: map units that count as 1.0 of dx and dy, of `moves` alone. The mean distance of one step is a good
            choice; 1.0 keeps metres as metres. Prompts have to use the same unit.
        context: frames that are read before the action, four by default (paper).
        contexts: that share a document (ours). Each is a frame longer than the one before it, whose frames it begins
            with, so each frame is read once for all of them. To the model each target is still as if it stood alone.
        frame_step: video frames from one frame to the next; it sets the rate at which the model sees the world.
        horizon: the target lies 1 to `horizon` steps after the last context frame.
        targets: different targets drawn for each context, as in Navigation World Models (ours: the paper does not say);
            near the end of an episode there are fewer.
        action_dropout: share of draws that lose the action text, which guidance needs; a tenth (paper), of which the
            context stays (ours: the paper does not say).
    """

    def __init__(
        self,
        train: str,
        val: str | None = None,
        actions: Actions = "moves",
        words: float = 0.0,
        unit: float = 1.0,
        context: int = 4,
        contexts: int = 1,
        frame_step: int = 1,
        horizon: int = 8,
        targets: int = 4,
        action_dropout: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        counts = {"context": context, "contexts": contexts, "frame_step": frame_step}
        for name, count in {**counts, "horizon": horizon, "targets": targets}.items():
            if count < 1:
                raise Mistake(f"{name}: {count} is too few; give 1 or more")
        for name, share in {"words": words, "action_dropout": action_dropout}.items():
            if not 0 <= share <= 1:
                raise Mistake(f"{name}: {share} is not a share; give a number from 0 to 1")
        if words + action_dropout > 1:
            raise Mistake(f"words: {words} and action_dropout: {action_dropout} are more than 1 together; lower one")
        if unit <= 0:
            raise Mistake(f"unit: {unit} is not a length; give map units above 0")
        if actions == "told" and unit != 1:
            raise Mistake(f"unit: {unit} is for actions: moves; what was told is written as it is, so leave it out")
        self.paths: dict[Split, str | None] = {"train": train, "val": val}
        self.actions, self.words, self.unit = actions, words, unit
        self.context, self.contexts, self.frame_step = context, contexts, frame_step
        self.horizon, self.targets = horizon, targets
        self.action_dropout = action_dropout

    def dataset(self, split: Split, source: str, format: DocumentFormat) -> ActionVideoDataset | None:
        """Contexts and targets of one split; action texts are written and tokenized once."""
        from data_modules.reading.action_documents import COLUMNS
        from data_modules.reading.decoding import VIDEO_SUFFIXES
        from data_modules.reading.episodes import WORDS, index_files, say_far_keyframes

        path = self.paths[split]
        if path is None:
            return None
        key = f"{self.key}.{split}"
        columns = (*COLUMNS[self.actions], *([WORDS] if self.words else []))
        files = find_files(path, VIDEO_SUFFIXES, key)
        table = index_files(files, columns)
        broken = table.broken()
        skipped = settle_broken(next(iter(broken), None), len(broken), len(table), key, self.tolerance)
        say_far_keyframes(table, key)
        documents = self._documents(table, format.tokenizer, key)
        dataset = ActionVideoDataset(source, self, table, documents, format, skipped)
        dataset.files = stamp(files)
        return dataset

    def _documents(self, table: VideoTable, tokenizer: Tokenizer, key: str) -> datasets.Dataset:
        from datasets import Features, List, Value

        from data_modules.reading.action_documents import plan_documents
        from data_modules.reading.cached import mapped

        usable = table.usable()
        needed = (self.context + self.contexts - 1) * self.frame_step + 1
        short = [int(row) for row in usable if len(table.numbers("pts", int(row))) < needed]
        if short:
            few = f"{len(short)} of {len(table)} episodes are shorter than context and target, {needed} frames"
            if len(short) == len(usable):
                raise Mistake(f"{key}: {few} (as '{table.path(short[0])}'); lower `context` or `frame_step`")
            warn("%s: %s, and are left out", key, few)
            note_lost("episodes shorter than context and target", len(short))
        fields = ("actions", "context", "contexts", "frame_step", "horizon", "targets", "unit")
        settings = {name: getattr(self, name) for name in fields} | {"words": self.words > 0}
        number = Value("int32")
        texts = {name: List(List(number)) for name in ("ids", *(["words"] if self.words else []))}
        return mapped(
            table.rows,
            plan_documents,
            {"tokenizer": tokenizer, **settings},
            Features({"row": number, "anchor": number, "of": List(number), "ahead": List(number), **texts}),
            f"{key}: writing actions",
            batch_size=16,
            with_indices=True,
        )


class ActionVideoDataset(DocumentDataset):
    """Contexts with targets, in a fixed shuffled order (see `VideoDataset`).

    Variants: the actions in numbers, without actions, and, where some draws have them, the actions in words.

    Attributes:
        variants: names of the variants, in the order of `lengths`.
        order: (documents,) int64, index of each document in the table.
        skipped_at_setup: episodes left out because they cannot be read.
    """

    appends = False

    def __init__(
        self,
        source: str,
        module: ActionVideoDataModule,
        table: VideoTable,
        documents: datasets.Dataset,
        format: DocumentFormat,
        skipped: int,
    ) -> None:
        from data_modules.reading.columns import Column
        from data_modules.reading.episodes import VideoPictures, shuffled

        self.source = source
        self.table = table
        self.documents = documents
        self._columns = {name: Column(documents, name) for name in documents.column_names}
        self.format = format
        self.context, self.contexts, self.frame_step = module.context, module.contexts, module.frame_step
        self.variants: tuple[str, ...] = ("action", "action_dropped")
        self.shares = (1 - module.words - module.action_dropout, module.action_dropout)
        if module.words:
            self.variants, self.shares = (*self.variants, "action_words"), (*self.shares, module.words)
        self.skipped_at_setup = skipped
        self.pictures = VideoPictures(table, format.image_size)
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
        from data_modules.reading.episodes import frame_keys

        index = int(self.order[draw.index])
        row, anchor, of, ahead = (self._columns[name][index] for name in ("row", "anchor", "of", "ahead"))
        texts = TEXTS.get(self.variants[draw.variant])
        actions = self._columns[texts][index] if texts else [[] for _ in ahead]
        read = self._read()
        numbers = anchor + np.concatenate([read, np.add(of, ahead) * self.frame_step])
        frames = self.frames(frame_keys(row, numbers).tolist(), clean=len(read))
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

    def picture_keys(self) -> np.ndarray:
        """Frames of contexts and targets; documents share theirs."""
        from data_modules.reading.episodes import frame_keys

        row, anchor = (self._columns[name].all() for name in ("row", "anchor"))
        shown = [frame_keys(row, anchor + frame) for frame in self._read()]
        of, ahead = (self._columns[name].flat() for name in ("of", "ahead"))
        document = np.repeat(np.arange(len(row)), self._columns["ahead"].lengths())
        shown.append(frame_keys(row[document], anchor[document] + (of + ahead) * self.frame_step))
        return np.unique(np.concatenate([np.unique(keys) for keys in shown]))
