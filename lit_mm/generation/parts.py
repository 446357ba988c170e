"""A trained model and what its inputs and outputs pass through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_mm.flow.matching import FlowMatching
from lit_mm.flow.sampler import FlowSampler
from lit_mm.generation.request import Prefix
from lit_mm.model.multimodal import MultimodalTransformer
from lit_mm.sequence import Frame, Segment, Text
from lit_mm.tokenizer import Tokenizer
from lit_mm.vision.base import VisualTokenizer
from lit_mm.vision.latents import encode_to_store


@dataclass(frozen=True)
class ModelParts:
    """What reading and writing with a model takes.

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
    def encode(self, prefixes: Sequence[Prefix]) -> list[list[Segment]]:
        """The same prefixes with every picture as latents; one that is in several is encoded once."""
        pictures = {id(s.image): s.image.to(self.device) for p in prefixes for s in p if isinstance(s, Frame)}
        pixels = {key: image for key, image in pictures.items() if not image.is_floating_point()}
        if pixels:
            images = torch.stack(list(pixels.values()))
            pictures |= dict(zip(pixels, encode_to_store(self.vision, images), strict=True))
        return [
            [s if isinstance(s, Text) else Frame(pictures[id(s.image)], True, s.origin) for s in p] for p in prefixes
        ]

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Frames (F, N, C) as pictures (F, 3, image_size, image_size) uint8."""
        return self.vision.decode(latents[..., : self.vision.channels])

    @torch.no_grad()
    def read_again(self, latents: Tensor) -> Tensor:
        """Drawn frames (F, N, C) as the rows keep them: where frames are read by other tokens, read as pictures."""
        if self.vision.read_channels is None:
            return latents
        return torch.cat([latents, self.vision.read(self.vision.decode(latents))], dim=-1)

    def without_text(self, segments: Prefix) -> list[Segment]:
        """What the model is shown without its condition: pictures and delimiters (ours: the paper does not say)."""
        t = self.tokenizer
        delimiters = torch.tensor([t.bos_id, t.eos_id, t.boi_id, t.eoi_id])
        return [Text(s.ids[torch.isin(s.ids, delimiters)]) if isinstance(s, Text) else s for s in segments]
