"""Visual tokenizers that go wrong on purpose."""

import torch
from torch import Tensor

from lit_mm.vision import Pixels


class NanForRed(Pixels):
    """Raw pixels, but NaN for pictures whose first pixel is pure red."""

    def encode(self, images: Tensor) -> Tensor:
        latents = super().encode(images)
        red = (images[:, :, 0, 0] == torch.tensor([255, 0, 0], dtype=torch.uint8, device=images.device)).all(1)
        return latents.masked_fill(red[:, None, None], float("nan"))
