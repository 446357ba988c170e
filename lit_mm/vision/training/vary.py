"""Random changes of pictures that leave their captions true: size, place and light, but not left and right."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Variation:
    """How far pictures are changed, each in its own way.

    Pictures are never mirrored, as captions name sides, and hues stay, as captions name colours.

    Args:
        zoom: the picture's size is drawn from 1 - zoom to 1 + zoom.
        shift: it moves by up to this share of its side; what enters repeats the border.
        light: brightness and contrast are drawn from 1 - light to 1 + light.
    """

    zoom: float = 0.15
    shift: float = 0.1
    light: float = 0.15

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """(P, 3, size, size) uint8 to float32 in [0, 1].

        Args:
            images: uint8 RGB.
            generator: of the random draws, on the device of the pictures.
        """
        values = images.float() / 255
        if not (self.zoom or self.shift or self.light):
            return values
        count, device = len(images), images.device
        scale, right, down, bright, contrast = 2 * torch.rand(5, count, device=device, generator=generator) - 1
        size = 1 + self.zoom * scale
        zero = torch.zeros_like(size)
        rows = [torch.stack([1 / size, zero, 2 * self.shift * right], -1)]
        rows += [torch.stack([zero, 1 / size, 2 * self.shift * down], -1)]
        grid = F.affine_grid(torch.stack(rows, 1), list(values.shape), align_corners=False)
        values = F.grid_sample(values, grid, mode="bilinear", padding_mode="border", align_corners=False)
        mean = values.mean((1, 2, 3), keepdim=True)
        values = mean + (values - mean) * (1 + self.light * contrast).view(-1, 1, 1, 1)
        return (values * (1 + self.light * bright).view(-1, 1, 1, 1)).clamp(0, 1)
