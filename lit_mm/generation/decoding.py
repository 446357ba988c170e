"""Decoding: continue rows with text, one token at a time, or with one frame, from noise to data.

Every step runs the whole row again, through the same packing and the same forward pass as training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_mm.backbone.layout import SequenceLayout
from lit_mm.flow.guidance import guide
from lit_mm.flow.matching import FlowMatching
from lit_mm.flow.sampler import FlowSampler
from lit_mm.model import ModelOutput, MultimodalTransformer
from lit_mm.sequence import Document, Frame, PackedBatch, PackedRow, Segment, Text, pack_rows
from lit_mm.tokenizer import Tokenizer
from lit_mm.vision.base import VisualTokenizer

Prefix = Sequence[Segment]


@dataclass(frozen=True)
class Decoder:
    """Continues prefixes, which are segments as a document has them, up to where the answer begins.

    Args:
        model: the trained model.
        vision: its visual tokenizer.
        flow: how the velocity head's output is read.
        sampler: solves the flow.
        tokenizer: its text tokenizer.
    """

    model: MultimodalTransformer
    vision: VisualTokenizer
    flow: FlowMatching
    sampler: FlowSampler
    tokenizer: Tokenizer

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @torch.no_grad()
    def write_text(
        self, prefixes: Sequence[Prefix], seeds: Sequence[int], *, max_tokens: int, temperature: float = 0.0
    ) -> list[list[int]]:
        """Continue each prefix with text until `<eos>`, `<boi>` or `max_tokens`; the delimiter is not returned.

        Args:
            prefixes: what each answer follows.
            seeds: one per prefix; the same seed gives the same answer whatever else is in the list.
            max_tokens: longest answer.
            temperature: of sampling; 0 takes the most likely token.
        """
        generators = [torch.Generator(self.device).manual_seed(seed) for seed in seeds]
        answers: list[list[int]] = [[] for _ in prefixes]
        open_rows = list(range(len(prefixes)))
        nowhere = torch.zeros(0, dtype=torch.int64, device=self.device)
        latents, read = self.vision.encode_frames(self._pack(prefixes).frames, drawn_frames=nowhere)
        clean = torch.ones(len(latents), device=self.device)
        stops = {self.tokenizer.eos_id, self.tokenizer.boi_id}
        for _ in range(max_tokens):
            rows = [[*p, Text(torch.tensor(a, dtype=torch.int64))] for p, a in zip(prefixes, answers, strict=True)]
            batch = self._pack(rows)
            last = (batch.document_ids == 0).sum(1) - 1 + torch.arange(len(rows), device=self.device) * _length(batch)
            logits = self._forward(batch, latents, read, clean, text_at=last).text
            for row in list(open_rows):
                token = _choose(logits[row], temperature, generators[row])
                if token in stops:
                    open_rows.remove(row)
                else:
                    answers[row].append(token)
            if not open_rows:
                break
        return answers

    @torch.no_grad()
    def draw_frames(self, prefixes: Sequence[Prefix], seeds: Sequence[int]) -> Tensor:
        """Draw one frame behind each prefix, which ends with `<boi>`.

        With guidance the same frame is also predicted without the prefix's text, as in the documents whose condition
        was dropped in training (paper §1.6).

        Args:
            prefixes: what each frame follows.
            seeds: of the noise, one per prefix.

        Returns:
            (prefixes, 3, image_size, image_size) uint8.
        """
        shape = (self.vision.num_tokens, self.vision.channels)
        blank = Frame(torch.zeros(3, self.vision.image_size, self.vision.image_size, dtype=torch.uint8))
        guided = self.sampler.guidance_scale != 1.0
        rows = [[*p, blank] for p in prefixes]
        rows += [[*self._without_text(p), blank] for p in prefixes] if guided else []
        batch = self._pack(rows)
        last = torch.tensor(batch.frames_per_row, device=self.device).cumsum(0) - 1
        latents, read = self.vision.encode_frames(batch.frames, drawn_frames=last)

        def velocity(z: Tensor, t: Tensor) -> Tensor:
            doubled = torch.cat([z, z]) if guided else z
            timesteps = torch.ones(len(latents), device=self.device).index_fill(0, last, float(t.flatten()[0]))
            noised = latents.index_copy(0, last, doubled)
            output = self._forward(batch, noised, read, timesteps, drawn=last).visual
            v = self.flow.velocity(output.float(), doubled, timesteps[last])
            if not guided:
                return v
            conditional, unconditional = v.chunk(2)
            return guide(conditional, unconditional, self.sampler.guidance_scale)

        noise = torch.stack(
            [
                torch.randn(shape, generator=torch.Generator(self.device).manual_seed(s), device=self.device)
                for s in seeds
            ]
        )
        return self.vision.decode(self.sampler.sample(velocity, noise, self.flow.noise_shift(*shape)))

    def _without_text(self, prefix: Prefix) -> list[Segment]:
        t = self.tokenizer
        delimiters = torch.tensor([t.bos_id, t.eos_id, t.boi_id, t.eoi_id])
        return [Text(s.ids[torch.isin(s.ids, delimiters)]) if isinstance(s, Text) else s for s in prefix]

    def _pack(self, rows: Sequence[Prefix]) -> PackedBatch:
        documents = [Document(tuple(row), "prompt") for row in rows]
        length = max(d.length(self.vision.num_tokens) for d in documents)
        return pack_rows(
            [PackedRow((document,), 0, 0) for document in documents],
            length=length,
            tokens_per_frame=self.vision.num_tokens,
            image_size=self.vision.image_size,
            pad_id=self.tokenizer.pad_id,
            sources=("prompt",),
        ).to(self.device)

    def _forward(
        self,
        batch: PackedBatch,
        latents: Tensor,
        read: Tensor | None,
        timesteps: Tensor,
        text_at: Tensor | None = None,
        drawn: Tensor | None = None,
    ) -> ModelOutput:
        nowhere = torch.zeros(0, dtype=torch.int64, device=self.device)
        return self.model(
            batch.tokens,
            SequenceLayout(batch.document_ids, batch.frame_ids, batch.positions),
            latents,
            timesteps,
            batch.visual_positions,
            nowhere if text_at is None else text_at,
            nowhere if drawn is None else drawn,
            read=read,
        )


def _length(batch: PackedBatch) -> int:
    return batch.tokens.shape[1]


def _choose(logits: Tensor, temperature: float, generator: torch.Generator) -> int:
    if temperature == 0.0:
        return int(logits.argmax())
    probabilities = torch.softmax(logits.float() / temperature, dim=-1)
    return int(torch.multinomial(probabilities, 1, generator=generator))
