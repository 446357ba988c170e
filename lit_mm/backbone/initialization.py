"""How weights start."""

from __future__ import annotations

from torch import Tensor, nn

STD = 0.02


def init_linear(weight: Tensor, std: float = STD) -> None:
    """Truncated normal with mean 0, cut at three standard deviations; zeros where the deviation is 0.

    Args:
        weight: a matrix, or matrices stacked along the first dimensions.
        std: standard deviation.
    """
    if std:
        nn.init.trunc_normal_(weight, mean=0.0, std=std, a=-3 * std, b=3 * std)
    else:
        nn.init.zeros_(weight)
