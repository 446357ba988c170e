"""What the network is shown of z_t, and how its output is read as a velocity."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from lit_mm.flow.path import FlowSample, expand_timesteps

MIN_NOISE = 0.05  # JiT's floor of 1 - t in the loss of x (arXiv 2511.13720)
_NEARLY_CLEAN = 1e-4  # floor of 1 - t while sampling


class Parameterisation(nn.Module, ABC):
    """What goes into the network and what comes out. The loss is one of velocities, whichever it is."""

    def network_input(self, noised: Tensor, timesteps: Tensor) -> Tensor:
        """What the network is shown (F, N, C) of z_t (F, N, C) at t (F,): by default that itself."""
        return noised

    @abstractmethod
    def velocity(self, output: Tensor, noised: Tensor, timesteps: Tensor) -> Tensor:
        """The velocity (F, N, C) float32 that the network's output (F, N, C) for z_t at t (F,) stands for."""

    def velocity_error(self, output: Tensor, sample: FlowSample) -> Tensor:
        """That velocity less the true one, (F, N, C) float32."""
        return self.velocity(output, sample.noised, sample.timesteps) - sample.velocity

    def width_warning(self, dim: int, channels: int) -> str | None:
        """Says that a model of width `dim` is too narrow for tokens of so many channels, if it is."""
        return None


class VelocityPrediction(Parameterisation):
    """The network puts out the velocity, v (paper: the default)."""

    def velocity(self, output: Tensor, noised: Tensor, timesteps: Tensor) -> Tensor:
        """The output itself."""
        return output.float()

    def width_warning(self, dim: int, channels: int) -> str | None:
        """The velocity holds the noise, which fills all channels; what a linear layer makes of `dim` numbers fills at
        most `dim` of them. The loss then has a floor (RAE, arXiv 2510.11690). Clean data fills fewer.
        """
        if dim >= channels:
            return None
        return (
            f"model.backbone.dim is {dim}, narrower than the {channels} channels of a visual token, so the loss of "
            f"v-prediction cannot fall below about {(channels - dim) / channels:.2f}: use prediction 'x' or a width of "
            f"at least {channels}"
        )


class DataPrediction(Parameterisation):
    """The network puts out the clean tokens, x (paper: its choice for RAE latents)."""

    def velocity(self, output: Tensor, noised: Tensor, timesteps: Tensor) -> Tensor:
        """`(x - z_t) / (1 - t)`.

        The floor of the divisor is tiny: a sampler's step from t to t + dt moves by dt * v and dt is at most 1 - t, so
        nothing is blown up, and the last step lands on x.
        """
        return (output.float() - noised) / (1 - expand_timesteps(timesteps, noised)).clamp_min(_NEARLY_CLEAN)

    def velocity_error(self, output: Tensor, sample: FlowSample) -> Tensor:
        """Both velocities divide by `max(1 - t, 0.05)`, as in JiT (ours: the paper does not say). So errors of x near
        t = 1 are not blown up, and a perfect x has no error at any t.
        """
        noise_level = 1 - expand_timesteps(sample.timesteps, sample.data)
        return (output.float() - sample.data) / noise_level.clamp_min(MIN_NOISE)
