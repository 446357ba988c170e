"""What the model asks of a visual tokenizer, whichever it is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class VisualTokenizer(nn.Module, ABC):
    """Pictures to visual tokens and back. Frozen: it is never trained with the model that uses it.

    Attributes:
        image_size: side of the square pictures it takes, in pixels.
        num_tokens: tokens of one picture.
        channels: channels of one token.
    """

    image_size: int
    num_tokens: int
    channels: int

    @abstractmethod
    def encode(self, images: Tensor) -> Tensor:
        """(F, 3, image_size, image_size) uint8 to (F, num_tokens, channels) float32 of about unit variance."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """(F, num_tokens, channels) to (F, 3, image_size, image_size) uint8."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Name and hash of all that latents depend on: equal fingerprints, equal latents for equal pictures."""

    def check_images(self, images: Tensor) -> None:
        """Refuse what `encode` cannot take.

        Raises:
            ValueError: `images` is not (F, 3, image_size, image_size) uint8.
        """
        size = self.image_size
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1:] != (3, size, size):
            raise ValueError(
                f"pictures of shape {tuple(images.shape)} and type {images.dtype} were given to a visual tokenizer "
                f"that takes (frames, 3, {size}, {size}) uint8"
            )
