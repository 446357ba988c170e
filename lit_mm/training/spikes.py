"""Whether a training step should be taken, decided on the device."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_mm.mistake import Mistake


class SpikeDetector:
    """Compares loss and gradient norm with their running means and deviations; values of skipped steps do not count.

    Nothing here asks the device for a value.

    Args:
        deviations: a value this many standard deviations above its mean is a spike.
        warmup_steps: good steps before anything but NaN and infinity is a spike.
        decay: of the running mean and variance per step; of the first steps the mean is taken.

    Attributes:
        verdict: (3,) of the last step: 1 if it is skipped else 0, loss, gradient norm.
    """

    def __init__(self, deviations: float, warmup_steps: int, decay: float) -> None:
        if not 0 < decay < 1:
            raise Mistake(f"the decay of SpikeGuard is {decay}; use a number between 0 and 1, such as 0.99")
        self.deviations, self.warmup_steps, self.decay = deviations, warmup_steps, decay
        self.verdict: Tensor | None = None
        self._running = torch.zeros(3, 2, dtype=torch.float64)  # mean, variance and count, of loss and gradient norm

    def to(self, device: torch.device) -> None:
        """Move what is remembered to the device of the values to come."""
        self._running = self._running.to(device)

    @torch.no_grad()
    def __call__(self, loss: Tensor, gradient_norm: Tensor) -> Tensor:
        """() float32, 1 if the step is to be skipped, else 0; what fused optimizers take as `found_inf`.

        Args:
            loss: () of the step, the same on all ranks.
            gradient_norm: (), likewise.
        """
        values = torch.stack([loss.detach(), gradient_norm.detach()]).double()
        mean, variance, count = self._running
        spike = (values > mean + self.deviations * variance.sqrt()) & (count >= self.warmup_steps)
        skip = (spike | ~values.isfinite()).any()
        weight = torch.clamp(1 / (count + 1), min=1 - self.decay)
        error = torch.where(values.isfinite(), values, 0.0) - mean
        moved = torch.stack([mean + weight * error, (1 - weight) * (variance + weight * error.square()), count + 1])
        self._running = torch.where(skip, self._running, moved)
        self.verdict = torch.cat([skip[None].double(), values])
        return skip.float()

    def state(self) -> list[list[float]]:
        """What is usual, as numbers."""
        return self._running.tolist()

    def load_state(self, state: list[list[float]]) -> None:
        """Go on from there."""
        self._running = torch.tensor(state, dtype=torch.float64, device=self._running.device)
