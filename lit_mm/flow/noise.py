"""Noise and timesteps drawn row by row from the seeds that a batch carries.

A row sees the same noise whichever rank, worker or restarted run trains on it: nothing about random state has
to be stored to resume exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def per_row(
    seeds: Sequence[int],
    frames_per_row: Sequence[int],
    device: torch.device,
    draw: Callable[[torch.Generator, int], Tensor],
) -> Tensor:
    """Concatenate `draw(generator, frames_of_the_row)` over rows, each with a generator seeded by its row.

    Args:
        seeds: one per row.
        frames_per_row: how many frames each row holds, F in all.
        device: where to draw.
        draw: returns a tensor whose first dimension is the number of frames asked for.

    Returns:
        (F, ...) on `device`.
    """
    generator = torch.Generator(device=device)
    return torch.cat([draw(generator.manual_seed(s), n) for s, n in zip(seeds, frames_per_row, strict=True)])
