from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler
from torch import Tensor, nn

from lit_mm.flow import FlowMatching, FlowSample, FlowSampler
from lit_mm.flow.parameterisation import DataPrediction
from lit_mm.flow.timesteps import sample_timesteps, shift_timesteps

WEIGHTS = torch.tensor([0.3, 0.7])
MEANS = torch.tensor([[2.0, 1.0], [-1.5, 0.0]])
DEVIATIONS = torch.tensor([0.5, 0.8])


def draw(count: int, generator: torch.Generator) -> Tensor:
    which = torch.multinomial(WEIGHTS, count, replacement=True, generator=generator)
    return MEANS[which] + DEVIATIONS[which, None] * torch.randn(count, 2, generator=generator)


def true_moments() -> tuple[Tensor, Tensor]:
    mean = WEIGHTS @ MEANS
    offsets = MEANS - mean
    within = (WEIGHTS @ DEVIATIONS.square()) * torch.eye(2)
    return mean, within + (WEIGHTS[:, None, None] * offsets[:, :, None] * offsets[:, None, :]).sum(0)


def true_velocity(z: Tensor, t: Tensor) -> Tensor:
    """E[data - noise | z_t = z], in closed form: in each component data, noise and z are jointly normal."""
    t = t[:, None]
    variance = (1 - t) ** 2 + t**2 * DEVIATIONS**2  # (F, components)
    from_mean = z[:, None] - t[..., None] * MEANS  # (F, components, 2)
    log_density = WEIGHTS.log() - variance.log() - from_mean.square().sum(-1) / (2 * variance)
    given = log_density.softmax(-1)
    slope = (t * DEVIATIONS**2 - (1 - t)) / variance
    return (given[..., None] * (MEANS + slope[..., None] * from_mean)).sum(1)


def assert_moments(samples: Tensor, tolerance: float) -> None:
    mean, covariance = true_moments()
    torch.testing.assert_close(samples.mean(0), mean, rtol=0, atol=tolerance)
    torch.testing.assert_close(samples.T.cov(), covariance, rtol=0, atol=2 * tolerance)


@pytest.mark.parametrize(("method", "steps"), [("euler", 150), ("heun", 40)])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_known_field_of_a_mixture_gives_back_the_mixture(method, steps, shift):
    noise = torch.randn(30_000, 2, generator=torch.Generator().manual_seed(0))
    samples = FlowSampler(method, steps).sample(true_velocity, noise, shift)
    assert_moments(samples, tolerance=0.04)
    near_first = ((samples - MEANS[0]).norm(dim=1) < 2.5 * DEVIATIONS[0]) & (samples[:, 0] > 0.7)
    expected = draw(30_000, torch.Generator().manual_seed(1))
    near_expected = ((expected - MEANS[0]).norm(dim=1) < 2.5 * DEVIATIONS[0]) & (expected[:, 0] > 0.7)
    assert near_first.float().mean().item() == pytest.approx(near_expected.float().mean().item(), abs=0.02)


def by_diffusers(method: str, velocity, noise: Tensor, grid: Tensor) -> Tensor:
    """Its flow-matching schedulers, which count noise levels from 1 down to 0: their derivative has the other sign."""
    levels = 1 - grid
    if method == "euler":
        scheduler: Any = FlowMatchEulerDiscreteScheduler()
        scheduler.set_timesteps(sigmas=levels[:-1].tolist())
    else:
        scheduler = FlowMatchHeunDiscreteScheduler()
        scheduler.set_timesteps(len(levels) - 1)
        # It takes no grid, and lays out its own like this: inner levels twice, once for each evaluation.
        inner = levels[1:-1].repeat_interleave(2)
        scheduler.sigmas = torch.cat((levels[:1], inner, levels[-1:]))
        scheduler.timesteps = torch.cat((levels[:1], inner)) * scheduler.config.num_train_timesteps
        scheduler.set_begin_index(0)
    z = noise
    for time in scheduler.timesteps:
        t = (1 - time / scheduler.config.num_train_timesteps).expand(len(z))
        z = scheduler.step(-velocity(z, t), time, z, return_dict=False)[0]
    return z


