"""Which t is trained and sampled: the base distribution, and its shift towards noise for large pictures."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

TimestepDistribution = Literal["uniform", "logit_normal"]


def sample_timesteps(
    count: int, generator: torch.Generator, distribution: TimestepDistribution = "uniform", shift: float = 1.0
) -> Tensor:
    """Independent timesteps, on the generator's device.

    Args:
        count: how many, F.
        generator: the only source of randomness.
        distribution: `uniform` (paper), or `logit_normal`, the sigmoid of a standard normal, as in RAE's code and SD3
            (arXiv 2403.03206).
        shift: noise shift, see `shift_timesteps`.

    Returns:
        (F,) float32 in [0, 1).
    """
    if distribution == "uniform":
        base = torch.rand(count, generator=generator, device=generator.device, dtype=torch.float32)
    else:
        base = torch.randn(count, generator=generator, device=generator.device, dtype=torch.float32).sigmoid()
    return shift_timesteps(base, shift)


def noise_shift(tokens: int, channels: int, base: int = 4096) -> float:
    """RAE's shift `max(1, sqrt(tokens * channels / base))` (arXiv 2510.11690).

    The more numbers a picture has, the more noise it takes to hide what it shows. The paper shifts as RAE does; that it
    takes this number is ours (the paper does not say).

    Args:
        tokens: visual tokens of a frame.
        channels: channels of a token.
        base: how many numbers need no shift.
    """
    return max(1.0, math.sqrt(tokens * channels / base))


def shift_timesteps(timesteps: Tensor, shift: float) -> Tensor:
    """Move timesteps towards noise.

    With the noise level `s = 1 - t`: `s' = shift * s / (1 + (shift - 1) * s)` and `t' = 1 - s'`, written so that t near
    1 keeps its digits and the ends 0 and 1 stay exactly. The paper shifts; the formula is SD3's.

    Args:
        timesteps: any shape, in [0, 1].
        shift: at least 1; 1 changes nothing.
    """
    return timesteps / (timesteps + shift * (1 - timesteps))
