from __future__ import annotations

import math

import pytest
import torch

from lit_mm.model.heads import TextHead, VelocityHead, VisualInput, VisualTokens


def shown(latents: torch.Tensor, times: torch.Tensor) -> VisualTokens:
    """Frames that are all read."""
    nothing = torch.zeros(0, dtype=torch.int64)
    return VisualTokens(latents, times, torch.arange(latents[..., 0].numel()).view(latents.shape[:2]), nothing)


def test_text_head_gives_logits():
    head = TextHead(32, 50)
    hidden = torch.randn(2, 3, 32)
    torch.testing.assert_close(head.logits(hidden), hidden @ head.linear.weight.T)


def test_untrained_text_loss_is_that_of_a_guess():
    head = TextHead(256, 8192)
    hidden = torch.nn.functional.rms_norm(torch.randn(600, 256), (256,))
    assert head(hidden, torch.randint(8192, (600,))).each.mean().item() == pytest.approx(math.log(8192), abs=0.2)


def test_visual_input_is_linear_in_the_latents_plus_one_vector_per_time():
    layer = VisualInput(24, 64)
    latents, times = torch.randn(5, 4, 24), torch.tensor([0.0, 0.3, 0.3, 0.9, 1.0])
    out = layer(shown(latents, times), torch.float32)
    assert out.shape == (5, 4, 64)
    time_only = layer(shown(torch.zeros(5, 4, 24), times), torch.float32)
    assert (time_only == time_only[:, :1]).all()
    torch.testing.assert_close(time_only[1], time_only[2])
    torch.testing.assert_close(out - time_only, latents @ layer.linear.weight.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_near_times_are_told_apart_and_nearer_than_far_ones(dtype):
    """Times a thousandth apart are told apart, also under bfloat16, where t itself has only three digits."""
    torch.manual_seed(0)
    layer = VisualInput(8, 64)
    times = torch.tensor([0.8985, 0.8995, 0.95, 0.5])  # the first two are one number in bfloat16
    out = layer(shown(torch.zeros(4, 1, 8), times), dtype).float()[:, 0]
    near, middle, far = (out[0] - out[i] for i in (1, 2, 3))
    assert 0 < near.norm() < min(middle.norm(), far.norm())


def test_velocity_head_starts_at_zero_and_learns():
    head = VelocityHead(64, 24)
    hidden = torch.randn(3, 4, 64)
    out = head(hidden.bfloat16())
    assert out.shape == (3, 4, 24)
    assert out.dtype == torch.float32
    assert not out.any()
    (head(hidden) - 1).square().sum().backward()
    assert head.linear.weight.grad.abs().sum() > 0
