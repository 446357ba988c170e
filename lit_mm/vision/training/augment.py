"""Random mirroring and shifting of pictures, on whichever device they are."""

from __future__ import annotations

import torch
from torch import Tensor


def augment(images: Tensor, max_shift: int, generator: torch.Generator) -> Tensor:
    """Mirror half of the pictures and shift each by up to `max_shift` pixels; what enters repeats the border.

    Args:
        images: (F, 3, size, size) uint8.
        max_shift: in pixels; 0 returns the pictures as they are.
        generator: of the random draws, on the device of the pictures.
    """
    if max_shift == 0:
        return images
    frames, _, size, _ = images.shape
    device = images.device
    here = torch.arange(size, device=device)
    shift = torch.randint(-max_shift, max_shift + 1, (2, frames, 1), device=device, generator=generator)
    rows, columns = (here + shift).clamp(0, size - 1)
    mirrored = torch.rand(frames, 1, device=device, generator=generator) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    picture = torch.arange(frames, device=device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[picture, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)
