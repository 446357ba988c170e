"""Raw pixels as visual tokens: the baseline with no encoder at all."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_mm.mistake import Mistake
from lit_mm.vision.base import VisualTokenizer


class Pixels(VisualTokenizer):
    """Flattened RGB patches scaled to [-1, 1]; `decode` is the exact inverse of `encode`.

    The paper's pixel baseline uses 14x14 patches of 224x224 pictures, 256 tokens of 588 channels (paper §3).
    A token lists its pixels row by row, the three colours of a pixel together.

    Args:
        image_size: side of the square pictures, in pixels.
        patch_size: side of a patch, in pixels.

    Raises:
        Mistake: `image_size` is not a multiple of `patch_size`.
    """

    def __init__(self, image_size: int = 64, patch_size: int = 16) -> None:
        super().__init__()
        if image_size < 1 or patch_size < 1 or image_size % patch_size:
            raise Mistake(f"vision.image_size is {image_size}, but must be a multiple of patch_size {patch_size}")
        self.image_size = image_size
        self.patch_size = patch_size
        self.num_tokens = (image_size // patch_size) ** 2
        self.channels = 3 * patch_size**2

    def encode(self, images: Tensor) -> Tensor:
        """(F, 3, image_size, image_size) uint8 to (F, num_tokens, channels) float32 in [-1, 1]."""
        self.check_images(images)
        grid, patch = self.image_size // self.patch_size, self.patch_size
        patches = images.reshape(-1, 3, grid, patch, grid, patch).permute(0, 2, 4, 3, 5, 1)
        return patches.reshape(-1, self.num_tokens, self.channels).float() / 127.5 - 1

    def decode(self, latents: Tensor) -> Tensor:
        """(F, num_tokens, channels) to (F, 3, image_size, image_size) uint8; values outside [-1, 1] are clipped."""
        grid, patch = self.image_size // self.patch_size, self.patch_size
        values = ((latents.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        patches = values.reshape(-1, grid, grid, patch, patch, 3).permute(0, 5, 1, 3, 2, 4)
        return patches.reshape(-1, 3, self.image_size, self.image_size)

    def fingerprint(self) -> str:
        """Pixels have no weights: the patching says it all."""
        return f"pixels:{self.image_size}/{self.patch_size}"
