"""What the network predicts, `v` (velocity) or `x` (clean data), and the loss, which is always one of velocities."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from lit_mm.flow.path import expand_timesteps, velocity

Prediction = Literal["x", "v"]
MIN_NOISE = 0.05  # JiT's floor of 1 - t (arXiv 2511.13720)


def velocity_from_data(data: Tensor, noisy: Tensor, timesteps: Tensor, min_noise: float = MIN_NOISE) -> Tensor:
    """`v = (x - z_t) / max(1 - t, min_noise)`.

    Args:
        data: (F, N, C), x.
        noisy: (F, N, C), z_t.
        timesteps: (F,), t.
        min_noise: floor of the divisor, so that errors of x near t = 1 are not blown up.
    """
    return (data - noisy) / (1 - expand_timesteps(timesteps, data)).clamp_min(min_noise)


def to_velocity(
    output: Tensor, noisy: Tensor, timesteps: Tensor, prediction: Prediction, min_noise: float = MIN_NOISE
) -> Tensor:
    """The network's output as a velocity, for a sampler.

    Args:
        output: (F, N, C), x or v as `prediction` says.
        noisy: (F, N, C), what the network was shown.
        timesteps: (F,).
        prediction: what the network was trained to predict.
        min_noise: floor of 1 - t. A sampler passes a tiny one: a step from t to t + dt moves by dt * v and dt is at
            most 1 - t, so nothing is blown up, and the last step lands on x exactly.
    """
    if prediction == "v":
        return output.float()
    return velocity_from_data(output.float(), noisy, timesteps, min_noise)


def flow_loss(
    output: Tensor, data: Tensor, noise: Tensor, noisy: Tensor, timesteps: Tensor, prediction: Prediction
) -> Tensor:
    """Squared error of the velocity, the mean over each frame (the paper's recipe).

    For `x`, both velocities have the same floored divisor (as in JiT), so a perfect x has no loss at any t: it is the
    error of x over `max(1 - t, 0.05)`, squared.

    Args:
        output: (F, N, C), the network's.
        data: (F, N, C), clean.
        noise: (F, N, C).
        noisy: (F, N, C), `interpolate(data, noise, timesteps)`.
        timesteps: (F,).
        prediction: what `output` is.

    Returns:
        (F,) float32.
    """
    if prediction == "v":
        error = output.float() - velocity(data, noise)
    else:
        error = velocity_from_data(output.float() - data, noisy.new_zeros(()), timesteps)
    return error.square().flatten(1).mean(1)


def check_width(dim: int, channels: int, prediction: Prediction) -> str | None:
    """A warning if the model is too narrow for its prediction, else None.

    The velocity holds the noise, which fills all channels; what a linear layer makes of `dim` numbers fills at most
    `dim` of them. The loss then has a floor (RAE, arXiv 2510.11690). Clean data fills fewer.

    Args:
        dim: model width.
        channels: channels of a visual token.
        prediction: `x` or `v`.
    """
    if prediction == "x" or dim >= channels:
        return None
    return (
        f"model.backbone.dim is {dim}, narrower than the {channels} channels of a visual token, so the loss of "
        f"v-prediction cannot fall below about {(channels - dim) / channels:.2f}: use prediction 'x' or a width of at "
        f"least {channels}"
    )
