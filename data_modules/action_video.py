"""Video with actions: context frames, what the agent does, and the frame it then sees."""

from __future__ import annotations

import logging
import zlib
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from data_modules.base import DocumentDataModule, Split
from data_modules.dataset import DocumentDataset, DocumentFormat, Draw
from data_modules.reading.actions import Pose, action_text
from data_modules.reading.files import find_files, settle_broken
from lit_mm.mistake import Mistake
from lit_mm.sequence import Document, Segment, Text
from lit_mm.tokenizer import Tokenizer

if TYPE_CHECKING:
    import datasets

    from data_modules.reading.episodes import VideoTable

logger = logging.getLogger(__name__)


class ActionVideoDataModule(DocumentDataModule):
    """Episodes with poses: `<bos> <boi> c0 <eoi> ... <boi> c3 <eoi> action text <boi> target <eoi> <eos>`.

    All targets of a context share it: from the `<eoi>` of its last frame on they are branches of one document, which
    see the context and nothing of each other (see `lit_mm.sequence.Document`). To the model each is as if it stood
    alone, at little more than half the tokens with four of them.

    Files: `<episode>.mp4` (or another video format) and beside it `<episode>.csv` (or .parquet, .jsonl) with one row
    per frame and the columns x, y (position on the map) and angle (heading in degrees, counter-clockwise from the x
    axis); a column `frame` orders the rows; others are not read here.

    The action is text, `action: dx=+1.338, dy=-0.659, dyaw=+0.123, rel_t=+0.125`: the move from the last context
    frame to the target as seen from the former, dx forward and dy to the left in multiples of `unit`, dyaw to the
    left in radians of [-pi, pi), rel_t the share of the horizon. It is read and never predicted. Where it
    stands is ours: the paper does not say.

    Args:
        train: file, folder or pattern of the videos.
        val: the same for validation; none by default.
        unit: map units that count as 1.0 of dx and dy. The mean distance of one step is a good choice; 1.0 keeps
            metres as metres. Prompts have to use the same unit.
        context: frames that are read before the action, four by default (paper).
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
        unit: float = 1.0,
        context: int = 4,
        frame_step: int = 1,
        horizon: int = 8,
        targets: int = 4,
        action_dropout: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        counts = {"context": context, "frame_step": frame_step, "horizon": horizon, "targets": targets}
        for name, count in counts.items():
            if count < 1:
                raise Mistake(f"{name}: {count} is too few; give 1 or more")
        if not 0 <= action_dropout <= 1:
            raise Mistake(f"action_dropout: {action_dropout} is not a share; give a number from 0 to 1")
        if unit <= 0:
            raise Mistake(f"unit: {unit} is not a length; give map units above 0")
        self.paths: dict[Split, str | None] = {"train": train, "val": val}
        self.unit = unit
        self.context, self.frame_step, self.horizon, self.targets = context, frame_step, horizon, targets
        self.action_dropout = action_dropout

    def dataset(self, split: Split, source: str, format: DocumentFormat) -> ActionVideoDataset | None:
        """Contexts and targets of one split; action texts are written and tokenized once."""
        from data_modules.reading.decoding import VIDEO_SUFFIXES
        from data_modules.reading.episodes import index_files

        path = self.paths[split]
        if path is None:
            return None
        key = f"{self.key}.{split}"
        table = index_files(find_files(path, VIDEO_SUFFIXES, key), poses=True)
        skipped = settle_broken(table.broken(), len(table), key, self.on_error)
        documents = self._documents(table, format.tokenizer, key)
        return ActionVideoDataset(source, self, table, documents, format, skipped)

    def _documents(self, table: VideoTable, tokenizer: Tokenizer, key: str) -> datasets.Dataset:
        from datasets import Features, List, Value

        usable = table.usable()
        needed = (self.context - 1) * self.frame_step + self.frame_step + 1
        short = [int(row) for row in usable if len(table.numbers("pts", int(row))) < needed]
        if short:
            few = f"{len(short)} of {len(table)} episodes are shorter than context and target, {needed} frames"
            if len(short) == len(usable):
                raise Mistake(f"{key}: {few} (as '{table.path(short[0])}'); lower `context` or `frame_step`")
            logger.warning("%s: %s, and are left out", key, few)
        fields = ("context", "frame_step", "horizon", "targets", "unit")
        return table.rows.map(
            plan_documents,
            fn_kwargs={"tokenizer": tokenizer, **{name: getattr(self, name) for name in fields}},
            with_indices=True,
            batched=True,
            batch_size=16,
            remove_columns=table.rows.column_names,
            features=Features(
                {
                    "row": Value("int32"),
                    "anchor": Value("int32"),
                    "ahead": List(Value("int32")),
                    "ids": List(List(Value("int32"))),
                }
            ),
            desc=f"{key}: writing actions",
        )


def plan_documents(
    batch: dict[str, list],
    rows: list[int],
    tokenizer: Tokenizer,
    context: int,
    frame_step: int,
    horizon: int,
    targets: int,
    unit: float,
) -> dict[str, list]:
    """All documents of some episodes: row of the episode, last context frame, steps to targets, their action tokens."""
    out: dict[str, list] = {"row": [], "anchor": [], "ahead": [], "ids": []}
    texts: list[str] = []
    for number, row in enumerate(rows):
        poses = [
            Pose(*pose) for pose in zip(batch["x"][number], batch["y"][number], batch["angle"][number], strict=True)
        ]
        anchors, ahead = choose_targets(len(poses), batch["path"][number], context, frame_step, horizon, targets)
        firsts = np.flatnonzero(np.diff(anchors, prepend=-1))  # of each anchor
        out["row"] += [row] * len(firsts)
        out["anchor"] += anchors[firsts].tolist()
        out["ahead"] += [ahead[start:stop].tolist() for start, stop in pairwise([*firsts, len(ahead)])]
        texts += [
            action_text(poses[a], poses[a + h * frame_step], h / horizon, unit)
            for a, h in zip(anchors.tolist(), ahead.tolist(), strict=True)
        ]
    ids = iter(tokenizer.encode_batch(texts))
    out["ids"] = [[next(ids) for _ in steps] for steps in out["ahead"]]
    return out


def choose_targets(
    frames: int, path: str, context: int, frame_step: int, horizon: int, targets: int
) -> tuple[np.ndarray, np.ndarray]:
    """Last context frames and steps to their targets, (documents,) each.

    Every frame with a full context and a next frame is an anchor. Its targets are different and spread evenly over
    1 to `horizon`; they follow from the episode's name and the anchor, so the set of documents is the same in every
    run. Near the end of an episode there are fewer.
    """
    anchors = np.arange((context - 1) * frame_step, frames - frame_step, dtype=np.int64)
    steps = np.arange(1, horizon + 1)
    name = zlib.crc32(path.replace("\\", "/").rpartition("/")[2].encode())
    order = _scrambled(np.uint64(name) << np.uint64(32), anchors[:, None] * (horizon + 1) + steps)
    order[anchors[:, None] + steps * frame_step >= frames] = np.iinfo(np.uint64).max
    chosen = np.argsort(order, axis=1, kind="stable")[:, :targets]
    ahead = np.sort(steps[chosen], axis=1)
    inside = anchors[:, None] + ahead * frame_step < frames
    return np.broadcast_to(anchors[:, None], ahead.shape)[inside], ahead[inside]


def _scrambled(key: np.uint64, numbers: np.ndarray) -> np.ndarray:
    """SplitMix64's output function of `key` + `numbers` (Steele et al. 2014): evenly spread uint64, array in, out."""
    z = (numbers.astype(np.uint64) + key) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class ActionVideoDataset(DocumentDataset):
    """Contexts with a target, with and without the action text, in a fixed shuffled order (see `VideoDataset`).

    Attributes:
        variants: names of the variants, in the order of `lengths`.
        order: (documents,) int64, index of each document in the table.
        skipped_at_setup: episodes left out because they cannot be read.
    """

    variants = ("action", "action_dropped")

    def __init__(
        self,
        source: str,
        module: ActionVideoDataModule,
        table: VideoTable,
        documents: datasets.Dataset,
        format: DocumentFormat,
        skipped: int,
    ) -> None:
        from data_modules.reading.episodes import VideoPictures, shuffled

        self.source = source
        self.table = table
        self.documents = documents
        self.format = format
        self.context, self.frame_step = module.context, module.frame_step
        self.shares = (1 - module.action_dropout, module.action_dropout)
        self.skipped_at_setup = skipped
        self.pictures = VideoPictures(table, format.image_size)
        column = documents.data.column("ids")
        targets = np.concatenate([chunk.value_lengths().to_numpy() for chunk in column.chunks])
        texts = np.concatenate([chunk.flatten().value_lengths().to_numpy() for chunk in column.chunks])
        texts = np.add.reduceat(texts, np.cumsum(targets) - targets)
        # The last <eoi> of the context opens every branch, and <eos> ends it.
        bare = format.bracketed_frames(module.context) + targets * (2 + format.bracketed_frames(1))
        lengths = np.stack([texts + bare, bare])
        self.order = shuffled(len(targets))
        self.lengths = lengths[:, self.order].astype(np.int32)

    def document(self, draw: Draw) -> Document:
        """One context and its targets; see `variants`."""
        from data_modules.reading.episodes import frame_keys

        index = int(self.order[draw.index])
        row, anchor, ahead, actions = (
            self.documents.data.column(name)[index].as_py() for name in ("row", "anchor", "ahead", "ids")
        )
        if self.variants[draw.variant] == "action_dropped":
            actions = [[] for _ in actions]
        numbers = [anchor - i * self.frame_step for i in reversed(range(self.context))]
        numbers += [anchor + steps * self.frame_step for steps in ahead]
        frames = self.frames(frame_keys(row, np.array(numbers)).tolist(), clean=self.context)
        context, targets = frames[: self.context], frames[self.context :]
        t = self.format.tokenizer
        segments: list[Segment] = [Text(t.ids(t.bos_id, t.boi_id), loss=False)]
        for picture in context[:-1]:
            segments += [picture, Text(t.ids(t.eoi_id, t.boi_id), loss=False)]
        segments.append(context[-1])
        for branch, (action, target) in enumerate(zip(actions, targets, strict=True), start=1):
            segments += [
                Text(torch.tensor([t.eoi_id, *action, t.boi_id]), loss=False, branch=branch),
                replace(target, branch=branch),
                Text(t.ids(t.eoi_id, t.eos_id), branch=branch),
            ]
        return Document(tuple(segments), self.source)

    def picture_keys(self) -> np.ndarray:
        """Frames of contexts and targets; documents share theirs."""
        from data_modules.reading.episodes import frame_keys

        columns = self.documents.data
        row, anchor = (columns.column(name).to_numpy() for name in ("row", "anchor"))
        shown = [frame_keys(row, anchor - i * self.frame_step) for i in range(self.context)]
        steps = [chunk.value_lengths().to_numpy() for chunk in columns.column("ahead").chunks]
        ahead = np.concatenate([chunk.flatten().to_numpy() for chunk in columns.column("ahead").chunks])
        of = np.repeat(np.arange(len(row)), np.concatenate(steps))
        shown.append(frame_keys(row[of], anchor[of] + ahead * self.frame_step))
        return np.unique(np.concatenate([np.unique(keys) for keys in shown]))
