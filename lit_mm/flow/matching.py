"""The choices of the flow in one object: prediction, distribution of timesteps, noise shift."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lit_mm.flow.noise import per_row
from lit_mm.flow.path import interpolate
from lit_mm.flow.preconditioning import GaussianPreconditioning
from lit_mm.flow.prediction import Prediction, check_width, flow_loss, to_velocity
from lit_mm.flow.timesteps import TimestepDistribution, noise_shift, sample_timesteps, shift_timesteps
from lit_mm.flow.token_statistics import load_statistics
from lit_mm.mistake import Mistake

_GRID = 8  # timesteps that validation is spread over
_NEARLY_CLEAN = 1e-4  # floor of 1 - t while sampling; see `to_velocity`


class FlowMatching(nn.Module):
    """`z_t = (1-t) * noise + t * z` with a t for each frame; the loss is one of velocities (the paper's recipe).

    Args:
        prediction: what the velocity head puts out, clean tokens (`x`) or the velocity (`v`).
        distribution: of t before the shift.
        shift: noise shift; by default `sqrt(tokens * channels / 4096)`, at least 1. The same one is used in training,
            validation and sampling.
        statistics: file of `lit_mm.flow.token_statistics`, or the name of an autoencoder that comes with the package
            and has one. With it the network learns of `v` only what the tokens' covariance cannot tell, which helps a
            model that is no wider than its visual tokens (see `GaussianPreconditioning`).
        read_noise: in [0, 1), noise that training puts on frames that are read: half of them stay clean, the noise
            level `1 - t` of the others is uniform up to this much, before the shift. A roll-out reads what it has
            drawn itself; a model that never read anything but true frames takes its own mistakes for true, and they
            grow (GameNGen, arXiv 2408.14837, section 3.2.1). The paper mentions no such noise.

    Attributes:
        made_for: fingerprint of the visual tokenizer of the statistics; None without any.

    Raises:
        Mistake: statistics are given, but the prediction is `x`; or `read_noise` is out of range.
        MissingFile: there are no such statistics.
    """

    def __init__(
        self,
        prediction: Prediction = "v",
        distribution: TimestepDistribution = "uniform",
        shift: float | None = None,
        statistics: str | None = None,
        read_noise: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= read_noise < 1:
            raise Mistake(f"model.flow.read_noise is {read_noise}; it is at least 0 and below 1")
        self.read_noise = read_noise
        self.prediction, self.distribution, self.shift = prediction, distribution, shift
        self.preconditioning: GaussianPreconditioning | None = None
        self.made_for: str | None = None
        if statistics is not None:
            if prediction != "v":
                raise Mistake(
                    f"model.flow.statistics is for prediction 'v', but model.flow.prediction is '{prediction}'"
                )
            mean, covariance, self.made_for = load_statistics(statistics)
            self.preconditioning = GaussianPreconditioning(mean, covariance)

    def noise_shift(self, tokens: int, channels: int) -> float:
        """The shift for pictures of so many tokens and channels."""
        return noise_shift(tokens, channels) if self.shift is None else self.shift

    def warn_if_too_narrow(self, dim: int, channels: int) -> None:
        """Say that a model narrower than its visual tokens should predict `x`."""
        warning = None if self.preconditioning else check_width(dim, channels, self.prediction)
        if warning:
            rank_zero_warn(warning)

    def timesteps(
        self, seeds: Sequence[int], frames_per_row: Sequence[int], device: torch.device, shift: float
    ) -> Tensor:
        """Training timesteps (F,), drawn from the rows' seeds."""
        return per_row(seeds, frames_per_row, device, lambda g, n: sample_timesteps(n, g, self.distribution, shift))

    def read_timesteps(
        self, seeds: Sequence[int], frames_per_row: Sequence[int], device: torch.device, shift: float
    ) -> Tensor:
        """Training timesteps (F,) of frames that are read; all 1 without `read_noise`."""

        def draw(generator: torch.Generator, count: int) -> Tensor:
            either = 2 * torch.rand(count, generator=generator, device=device) - 1  # below 0: stays clean
            return shift_timesteps(1 - self.read_noise * either.clamp_min(0), shift)

        return per_row([seed ^ 0x9E3779B9 for seed in seeds], frames_per_row, device, draw)

    def timestep_grid(
        self, row_numbers: Sequence[int], frames_per_row: Sequence[int], device: torch.device, shift: float
    ) -> Tensor:
        """Validation timesteps (F,): the frames walk over a fixed even grid, shifted as in training."""
        grid = shift_timesteps((torch.arange(_GRID, device=device) + 0.5) / _GRID, shift)
        counts = zip(row_numbers, frames_per_row, strict=True)
        return torch.cat([grid[(torch.arange(n, device=device) + max(row, 0)) % _GRID] for row, n in counts])

    def noise(self, seeds: Sequence[int], frames_per_row: Sequence[int], latents: Tensor) -> Tensor:
        """Noise (F, N, C), drawn from the rows' seeds (other seeds than those of the timesteps)."""
        shape = latents.shape[1:]
        return per_row(
            [seed ^ 0x5DEECE66D for seed in seeds],
            frames_per_row,
            latents.device,
            lambda g, n: torch.randn(n, *shape, generator=g, device=latents.device),
        )

    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """`z_t` (F, N, C); at t = 1 the latents themselves."""
        return interpolate(latents, noise, timesteps)

    def network_input(self, noised: Tensor, timesteps: Tensor) -> Tensor:
        """What the network is shown of z_t (F, N, C): that itself, unless there are statistics."""
        return noised if self.preconditioning is None else self.preconditioning.network_input(noised, timesteps)

    def loss(self, output: Tensor, latents: Tensor, noise: Tensor, noised: Tensor, timesteps: Tensor) -> Tensor:
        """Velocity loss (F,) of the network's output, see `flow_loss`."""
        if self.preconditioning is not None:
            output = self.preconditioning.velocity(output, noised, timesteps)
        return flow_loss(output, latents, noise, noised, timesteps, self.prediction)

    def velocity(self, output: Tensor, noised: Tensor, timesteps: Tensor) -> Tensor:
        """The network's output as a velocity, for sampling."""
        if self.preconditioning is not None:
            return self.preconditioning.velocity(output, noised, timesteps)
        return to_velocity(output, noised, timesteps, self.prediction, _NEARLY_CLEAN)
