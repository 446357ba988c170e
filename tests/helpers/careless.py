"""Visual tokenizers as somebody writes them who knows nothing of freezing and precisions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_mm.vision import VisualTokenizer

IMAGE_SIZE, TOKENS, CHANNELS = 64, 16, 32


class Careless(VisualTokenizer):
    """A trainable layer, a norm that changes in training mode, and a float64 buffer.

    Attributes:
        seen: of every call of `encode`, whether the modules were in training mode and whether gradients were kept.
        made: all that were made.
    """

    made: list[Careless] = []

    def __init__(self) -> None:
        super().__init__()
        self.image_size, self.num_tokens, self.channels = IMAGE_SIZE, TOKENS, CHANNELS
        self.into, self.back = nn.Linear(768, CHANNELS), nn.Linear(CHANNELS, 768)
        self.norm = nn.BatchNorm1d(TOKENS)
        self.register_buffer("offset", torch.full((CHANNELS,), 0.25, dtype=torch.float64))
        self.seen: list[tuple[bool, ...]] = []
        self.made.append(self)

    def encode(self, images: Tensor) -> Tensor:
        self.seen.append((self.training, self.norm.training, torch.is_grad_enabled()))
        return self.norm(self.into(images.reshape(-1, TOKENS, 768) / 255)) + self.offset

    def decode(self, latents: Tensor) -> Tensor:
        pixels = self.back(latents.sub(self.offset).float())
        return pixels.mul(255).clamp(0, 255).to(torch.uint8).view(-1, 3, IMAGE_SIZE, IMAGE_SIZE)

    def fingerprint(self) -> str:
        return "careless"


class Float32Only(Careless):
    """Puts numbers of its layer among float32 ones, which autocast does not help with."""

    def encode(self, images: Tensor) -> Tensor:
        tokens = torch.zeros(len(images), TOKENS, CHANNELS)
        tokens[:, torch.arange(TOKENS)] = self.into(images.reshape(-1, TOKENS, 768) / 255)
        return tokens


class InferenceMode(Careless):
    """Returns what no backward pass may keep."""

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        return self.into(images.reshape(-1, TOKENS, 768) / 255)
