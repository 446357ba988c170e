"""The straight path from noise to data (paper): t = 0 is noise, t = 1 is data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor


@dataclass(frozen=True)
class FlowSample:
    """Frames, each at a point of its path. An index picks frames out of it, as out of a tensor.

    Attributes:
        data: (F, N, C) clean visual tokens.
        noise: (F, N, C) from a standard normal.
        timesteps: (F,) in [0, 1], one per frame.
    """

    data: Tensor
    noise: Tensor
    timesteps: Tensor

    @cached_property
    def noised(self) -> Tensor:
        """`z_t = (1 - t) * noise + t * data` (F, N, C); at t = 1 the data itself."""
        t = expand_timesteps(self.timesteps, self.data)
        return (1 - t) * self.noise + t * self.data

    @property
    def velocity(self) -> Tensor:
        """`dz_t / dt = data - noise` (F, N, C), the same at every t."""
        return self.data - self.noise

    def __getitem__(self, frames: Tensor) -> FlowSample:
        """The frames (F',) of some indices."""
        return FlowSample(self.data[frames], self.noise[frames], self.timesteps[frames])


def expand_timesteps(timesteps: Tensor, like: Tensor) -> Tensor:
    """(F,) to (F, 1, ..., 1), to broadcast against `like` (F, ...)."""
    return timesteps.view(-1, *[1] * (like.ndim - 1))
