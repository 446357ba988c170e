"""Rows that grow while they are decoded: what they hold is computed once and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lit_mm.backbone.cache import CachedContext
from lit_mm.backbone.layout import SequenceLayout
from lit_mm.flow.matching import FlowMatching
from lit_mm.model.heads import VisualTokens
from lit_mm.model.multimodal import MultimodalTransformer
from lit_mm.packing import pack_rows
from lit_mm.sequence import Document, PackedRow, Segment
from lit_mm.vision.base import VisualTokenizer
from lit_mm.vision.latents import tokens_from_store


class CachedRows:
    """Rows of one document each, with the keys and values of all they hold.

    Frames are given as latents, see `lit_mm.vision.latents.encode_to_store`. The last dimension of what is returned is
    the model's own; R counts the rows that a call names.

    Args:
        model: the trained model.
        vision: its visual tokenizer.
        flow: how the model is shown noisy tokens.
        count: number of rows.

    Attributes:
        lengths: positions that each row holds.
    """

    def __init__(self, model: MultimodalTransformer, vision: VisualTokenizer, flow: FlowMatching, count: int) -> None:
        self.model, self.vision, self.flow = model, vision, flow
        self.cache = model.backbone.new_cache(count, model.compute_dtype)
        self.lengths = [0] * count
        self.device = self.cache.memory.device

    def append(self, rows: Sequence[int], segments: Sequence[Sequence[Segment]]) -> Tensor:
        """Read what comes next, at least one segment a row; frames among it are clean.

        Returns:
            (R, vocabulary) logits of the token behind it.
        """
        return torch.stack([logits[-1] for logits in self._append(rows, segments, every=False)])

    def append_all(self, rows: Sequence[int], segments: Sequence[Sequence[Segment]]) -> list[Tensor]:
        """As `append`, with logits (positions, vocabulary) behind each of a row's new positions."""
        return self._append(rows, segments, every=True)

    def _append(self, rows: Sequence[int], segments: Sequence[Sequence[Segment]], every: bool) -> list[Tensor]:
        documents = [Document(tuple(s), "prompt") for s in segments]
        counts = [d.length(self.vision.num_tokens) for d in documents]
        batch = pack_rows(
            [PackedRow((document,), 0, 0) for document in documents],
            length=max(counts),
            tokens_per_frame=self.vision.num_tokens,
            image_size=self.vision.image_size,
            pad_id=0,  # padding is told from text by its document
            sources=("prompt",),
        ).to(self.device)
        starts = torch.tensor([self.lengths[row] for row in rows], device=self.device)
        layout = SequenceLayout(batch.document_ids, batch.frame_ids, batch.positions + starts[:, None])
        latents, read = self._tokens(batch.frames)
        length = batch.tokens.shape[1]
        asked = [torch.arange(0 if every else n - 1, n) + row * length for row, n in enumerate(counts)]
        wanted = torch.cat(asked).to(self.device)
        clean = torch.ones(len(latents), device=self.device)
        shown = self.flow.parameterisation.network_input(latents, clean)
        visual = VisualTokens(shown, clean, batch.visual_positions, wanted[:0], read)
        logits = self._next(batch.tokens, layout, visual if len(latents) else None, rows, wanted)
        for row, count in zip(rows, counts, strict=True):
            self.lengths[row] += count
        return list(logits.split([len(places) for places in asked]))

    def _next(
        self, tokens: Tensor, layout: SequenceLayout, visual: VisualTokens | None, rows: Sequence[int], wanted: Tensor
    ) -> Tensor:
        """Logits behind some of the rows' new tokens, numbered among all of them."""
        output = self.model.hidden(tokens, layout, visual, self._contexts(rows, layout), wanted)
        return self.model.logits(output.hidden[0])

    def forget(self, row: int, length: int) -> None:
        """Go back to where a row held `length` positions; what comes next is written over the rest."""
        self.lengths[row] = length

    def append_tokens(self, rows: Sequence[int], tokens: Sequence[int]) -> Tensor:
        """Read one more token of text a row; as `append`, with less ado.

        Returns:
            (R, vocabulary) logits of the token behind it.
        """
        ids, positions = torch.tensor([tokens, [self.lengths[row] for row in rows]], device=self.device)[..., None]
        zeros = torch.zeros_like(ids, dtype=torch.int32)
        layout = SequenceLayout(zeros, zeros - 1, positions)
        logits = self._next(ids, layout, None, rows, torch.arange(len(rows), device=self.device))
        for row in rows:
            self.lengths[row] += 1
        return logits

    def frame(self, rows: Sequence[int]) -> Callable[[Tensor, Tensor], Tensor]:
        """Open one more frame in each row.

        Returns:
            A function of noisy tokens (R, N, C) and timesteps (R,) that gives the model's prediction (R, N, C). It may
            be called again and again; the rows do not keep the frame, which `append` adds once it is clean.
        """
        number, tokens = len(rows), self.vision.num_tokens
        starts = torch.tensor([self.lengths[row] for row in rows], device=self.device)
        zeros = torch.zeros(number, tokens, dtype=torch.int64, device=self.device)
        ids = zeros.int()
        layout = SequenceLayout(ids, ids, starts[:, None] + torch.arange(tokens, device=self.device))
        positions = torch.arange(number * tokens, device=self.device).view(number, tokens)
        every = torch.arange(number, device=self.device)
        contexts = self._contexts(rows, layout)

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            shown = self.flow.parameterisation.network_input(noisy, timesteps)
            visual = VisualTokens(shown, timesteps, positions, every)
            return self.model.velocity(self.model.hidden(zeros, layout, visual, contexts).hidden)

        return predict

    def _tokens(self, frames: Tensor) -> tuple[Tensor, Tensor | None]:
        if not len(frames):
            return torch.zeros(0, self.vision.num_tokens, self.vision.channels, device=self.device), None
        return tokens_from_store(self.vision, frames)

    def _contexts(self, rows: Sequence[int], layout: SequenceLayout) -> list[CachedContext]:
        longest = max(self.lengths[row] for row in rows) + layout.positions.shape[1]
        return self.cache.contexts(layout, rows, longest)
