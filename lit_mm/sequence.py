"""The contract between data and model: documents of text and frames, packed into rows of fixed length.

Data modules make `Document`s, `lit_mm.packing` lays them into a `PackedBatch`, and the model reads nothing else.

Shape letters used in this project: B rows, L positions in a row, F frames in a batch, N tokens in a frame,
V visual positions in a batch (V = F * N), D model width, C channels of a visual token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

IGNORE = -100  # target of positions that carry no text loss, the value PyTorch's cross-entropy skips


@dataclass(frozen=True)
class Text:
    """Token ids with their delimiters. `ids` (n,) int64. Where `loss` is false the ids are read, never predicted.

    `branch`: see `Document`.
    """

    ids: Tensor
    loss: bool = True
    branch: int = 0

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Frame:
    """One picture: `image` (3, height, width) uint8 RGB, or the latents (N, C) that were made of it before.

    A `clean` frame is read: it sits at t = 1 and carries no flow loss (ours: the paper does not say how frames are
    read; what it states, a t of its own and flow loss on every frame, is `read_frames: noised` of
    `lit_mm.flow.FlowMatching`). Any other frame is noised and drawn.
    `origin` says where the picture is from, for messages: its path, and in a video the frame's number. `branch`: see
    `Document`.
    """

    image: Tensor
    clean: bool = False
    origin: str = ""
    branch: int = 0


Segment = Text | Frame


@dataclass(frozen=True)
class Document:
    """Segments in reading order, and the name of the source they came from.

    Segments of branch 0 are read by all that follows. Those of branch 1, 2, ... are so many different ways to go on
    from there: each is placed right behind what came of branch 0 before it and sees nothing of the other branches, as
    if that had been written out before every one of them. Branch 0 may go on behind them and sees none of them.
    """

    segments: tuple[Segment, ...]
    source: str

    def length(self, tokens_per_frame: int) -> int:
        """Positions this document takes in a row."""
        return sum(tokens_per_frame if isinstance(s, Frame) else len(s) for s in self.segments)

    def slice_text(self, start: int, stop: int) -> Document:
        """Positions `start` to `stop` of a document that is text only.

        Raises:
            ValueError: the document holds a frame; frames are never split.
        """
        if any(isinstance(s, Frame) for s in self.segments):
            raise ValueError(f"a document of source '{self.source}' was split, but it holds frames")
        ids = torch.cat([s.ids for s in self.segments if isinstance(s, Text)])[start:stop]
        loss = all(s.loss for s in self.segments if isinstance(s, Text))
        return Document((Text(ids, loss),), self.source)


@dataclass
class PackedBatch:
    """Rows of packed documents, ready for the model.

    Attributes:
        tokens: (B, L) int64, text ids; the padding id at visual and padding positions.
        targets: (B, L) int64, the next token where it and this position are text of one document and it carries loss,
            else IGNORE.
        document_ids: (B, L) int32, 0, 1, ... within a row, -1 for padding.
        frame_ids: (B, L) int32, 0, 1, ... within a row, -1 for text and padding.
        positions: (B, L) int64, counted from 0 in every document (for rotary embeddings); in every branch of it from
            the end of what came of branch 0 before it.
        branch_ids: (B, L) int32, the branch of the document; 0 for padding.
        source_ids: (B, L) int64, index into `sources`, -1 for padding.
        frames: (F, 3, height, width) uint8, or (F, N, C) floating-point latents that were made of such pictures
            before; row by row in reading order. A batch without frames has the former shape.
        frame_origins: F strings, where each frame is from.
        frame_clean: (F,) bool, true for frames that are read only.
        drawn_frames: (F',) int64, indices of the frames that are not clean.
        frames_per_row: B numbers, how many of the frames lie in each row.
        frame_source_ids: (F,) int64, index into `sources`.
        visual_positions: (F, N) int64, index of every visual token into the flattened (B * L) positions.
        predicted_positions: (T,) int64, flattened index of every position whose target is not IGNORE. This one and
            `drawn_frames` could be had from masks; counting a mask on a GPU would stall every step, so it is done here.
        seeds: B numbers, one per row. All noise of a row is drawn from its seed, so a resumed run, or a run on
            another number of ranks, sees the same noise for the same row.
        row_numbers: B numbers, the rows' places in the plan.
        sources: names, in the order that the ids count.
        step_counts: how many tokens are predicted, frames drawn, and frames there are in all micro-batches of the
            optimizer step that this one is of, on this rank: what its mean losses are to be divided by.
        plan_state: where the plan stands once every rank has consumed this step's rows; see
            `data_modules.mixing.sampler`.
        skipped: per source, a sentence for each document left out because its file broke while being read.
        reading: per source, seconds that reading took, and documents that were read.
    """

    tokens: Tensor
    targets: Tensor
    document_ids: Tensor
    frame_ids: Tensor
    positions: Tensor
    branch_ids: Tensor
    source_ids: Tensor
    frames: Tensor
    frame_clean: Tensor
    drawn_frames: Tensor
    frame_source_ids: Tensor
    visual_positions: Tensor
    predicted_positions: Tensor
    frames_per_row: tuple[int, ...]
    frame_origins: tuple[str, ...]
    seeds: tuple[int, ...]
    row_numbers: tuple[int, ...]
    sources: tuple[str, ...]
    step_counts: tuple[int, int, int]
    plan_state: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    reading: dict[str, tuple[float, int]] = field(default_factory=dict)

    def __getstate__(self) -> dict[str, Any]:
        """Each tensor that another process is sent costs a file, so all but the frames are sent as one."""
        state = dict(vars(self))
        names = [name for name, value in state.items() if isinstance(value, Tensor) and name != "frames"]
        names.sort(key=lambda name: -state[name].itemsize)  # so that numbers of 8 bytes begin at multiples of 8
        tensors = {name: state.pop(name) for name in names}
        state["_forms"] = [(name, tensor.dtype, tensor.shape) for name, tensor in tensors.items()]
        state["_bytes"] = torch.cat([tensor.flatten().view(torch.uint8) for tensor in tensors.values()])
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        forms, content = state.pop("_forms"), state.pop("_bytes")
        parts = content.split([kind.itemsize * shape.numel() for _, kind, shape in forms])
        tensors = {name: part.view(kind).view(shape) for part, (name, kind, shape) in zip(parts, forms, strict=True)}
        self.__dict__.update(state | tensors)

    def _map(self, function: Callable[[Tensor], Tensor]) -> PackedBatch:
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {k: function(v) for k, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **moved)

    def with_all_frames_drawn(self) -> PackedBatch:
        """The same batch without clean frames: each is noised and carries flow loss."""
        every = torch.arange(len(self.frame_clean), device=self.frame_clean.device)
        return replace(
            self,
            frame_clean=torch.zeros_like(self.frame_clean),
            drawn_frames=every,
            step_counts=(self.step_counts[0], self.step_counts[2], self.step_counts[2]),
        )

    def to(self, device: Any, non_blocking: bool = False) -> PackedBatch:
        """The same batch on another device."""
        return self._map(lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> PackedBatch:
        """The same batch in page-locked memory (called by the DataLoader)."""
        return self._map(lambda t: t.pin_memory())


@dataclass(frozen=True)
class PackedRow:
    """What one row holds: its documents in order, its number in the plan and the seed of its noise."""

    documents: tuple[Document, ...]
    number: int
    seed: int


def show_row(batch: PackedBatch, row: int, decode: Callable[[list[int]], str]) -> str:
    """A packed row as lines a person can read: position range, source, text or frame, and which ids are predicted.

    `decode` turns token ids into text, for instance `Tokenizer.decode`.
    """
    length = batch.tokens.shape[1]
    frames_before = sum(batch.frames_per_row[:row])
    lines = [f"row {batch.row_numbers[row]}: {length} positions, seed {batch.seeds[row]}"]
    at = 0
    while at < length:
        document, frame = int(batch.document_ids[row, at]), int(batch.frame_ids[row, at])
        stop = at + 1
        while (
            stop < length
            and int(batch.document_ids[row, stop]) == document
            and int(batch.frame_ids[row, stop]) == frame
        ):
            stop += 1
        if document < 0:
            lines.append(f"  {at:5d}-{stop - 1:<5d} padding")
        else:
            source = batch.sources[int(batch.source_ids[row, at])]
            if frame >= 0:
                index = frames_before + frame
                kind = "clean frame, read" if bool(batch.frame_clean[index]) else "frame, drawn"
                what = f"[{kind}: {stop - at} tokens of {_shown(batch.frames[index])}]"
            else:
                text = decode(batch.tokens[row, at:stop].tolist())
                shown = text if len(text) <= 160 else f"{text[:100]} … {text[-50:]}"
                predicted = int((batch.targets[row, at:stop] != IGNORE).sum())
                what = f"{shown!r}  ({predicted} of {stop - at} ids predict the next)"
            lines.append(f"  {at:5d}-{stop - 1:<5d} document {document} ({source}) {what}")
        at = stop
    return "\n".join(lines)


def _shown(frame: Tensor) -> str:
    return (
        f"{frame.shape[-1]} channels" if frame.is_floating_point() else f"a {frame.shape[-2]}x{frame.shape[-1]} picture"
    )
