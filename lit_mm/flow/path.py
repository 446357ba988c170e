"""The straight path from noise to data (the paper's recipe): t = 0 is noise, t = 1 is data."""

from __future__ import annotations

from torch import Tensor


def interpolate(data: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
    """`z_t = (1 - t) * noise + t * data`.

    Args:
        data: (F, N, C) clean visual tokens.
        noise: (F, N, C) from a standard normal.
        timesteps: (F,) in [0, 1], one per frame.

    Returns:
        (F, N, C).
    """
    t = expand_timesteps(timesteps, data)
    return (1 - t) * noise + t * data


def velocity(data: Tensor, noise: Tensor) -> Tensor:
    """`dz_t / dt = data - noise`, the same at every t. All (F, N, C)."""
    return data - noise


def expand_timesteps(timesteps: Tensor, like: Tensor) -> Tensor:
    """(F,) to (F, 1, ..., 1), to broadcast against `like` (F, ...)."""
    return timesteps.view(-1, *[1] * (like.ndim - 1))
