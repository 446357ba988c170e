from __future__ import annotations

import pytest
import torch

from lit_mm.flow import check_width, flow_loss, guide, interpolate, to_velocity, velocity
from lit_mm.flow.prediction import velocity_from_data


@pytest.fixture
def frames():
    generator = torch.Generator().manual_seed(0)
    data, noise = (torch.randn(6, 4, 8, generator=generator) for _ in range(2))
    return data, noise, torch.tensor([0.0, 0.2, 0.5, 0.9, 0.97, 1.0])


def test_path_runs_from_noise_to_data_at_the_velocity(frames):
    data, noise, _ = frames
    assert (interpolate(data, noise, torch.zeros(6)) == noise).all()
    assert (interpolate(data, noise, torch.ones(6)) == data).all()
    early, late = (interpolate(data, noise, torch.full((6,), t, dtype=torch.float64)) for t in (0.3, 0.3001))
    torch.testing.assert_close((late - early) / 1e-4, velocity(data, noise).double(), rtol=1e-4, atol=1e-4)


def test_each_frame_has_its_own_time(frames):
    data, noise, t = frames
    noisy = interpolate(data, noise, t)
    for i in range(6):
        torch.testing.assert_close(noisy[i], (1 - t[i]) * noise[i] + t[i] * data[i])


def test_x_and_v_agree_through_conversion(frames):
    data, noise, t = frames
    noisy = interpolate(data, noise, t)
    away_from_data = t <= 0.95
    torch.testing.assert_close(
        velocity_from_data(data, noisy, t)[away_from_data], velocity(data, noise)[away_from_data], rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(
        to_velocity(data, noisy, t, "x", min_noise=1e-6)[:-1], velocity(data, noise)[:-1], rtol=1e-3, atol=1e-3
    )
    assert (to_velocity(noise, noisy, t, "v") == noise).all()


def test_perfect_predictions_have_no_loss_at_any_time(frames):
    data, noise, t = frames
    noisy = interpolate(data, noise, t)
    assert (flow_loss(data, data, noise, noisy, t, "x") == 0).all()
    assert (flow_loss(velocity(data, noise), data, noise, noisy, t, "v") == 0).all()


def test_loss_is_one_of_velocities_whatever_is_predicted(frames):
    data, noise, t = (tensor[:4] for tensor in frames)
    noisy = interpolate(data, noise, t)
    x = data + 0.1 * torch.randn_like(data)
    v = (x - noisy) / (1 - t[:, None, None])
    truth = torch.stack([((v[i] - (data[i] - noise[i])) ** 2).mean() for i in range(4)])
    torch.testing.assert_close(flow_loss(v, data, noise, noisy, t, "v"), truth)
    torch.testing.assert_close(flow_loss(x, data, noise, noisy, t, "x"), truth, rtol=1e-4, atol=1e-5)


def test_x_loss_near_data_is_bounded_by_the_floor(frames):
    data, noise, _ = frames
    t = torch.full((6,), 0.999)
    loss = flow_loss(data + 0.05, data, noise, interpolate(data, noise, t), t, "x")
    torch.testing.assert_close(loss, torch.ones(6), rtol=1e-4, atol=1e-4)


def test_losses_of_bfloat16_outputs_are_float32(frames):
    data, noise, t = frames
    noisy = interpolate(data, noise, t)
    for prediction in ("x", "v"):
        assert flow_loss(data.bfloat16(), data, noise, noisy, t, prediction).dtype == torch.float32


def test_guidance_is_the_line_through_both_velocities():
    conditional, unconditional = torch.randn(3, 4), torch.randn(3, 4)
    torch.testing.assert_close(guide(conditional, unconditional, 1.0), conditional)
    torch.testing.assert_close(guide(conditional, unconditional, 0.0), unconditional)
    torch.testing.assert_close(guide(conditional, unconditional, 3.0), 3 * conditional - 2 * unconditional)


def test_narrow_models_are_warned_about_v_and_not_about_x():
    assert check_width(256, 256, "v") is None
    assert check_width(128, 256, "x") is None
    message = check_width(128, 256, "v")
    assert message is not None
    assert "model.backbone.dim is 128" in message
    assert "256 channels" in message


def test_the_floor_warned_of_is_real():
    """The best possible rank-limited linear predictor of the velocity of pure noise stays above the floor named."""
    dim, channels, count = 8, 32, 4000
    noise = torch.randn(count, channels, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = -noise  # data is zero, so v = -noise, and z_0 = noise tells the network everything
    u, s, v = torch.linalg.svd(target, full_matrices=False)
    best = (u[:, :dim] * s[:dim]) @ v[:dim]  # Eckart-Young: nothing of rank `dim` is closer
    loss = (best - target).square().mean().item()
    assert f"{(channels - dim) / channels:.2f}" in (check_width(dim, channels, "v") or "")
    assert loss == pytest.approx((channels - dim) / channels, abs=0.05)
