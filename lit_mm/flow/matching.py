"""The choices of the flow in one object: what is predicted, which t are trained, how far they are shifted to noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lit_mm.flow.noise import per_row
from lit_mm.flow.parameterisation import DataPrediction, Parameterisation, VelocityPrediction
from lit_mm.flow.path import FlowSample
from lit_mm.flow.preconditioning import GaussianPreconditioning
from lit_mm.flow.timesteps import TimestepDistribution, noise_shift, sample_timesteps, shift_timesteps
from lit_mm.flow.token_statistics import load_statistics
from lit_mm.mistake import Mistake, name_of

_GRID = 8  # timesteps that validation is spread over


class FlowMatching(nn.Module):
    """`z_t = (1-t) * noise + t * z` with a t for each frame; the loss is the squared error of the velocity (paper).

    Args:
        prediction: what the velocity head puts out, clean tokens (`x`) or the velocity (`v`).
        distribution: of t before the shift.
        shift: noise shift; by default `sqrt(tokens * channels / 4096)`, at least 1. The same one is used in training,
            validation and sampling.
        statistics: file of `lit_mm.flow.token_statistics`, or the name of an autoencoder that comes with the package
            and has one. With it the network learns of `v` only what the tokens' covariance cannot tell, which helps a
            model that is no wider than its visual tokens (see `GaussianPreconditioning`; ours).
        read_frames: how training shows frames that are read, of which a document says that they are clean. `clean`: at
            t = 1 and without flow loss, as they are when the model is used (ours: the paper does not say). `noised`:
            like frames that are drawn, each with a t of its own and with flow loss (paper, after Diffusion Forcing,
            arXiv 2407.01392). Validation and generation read clean frames either way.
        read_noise: in [0, 1), noise that training puts on frames that are read `clean`: half of them stay so, the noise
            level `1 - t` of the others is uniform up to this much, before the shift. A roll-out reads what it has
            drawn itself; a model that never read anything but true frames takes its own mistakes for true, and they
            grow (GameNGen, arXiv 2408.14837, section 3.2.1). Ours: the paper does not say.

    Attributes:
        parameterisation: what the network is shown, and how its output is read.
        made_for: fingerprint of the visual tokenizer of the statistics; None without any.

    Raises:
        Mistake: statistics are given, but the prediction is `x`; `shift` or `read_noise` is out of range; or there is
            noise beside `noised`.
        MissingFile: there are no such statistics.
    """

    def __init__(
        self,
        prediction: Literal["x", "v"] = "v",
        distribution: TimestepDistribution = "uniform",
        shift: float | None = None,
        statistics: str | None = None,
        read_frames: Literal["clean", "noised"] = "clean",
        read_noise: float = 0.0,
    ) -> None:
        super().__init__()
        _check_reading(read_frames, read_noise)
        if shift is not None and shift <= 0:
            raise Mistake(f"model.flow.shift is {shift}; use a positive number, or null for that of the picture's size")
        self.read_frames, self.read_noise = read_frames, read_noise
        self.distribution, self.shift = distribution, shift
        self.made_for: str | None = None
        self.parameterisation: Parameterisation = DataPrediction() if prediction == "x" else VelocityPrediction()
        if statistics is not None:
            if prediction != "v":
                raise Mistake(
                    f"model.flow.statistics is for prediction 'v', but model.flow.prediction is '{prediction}'"
                )
            mean, covariance, self.made_for = load_statistics(statistics)
            self.parameterisation = GaussianPreconditioning(mean, covariance)

    def noise_shift(self, tokens: int, channels: int) -> float:
        """The shift for pictures of so many tokens and channels."""
        return noise_shift(tokens, channels) if self.shift is None else self.shift

    def training_timesteps(
        self, frame_clean: Tensor, seeds: Sequence[int], frames_per_row: Sequence[int], shift: float
    ) -> Tensor:
        """Timesteps (F,) float32, drawn from the rows' seeds.

        Args:
            frame_clean: (F,) bool, frames that are read.
            seeds: of the rows.
            frames_per_row: how many of the F lie in each row.
            shift: see `noise_shift`.
        """

        def drawn(generator: torch.Generator, count: int) -> Tensor:
            return sample_timesteps(count, generator, self.distribution, shift)

        def read(generator: torch.Generator, count: int) -> Tensor:
            either = 2 * torch.rand(count, generator=generator, device=generator.device) - 1  # below 0: stays clean
            return shift_timesteps(1 - self.read_noise * either.clamp_min(0), shift)

        device = frame_clean.device
        of_drawn = per_row(seeds, frames_per_row, device, drawn)
        of_read = per_row([seed ^ 0x9E3779B9 for seed in seeds], frames_per_row, device, read)
        return torch.where(frame_clean, of_read, of_drawn)

    def timestep_grid(
        self, row_numbers: Sequence[int], frames_per_row: Sequence[int], device: torch.device, shift: float
    ) -> Tensor:
        """Validation timesteps (F,): the frames walk over a fixed even grid, shifted as in training (ours)."""
        grid = shift_timesteps((torch.arange(_GRID, device=device) + 0.5) / _GRID, shift)
        counts = zip(row_numbers, frames_per_row, strict=True)
        return torch.cat([grid[(torch.arange(n, device=device) + max(row, 0)) % _GRID] for row, n in counts])

    def sample(
        self, data: Tensor, timesteps: Tensor, seeds: Sequence[int], frames_per_row: Sequence[int]
    ) -> FlowSample:
        """Frames (F, N, C) at t (F,), with noise drawn from the rows' seeds (others than those of the timesteps)."""

        def draw(generator: torch.Generator, count: int) -> Tensor:
            return torch.randn(count, *data.shape[1:], generator=generator, device=data.device, dtype=torch.float32)

        seeds = [seed ^ 0x5DEECE66D for seed in seeds]
        return FlowSample(data, per_row(seeds, frames_per_row, data.device, draw), timesteps)

    def network_input(self, sample: FlowSample) -> Tensor:
        """What the network is shown (F, N, C)."""
        return self.parameterisation.network_input(sample.noised, sample.timesteps)

    def frame_losses(self, output: Tensor, sample: FlowSample) -> Tensor:
        """`loss`, which a subclass may define otherwise, with the shape that it must have.

        Raises:
            Mistake: it is no tensor of shape (F,).
        """
        found = self.loss(output, sample)
        if not isinstance(found, Tensor) or found.shape != output.shape[:1]:
            what = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
            raise Mistake(
                f"{name_of(self)}.loss returned {what}, expected shape {tuple(output.shape[:1])}: one value for each "
                "frame"
            )
        return found

    def loss(self, output: Tensor, sample: FlowSample) -> Tensor:
        """Mean squared error of the velocity over each frame (F,) float32, from the network's output (F, N, C)."""
        return self.parameterisation.velocity_error(output, sample).square().flatten(1).mean(1)


def _check_reading(frames: str, noise: float) -> None:
    if not 0 <= noise < 1:
        raise Mistake(f"model.flow.read_noise is {noise}; it is at least 0 and below 1")
    if frames == "noised" and noise:
        raise Mistake(
            f"model.flow.read_noise is {noise}, which is for frames that are read clean, but model.flow.read_frames is "
            "'noised'; set read_noise to 0"
        )
