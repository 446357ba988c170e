from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lit_mm.flow import FlowMatching, FlowSample
from lit_mm.flow.guidance import guide
from lit_mm.flow.parameterisation import DataPrediction, VelocityPrediction

TIMES = torch.tensor([0.0, 0.2, 0.5, 0.9, 0.97, 1.0])


@pytest.fixture
def sample() -> FlowSample:
    generator = torch.Generator().manual_seed(0)
    data, noise = (torch.randn(6, 4, 8, generator=generator) for _ in range(2))
    return FlowSample(data, noise, TIMES)


def at(sample: FlowSample, *times: float) -> FlowSample:
    return FlowSample(sample.data, sample.noise, torch.tensor(times, dtype=torch.float64))


def test_path_runs_from_noise_to_data_at_the_velocity(sample: FlowSample) -> None:
    assert (at(sample, *[0.0] * 6).noised == sample.noise).all()
    assert (at(sample, *[1.0] * 6).noised == sample.data).all()
    early, late = (at(sample, *[t] * 6).noised for t in (0.3, 0.3001))
    torch.testing.assert_close((late - early) / 1e-4, sample.velocity.double(), rtol=1e-4, atol=1e-4)


def test_each_frame_has_its_own_time_and_keeps_it_when_some_are_taken(sample: FlowSample) -> None:
    taken = sample[torch.tensor([4, 1])]
    for found, i in ((sample, 1), (sample, 4)):
        t = float(TIMES[i])
        torch.testing.assert_close(found.noised[i], (1 - t) * sample.noise[i] + t * sample.data[i])
    assert torch.equal(taken.noised, sample.noised[[4, 1]])
    assert torch.equal(taken.velocity, (sample.data - sample.noise)[[4, 1]])
    assert torch.equal(taken.timesteps, TIMES[[4, 1]])


def test_outputs_that_are_right_give_the_velocity(sample: FlowSample) -> None:
    x = DataPrediction().velocity(sample.data, sample.noised, TIMES)
    torch.testing.assert_close(x[:-1], sample.velocity[:-1], rtol=1e-3, atol=1e-3)
    assert (VelocityPrediction().velocity(sample.noise, sample.noised, TIMES) == sample.noise).all()
    for network in (DataPrediction(), VelocityPrediction()):
        assert network.network_input(sample.noised, TIMES) is sample.noised


def test_perfect_predictions_have_no_loss_at_any_time(sample: FlowSample) -> None:
    assert (FlowMatching("x").loss(sample.data, sample) == 0).all()
    assert (FlowMatching("v").loss(sample.velocity, sample) == 0).all()


def test_loss_is_one_of_velocities_whatever_is_predicted(sample: FlowSample) -> None:
    sample = sample[torch.arange(4)]
    x = sample.data + 0.1 * torch.randn_like(sample.data)
    v = (x - sample.noised) / (1 - sample.timesteps[:, None, None])
    truth = torch.stack([((v[i] - (sample.data[i] - sample.noise[i])) ** 2).mean() for i in range(4)])
    torch.testing.assert_close(FlowMatching("v").loss(v, sample), truth)
    torch.testing.assert_close(FlowMatching("x").loss(x, sample), truth, rtol=1e-4, atol=1e-5)


def test_x_loss_near_data_is_bounded_by_the_floor(sample: FlowSample) -> None:
    loss = FlowMatching("x").loss(sample.data + 0.05, FlowSample(sample.data, sample.noise, torch.full((6,), 0.999)))
    torch.testing.assert_close(loss, torch.ones(6), rtol=1e-4, atol=1e-4)


def test_losses_are_float32_whatever_the_output_and_the_default(sample: FlowSample) -> None:
    torch.set_default_dtype(torch.bfloat16)
    try:
        for flow in (FlowMatching("x"), FlowMatching("v")):
            drawn = flow.sample(sample.data.bfloat16(), TIMES, [1, 2], [4, 2])
            assert drawn.noise.dtype == drawn.noised.dtype == torch.float32
            assert flow.loss(sample.data.bfloat16(), drawn).dtype == torch.float32
            assert flow.training_timesteps(torch.zeros(6, dtype=torch.bool), [1, 2], [4, 2], 2.0).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_row_gets_the_same_noise_wherever_it_is_and_other_than_its_neighbour(sample: FlowSample) -> None:
    def noise(seeds: list[int], counts: list[int]) -> Tensor:
        return FlowMatching().sample(sample.data[: sum(counts)], TIMES[: sum(counts)], seeds, counts).noise

    together = noise([7, 8], [2, 4])
    assert torch.equal(together[2:], noise([8], [4]))
    assert not torch.equal(together[:2], together[2:4])


def test_guidance_is_the_line_through_both_velocities() -> None:
    conditional, unconditional = torch.randn(3, 4), torch.randn(3, 4)
    torch.testing.assert_close(guide(conditional, unconditional, 1.0), conditional)
    torch.testing.assert_close(guide(conditional, unconditional, 0.0), unconditional)
    torch.testing.assert_close(guide(conditional, unconditional, 3.0), 3 * conditional - 2 * unconditional)


def test_narrow_models_are_warned_about_v_and_not_about_x() -> None:
    assert VelocityPrediction().width_warning(256, 256) is None
    assert DataPrediction().width_warning(128, 256) is None
    message = VelocityPrediction().width_warning(128, 256)
    assert message is not None
    assert "model.backbone.dim is 128" in message
    assert "256 channels" in message


def test_the_floor_warned_of_is_real() -> None:
    """The best possible rank-limited linear predictor of the velocity of pure noise stays above the floor named."""
    dim, channels, count = 8, 32, 4000
    noise = torch.randn(count, channels, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = -noise  # data is zero, so v = -noise, and z_0 = noise tells the network everything
    u, s, v = torch.linalg.svd(target, full_matrices=False)
    best = (u[:, :dim] * s[:dim]) @ v[:dim]  # Eckart-Young: nothing of rank `dim` is closer
    loss = (best - target).square().mean().item()
    assert f"{(channels - dim) / channels:.2f}" in (VelocityPrediction().width_warning(dim, channels) or "")
    assert loss == pytest.approx((channels - dim) / channels, abs=0.05)
