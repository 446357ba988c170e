"""Decoding without a cache, for comparison: the whole row runs through the model again for every token and every step.

Rows are packed as in training and nothing of `lit_mm.generation` is used. Noise, choice of tokens, guidance and the
order of text and frames are written out here once more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lit_mm.backbone.layout import SequenceLayout
from lit_mm.flow.matching import FlowMatching
from lit_mm.flow.sampler import FlowSampler
from lit_mm.generation.request import frame_seed
from lit_mm.model.heads import VisualTokens
from lit_mm.model.multimodal import MultimodalTransformer
from lit_mm.packing import pack_rows
from lit_mm.sequence import Document, Frame, PackedRow, Segment, Text
from lit_mm.tokenizer import Tokenizer
from lit_mm.vision.base import VisualTokenizer

Row = Sequence[Segment]


class Written(NamedTuple):
    """What one row was continued with: texts and frames as latents, and the logits of each token that could come."""

    segments: list[Segment]
    logits: list[Tensor]


class Uncached:
    """Continues one row at a time."""

    def __init__(
        self,
        model: MultimodalTransformer,
        vision: VisualTokenizer,
        flow: FlowMatching,
        sampler: FlowSampler,
        tokenizer: Tokenizer,
    ) -> None:
        self.model, self.vision, self.flow, self.sampler, self.tokenizer = model, vision, flow, sampler, tokenizer

    @torch.no_grad()
    def logits(self, row: Row) -> Tensor:
        """(vocabulary,) of the token behind a row."""
        return self.model.logits(self._run(row)[0][-1])

    @torch.no_grad()
    def frame(self, prefix: Row, seed: int, number: int = 0) -> Tensor:
        """(N, C) latents of the n-th frame of an answer, behind a prefix that ends with `<boi>`."""
        sampler = self.sampler
        shape = (1, self.vision.num_tokens, self.vision.channels)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(frame_seed(seed, number)))

        def velocity_of(row: Row, z: Tensor, t: Tensor) -> Tensor:
            hidden, positions = self._run([*row, Frame(z[0])], at=float(t[0]))
            return self.flow.parameterisation.velocity(self.model.velocity(hidden[positions]), z, t)

        def velocity(z: Tensor, t: Tensor) -> Tensor:
            conditional = velocity_of(prefix, z, t)
            if sampler.guidance_scale == 1.0:
                return conditional
            unconditional = velocity_of(self._pictures_and_delimiters(prefix), z, t)
            return (1 - sampler.guidance_scale) * unconditional + sampler.guidance_scale * conditional

        return sampler.sample(velocity, noise, self.flow.noise_shift(*shape[1:]))[0]

    @torch.no_grad()
    def continue_row(
        self,
        prefix: Row,
        choose: Callable[[Tensor, int], int],
        seed: int = 0,
        max_tokens: int = 0,
        max_frames: int = 0,
    ) -> Written:
        """Text, and behind every `<boi>` a frame and `<eoi>`, until `<eos>` or as many tokens as are wanted.

        Args:
            prefix: what to continue.
            choose: from logits (vocabulary,) without those that cannot come, and the number of the token.
            seed: of the answer.
            max_tokens: delimiters included.
            max_frames: behind so many, `<boi>` cannot come.
        """
        t = self.tokenizer
        made, logits, drawn, tokens = list[Segment](), list[Tensor](), 0, 0
        last = prefix[-1]
        frame_next = isinstance(last, Text) and last.ids[-1] == t.boi_id
        while True:
            if frame_next:
                if drawn == max_frames:
                    break
                latents = self.frame([*prefix, *made], seed, drawn)
                made.append(Frame(latents, clean=True))
                drawn, frame_next = drawn + 1, False
                if tokens == max_tokens:
                    break
                made.append(Text(torch.tensor([t.eoi_id])))
                tokens += 1
            if tokens == max_tokens:
                break
            scores = self.logits([*prefix, *made])
            impossible = [t.pad_id, t.bos_id, t.eoi_id] + ([t.boi_id] if drawn == max_frames else [])
            possible = scores.clone()
            possible[impossible] = -torch.inf
            logits.append(possible)
            token = choose(possible, len(logits) - 1)
            if token == t.eos_id:
                break
            made.append(Text(torch.tensor([token])))
            tokens += 1
            frame_next = token == t.boi_id
        return Written(made, logits)

    def _pictures_and_delimiters(self, row: Row) -> list[Segment]:
        t = self.tokenizer
        kept = (t.bos_id, t.eos_id, t.boi_id, t.eoi_id)
        return [Text(torch.tensor([i for i in s.ids.tolist() if i in kept])) if isinstance(s, Text) else s for s in row]

    def _run(self, row: Row, at: float = 1.0) -> tuple[Tensor, Tensor]:
        """Vectors (L, D) of the row, and where in it the drawn frames are; the last one is at time `at`."""
        document = Document(tuple(Text(s.ids) if isinstance(s, Text) else self._blank(s) for s in row), "row")
        batch = pack_rows(
            [PackedRow((document,), 0, 0)],
            length=document.length(self.vision.num_tokens),
            tokens_per_frame=self.vision.num_tokens,
            image_size=self.vision.image_size,
            pad_id=self.tokenizer.pad_id,
            sources=("row",),
        )
        shown, read = self._tokens([s for s in row if isinstance(s, Frame)])
        times = torch.ones(len(shown)).masked_fill(~batch.frame_clean, at)
        visual = VisualTokens(
            self.flow.parameterisation.network_input(shown, times),
            times,
            batch.visual_positions,
            batch.drawn_frames,
            read,
        )
        layout = SequenceLayout(batch.document_ids, batch.frame_ids, batch.positions)
        hidden = self.model.hidden(batch.tokens, layout, visual if len(shown) else None).hidden[0]
        return hidden, batch.visual_positions[batch.drawn_frames]

    def _blank(self, frame: Frame) -> Frame:
        size = self.vision.image_size
        return Frame(torch.zeros(3, size, size, dtype=torch.uint8), frame.clean)

    def _tokens(self, frames: list[Frame]) -> tuple[Tensor, Tensor | None]:
        """What is drawn or read of each frame, pixels or latents, clean or not."""
        channels, tokens = self.vision.channels, self.vision.num_tokens
        if not frames:
            return torch.zeros(0, tokens, channels), None
        drawn, read = [], []
        for frame in frames:
            pixels = not frame.image.is_floating_point()
            drawn.append(self.vision.encode(frame.image[None])[0] if pixels else frame.image[:, :channels])
            if self.vision.read_channels is not None:
                picture = frame.image[None] if pixels else self.vision.decode(frame.image[None, :, :channels])
                read.append(self.vision.read(picture)[0])
        return torch.stack(drawn), torch.stack(read) if read else None
