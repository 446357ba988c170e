"""From noise to data along the learned velocity."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from lit_mm.flow.timesteps import shift_timesteps
from lit_mm.mistake import Mistake


class FlowSampler:
    """Integrates `dz/dt = velocity(z, t)` from t = 0 to t = 1.

    Args:
        method: `euler`, one evaluation a step, or `heun`, second order, two evaluations a step but the last.
        steps: steps from noise to data; 25 of Euler (paper).
        guidance_scale: how strongly the condition is followed; 1 is not at all guided, 3 (paper).
        noise_scale: deviation of the noise that drawing starts from. Below 1, draws stay nearer to what is expected,
            at the price of variety (the reduced temperature of Glow, arXiv 1807.03039).

    Raises:
        Mistake: fewer than one step, or a negative scale of the noise.
    """

    def __init__(
        self,
        method: Literal["euler", "heun"] = "euler",
        steps: int = 25,
        guidance_scale: float = 3.0,
        noise_scale: float = 1.0,
    ) -> None:
        if steps < 1:
            raise Mistake(f"sampler.steps is {steps}; at least 1 is needed")
        if noise_scale < 0:
            raise Mistake(f"sampler.noise_scale is {noise_scale}; it has to be 0 or more")
        self.method = method
        self.steps = steps
        self.guidance_scale = guidance_scale
        self.noise_scale = noise_scale

    @property
    def settings(self) -> dict[str, Any]:
        """What it was made with."""
        return {name: getattr(self, name) for name in ("method", "steps", "guidance_scale", "noise_scale")}

    @classmethod
    @cache
    def shared(
        cls, method: Literal["euler", "heun"], steps: int, guidance_scale: float, noise_scale: float
    ) -> FlowSampler:
        """The same object for the same settings."""
        return cls(method, steps, guidance_scale, noise_scale)

    def timesteps(self, shift: float = 1.0) -> Tensor:
        """The grid (steps + 1,) float32 from 0 to 1: even, then shifted as in training."""
        return shift_timesteps(torch.linspace(0, 1, self.steps + 1), shift)

    @torch.no_grad()
    def sample(self, velocity: Callable[[Tensor, Tensor], Tensor], noise: Tensor, shift: float = 1.0) -> Tensor:
        """Data that belongs to `noise`; arguments as for `estimates`.

        Returns:
            (F, ...) float32.
        """
        return deque(self.estimates(velocity, noise, shift), maxlen=1)[0]

    @torch.no_grad()
    def estimates(
        self, velocity: Callable[[Tensor, Tensor], Tensor], noise: Tensor, shift: float = 1.0
    ) -> Iterator[Tensor]:
        """What the data would be if each step's velocity held until t = 1: of the last step, the sample itself.

        Args:
            velocity: takes z (F, ...) float32 and t (F,) float32, gives dz/dt (F, ...), guided if it should be.
                It is never asked at t = 1.
            noise: (F, ...), from a standard normal.
            shift: the noise shift of training.

        Yields:
            (F, ...) float32, one for each step.
        """
        z = self.noise_scale * noise.float()

        def slope(z: Tensor, time: float) -> Tensor:
            return velocity(z, z.new_full((len(z),), time)).float()

        for now, then in pairwise(self.timesteps(shift).tolist()):
            v = slope(z, now)
            if self.method == "heun" and then < 1:
                v = (v + slope(z + (then - now) * v, then)) / 2
            yield z + (1.0 - now) * v
            z = z + (then - now) * v
