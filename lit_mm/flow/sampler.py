"""From noise to data along the learned velocity, by diffusers' flow-matching schedulers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from lit_mm.flow.timesteps import shift_timesteps
from lit_mm.mistake import Mistake


class FlowSampler:
    """Integrates `dz/dt = velocity(z, t)` from t = 0 to t = 1.

    Args:
        method: `euler`, one evaluation a step, or `heun`, second order, two evaluations a step but the last.
        steps: steps from noise to data; the paper takes 25 of Euler.
        guidance_scale: how strongly the condition is followed; 1 is not at all guided, the paper's is 3.
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
        """Data that belongs to `noise`.

        Args:
            velocity: takes z (F, ...) float32 and t (F,) float32, gives dz/dt (F, ...), guided if it should be.
                It is never asked at t = 1.
            noise: (F, ...), from a standard normal.
            shift: the noise shift of training.

        Returns:
            (F, ...) float32.
        """
        noise_levels = 1 - self.timesteps(shift)
        scheduler = _euler(noise_levels) if self.method == "euler" else _heun(noise_levels)
        z = self.noise_scale * noise.float()
        for scheduler_time in scheduler.timesteps:
            level = scheduler_time / scheduler.config.num_train_timesteps
            t = (1 - level).to(z.device).expand(len(z))
            # diffusers counts noise levels, from 1 down to 0, so its derivative is ours with the sign turned.
            z = scheduler.step(-velocity(z, t).float(), scheduler_time, z, return_dict=False)[0]
        return z


def _euler(noise_levels: Tensor) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler: Any = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=noise_levels[:-1].tolist())
    return scheduler


def _heun(noise_levels: Tensor) -> Any:
    from diffusers import FlowMatchHeunDiscreteScheduler

    scheduler: Any = FlowMatchHeunDiscreteScheduler()
    scheduler.set_timesteps(len(noise_levels) - 1)
    # This scheduler takes no grid, and its own stops short of data and applies a shift twice: it gets ours, laid out
    # as it lays out its own, inner levels twice, once for each evaluation.
    first, inner, last = noise_levels[:1], noise_levels[1:-1].repeat_interleave(2), noise_levels[-1:]
    scheduler.sigmas = torch.cat((first, inner, last))
    scheduler.timesteps = torch.cat((first, inner)) * scheduler.config.num_train_timesteps
    scheduler.set_begin_index(0)
    return scheduler
