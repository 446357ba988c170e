"""What a Gaussian of the tokens' mean and covariance says about a velocity, so that a network learns only the rest.

Karras et al. 2022 (arXiv 2206.00364) scale a network's input and output so that both have unit variance at every noise
level. They know one number of the data, its variance; here it is the whole covariance of single visual tokens. Tokens
of an encoder fill few of their channels, so what remains in all others is noise that the network would have to carry
through its whole width only to subtract it again.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lit_mm.flow.parameterisation import Parameterisation
from lit_mm.flow.path import expand_timesteps

_INPUT_FLOOR = 3e-3  # added to a variance before an input is divided by it: axes that hold nothing stay small


class GaussianPreconditioning(Parameterisation):
    """Splits a velocity into the best linear guess from z_t alone and a remainder of unit variance (ours).

    With `z ~ N(mean, covariance)` and along a principal axis of variance s, z_t has mean `t mean` and variance
    `q = t^2 s + (1 - t)^2`, the best guess of the velocity is `mean + (t s - (1 - t)) / q (z_t - t mean)`, and the
    variance of what is left is `s / q`.

    Args:
        mean: (C,) of single tokens.
        covariance: (C, C) of single tokens.
    """

    mean: Tensor
    axes: Tensor
    variances: Tensor

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        super().__init__()
        variances, axes = torch.linalg.eigh(covariance.double())
        self.register_buffer("mean", mean.float(), persistent=False)
        self.register_buffer("axes", axes.float(), persistent=False)
        self.register_buffer("variances", variances.clamp_min(0).float(), persistent=False)

    def network_input(self, noised: Tensor, timesteps: Tensor) -> Tensor:
        """The best linear guess of the clean tokens (F, N, C), along the principal axes and in deviations of each.

        Clean tokens have unit variance. Of noisy ones, what is mostly noise is made small, `t^2 s / q` of the variance
        being left: at t = 0 nothing is, and the network has only its context and its place to go by.
        """
        along, variance = self._along_axes(noised, timesteps)
        with torch.autocast(noised.device.type, enabled=False):
            t = expand_timesteps(timesteps, noised).float()
            return t * self.variances.sqrt() / (variance + _INPUT_FLOOR) * along

    def velocity(self, output: Tensor, noised: Tensor, timesteps: Tensor) -> Tensor:
        """The velocity (F, N, C) float32 that the network's output (F, N, C) stands for."""
        along, variance = self._along_axes(noised, timesteps)
        with torch.autocast(noised.device.type, enabled=False):
            t = expand_timesteps(timesteps, noised).float()
            guess = (t * self.variances - (1 - t)) / variance * along
            rest = (self.variances / variance).sqrt() * output.float()
            return self.mean + (guess + rest) @ self.axes.T

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> GaussianPreconditioning:
        exact = dict(self.named_buffers())
        super()._apply(fn, recurse)
        # At high noise the guess is all there is, so it is never made in half precision.
        for name, moved in list(self.named_buffers()):
            setattr(self, name, exact[name].to(moved.device))
        return self

    def _along_axes(self, noised: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(noised.device.type, enabled=False):
            t = expand_timesteps(timesteps, noised).float()
            along = (noised.float() - t * self.mean) @ self.axes
            # At t = 1 an axis without variance has nothing to guess; the floor keeps 0 / 0 out.
            return along, (t.square() * self.variances + (1 - t).square()).clamp_min(1e-8)