@pytest.mark.parametrize("method", ["euler", "heun"])
@pytest.mark.parametrize("shift", [1.0, 8.485])
@pytest.mark.parametrize("steps", [1, 7, 25])
def test_steps_equal_those_of_diffusers(method, shift, steps):
    noise = torch.randn(5, 3, 2, generator=torch.Generator().manual_seed(0))

    def field(z: Tensor, t: Tensor) -> Tensor:
        assert z.dtype == t.dtype == torch.float32
        assert t.shape == (5,)
        assert (t < 1).all()
        return torch.sin(3 * z) + t.view(-1, 1, 1) ** 2

    expected = by_diffusers(method, field, noise, shift_timesteps(torch.linspace(0, 1, steps + 1), shift))
    torch.testing.assert_close(FlowSampler(method, steps).sample(field, noise, shift), expected, rtol=1e-5, atol=1e-5)


def test_heun_is_nearer_the_truth_than_euler_at_equal_evaluations():
    noise = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
    truth = FlowSampler("heun", 400).sample(true_velocity, noise)
    euler = FlowSampler("euler", 20).sample(true_velocity, noise)
    heun = FlowSampler("heun", 10).sample(true_velocity, noise)
    assert (heun - truth).square().mean() < (euler - truth).square().mean() / 3


@pytest.mark.parametrize("method", ["euler", "heun"])
def test_one_step_is_one_evaluation_at_pure_noise(method):
    noise, times = torch.randn(4, 2), []

    def field(z: Tensor, t: Tensor) -> Tensor:
        times.extend(t.tolist())
        return 2 - z

    torch.testing.assert_close(FlowSampler(method, 1).sample(field, noise), torch.full((4, 2), 2.0))
    assert times == [0.0] * 4


def test_x_prediction_lands_on_x():
    """However many steps: with a network that always says x, sampling ends there."""
    x, noise = torch.randn(3, 4, 8), torch.randn(3, 4, 8)
    for steps in (1, 25, 200):
        samples = FlowSampler("euler", steps).sample(lambda z, t: DataPrediction().velocity(x, z, t), noise)
        torch.testing.assert_close(samples, x, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0])
def test_scaled_noise_scales_the_deviation_of_a_gaussian_and_leaves_its_mean(scale):
    """Its field is linear in z, so each draw keeps its place between mean and noise."""
    mean, deviation = 3.0, 0.7

    def field(z: Tensor, t: Tensor) -> Tensor:
        t = t[:, None]
        variance = (t * deviation) ** 2 + (1 - t) ** 2
        return mean + (t * deviation**2 - (1 - t)) / variance * (z - t * mean)

    noise = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    samples = FlowSampler("heun", 200, noise_scale=scale).sample(field, noise)
    torch.testing.assert_close(samples, mean + scale * deviation * noise, rtol=0, atol=1e-3)


def test_negative_noise_is_refused():
    with pytest.raises(ValueError, match=r"sampler.noise_scale is -0.1; it has to be 0 or more"):
        FlowSampler(noise_scale=-0.1)


def test_fewer_than_one_step_is_refused():
    with pytest.raises(ValueError, match=r"sampler.steps is 0; at least 1"):
        FlowSampler(steps=0)


@pytest.mark.parametrize(("prediction", "distribution", "shift"), [("v", "uniform", 1.0), ("x", "logit_normal", 2.0)])
def test_a_trained_network_reproduces_mean_and_covariance(prediction, distribution, shift):
    torch.manual_seed(0)
    flow = FlowMatching(prediction)
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 96), nn.SiLU(), nn.Linear(96, 96), nn.SiLU(), nn.Linear(96, 2))
    steps = 1500
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)

    def predict(z: Tensor, t: Tensor) -> Tensor:
        z, t = z[:, 0], t[:, None]
        return network(torch.cat((z, t, t * z), dim=-1))[:, None]

    for _ in range(steps):
        data = draw(768, generator)[:, None]  # (F, 1, 2): frames of one token
        noise = torch.randn(data.shape, generator=generator)
        t = sample_timesteps(len(data), generator, distribution, shift)
        sample = FlowSample(data, noise, t)
        loss = flow.loss(predict(sample.noised, t), sample).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    noise = torch.randn(20_000, 1, 2, generator=generator)
    field = lambda z, t: flow.parameterisation.velocity(predict(z, t), z, t)  # noqa: E731
    samples = FlowSampler("heun", 25).sample(field, noise, shift)
    assert_moments(samples[:, 0], tolerance=0.1)
