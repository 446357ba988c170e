"""Decoding: any interleaving of text and frames, with one model (paper)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from lit_mm.flow.sampler import FlowSampler
from lit_mm.generation.loop import Generation
from lit_mm.generation.parts import ModelParts
from lit_mm.generation.request import Continuation, Prefix, Request
from lit_mm.generation.rows import CachedRows
from lit_mm.generation.sampling import TextSampling


class Decoder(ModelParts):
    """Continues prefixes."""

    @torch.no_grad()
    def generate(self, requests: Sequence[Request]) -> list[Continuation]:
        """Continue every request; all are decoded together.

        Where the model is sharded, all processes ask the same at the same time.
        """
        with uncompiled():
            return Generation(self, requests).run()

    @torch.no_grad()
    def score(self, prefixes: Sequence[Prefix]) -> list[Tensor]:
        """Logits (positions, vocabulary) of what comes behind every position of each prefix."""
        encoded = self.encode(prefixes)
        with uncompiled():
            return CachedRows(self.model, self.vision, self.flow, len(encoded)).append_all(range(len(encoded)), encoded)

    def write_text(
        self, prefixes: Sequence[Prefix], seeds: Sequence[int], *, max_tokens: int, temperature: float = 0.0
    ) -> list[list[int]]:
        """Continue each prefix with text alone, until `<eos>`, which is not returned, or `max_tokens`."""
        sampling = TextSampling(temperature)
        requests = [Request(p, seed, max_tokens, sampling=sampling) for p, seed in zip(prefixes, seeds, strict=True)]
        return [answer.ids for answer in self.generate(requests)]

    def draw_latents(
        self, prefixes: Sequence[Prefix], seeds: Sequence[int], sampler: FlowSampler | None = None
    ) -> Tensor:
        """Draw one frame behind each prefix, which ends with `<boi>`.

        Returns:
            (prefixes, N, C); where frames are read by other tokens, those stand behind the C channels.
        """
        requests = [Request(p, s, max_frames=1, sampler=sampler) for p, s in zip(prefixes, seeds, strict=True)]
        return torch.stack([answer.latents[0] for answer in self.generate(requests)])

    def draw_frames(self, prefixes: Sequence[Prefix], seeds: Sequence[int]) -> Tensor:
        """As `draw_latents`, but (prefixes, 3, image_size, image_size) uint8."""
        return self.decode(self.draw_latents(prefixes, seeds))


@contextmanager
def uncompiled() -> Iterator[None]:
    """Rows grow with every call: compiled blocks would be compiled for length after length."""
    with torch.compiler.set_stance("force_eager"):
        yield
