"""How weights start."""

from __future__ import annotations

from torch import Tensor, nn

STD = 0.02


def init_linear(weight: Tensor, std: float | None = None) -> None:
    """Truncated normal with mean 0, cut at three standard deviations.

    Args:
        weight: a matrix, or matrices stacked along the first dimensions.
        std: standard deviation, by default 0.02.
    """
    std = std or STD
    nn.init.trunc_normal_(weight, mean=0.0, std=std, a=-3 * std, b=3 * std)
