"""Differentiable augmentation of what a discriminator sees (Zhao et al., arXiv 2006.10738)."""

from __future__ import annotations

import torch
from torch import Tensor

SHIFT = 0.125  # of a picture's side


def diff_augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Change brightness, saturation and contrast of each picture, and shift it; what enters is mid-grey.

    The policies `color` and `translation` with the ranges of the paper. Gradients pass through.

    Args:
        images: (F, 3, size, size), about [0, 1].
        generator: of the random draws, on the device of the pictures.
    """
    return _shift(_colour(images - 0.5, generator), generator) + 0.5


def _colour(centred: Tensor, generator: torch.Generator) -> Tensor:
    """Brightness by ±0.25, saturation by 0 to 2, contrast by 0.5 to 1.5."""
    count, device = len(centred), centred.device
    brightness, saturation, contrast = torch.rand(3, count, 1, 1, 1, device=device, generator=generator)
    bright = centred + (brightness - 0.5) / 2
    grey = bright.mean(1, keepdim=True)
    saturated = (bright - grey) * (2 * saturation) + grey
    level = saturated.mean((1, 2, 3), keepdim=True)
    return (saturated - level) * (contrast + 0.5) + level


def _shift(centred: Tensor, generator: torch.Generator) -> Tensor:
    """Shift by up to an eighth of the side in both directions."""
    count, _, size, _ = centred.shape
    device, most = centred.device, round(SHIFT * size)
    shift = torch.randint(-most, most + 1, (2, count, 1), device=device, generator=generator)
    rows, columns = torch.arange(size, device=device) + shift  # (F, size): where each pixel comes from
    inside = _is_inside(rows, size)[:, None, :, None] & _is_inside(columns, size)[:, None, None, :]
    moved = centred.gather(2, rows.clamp(0, size - 1)[:, None, :, None].expand_as(centred))
    moved = moved.gather(3, columns.clamp(0, size - 1)[:, None, None, :].expand_as(centred))
    return moved * inside


def _is_inside(index: Tensor, size: int) -> Tensor:
    return (index >= 0) & (index < size)
