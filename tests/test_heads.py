from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from lit_mm.heads import LOSS_ROWS, TextHead, VelocityHead, VisualInput, _chunked_losses, token_losses


@pytest.mark.parametrize("losses", [token_losses, _chunked_losses])
@pytest.mark.parametrize("tokens", [0, 1, LOSS_ROWS, 2 * LOSS_ROWS + 77])
def test_text_losses_and_gradients_equal_plain_cross_entropy(losses, tokens):
    hidden = torch.randn(tokens, 32, requires_grad=True)
    weight = (0.3 * torch.randn(500, 32)).requires_grad_()
    targets = torch.randint(500, (tokens,))
    targets[1::5] = -100
    each = torch.rand(tokens)  # a different weight per token, as per-source losses need

    ours = losses(hidden, weight, targets)
    truth = cross_entropy(hidden @ weight.T, targets, reduction="none", ignore_index=-100)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, truth, rtol=1e-5, atol=1e-5)
    got = torch.autograd.grad((ours * each).sum(), (hidden, weight))
    expected = torch.autograd.grad((truth * each).sum(), (hidden, weight))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_text_losses_are_float32_under_autocast():
    head = TextHead(32, 500)
    hidden, targets = torch.randn(700, 32, requires_grad=True), torch.randint(500, (700,))
    exact = head(hidden, targets)
    with torch.autocast("cpu", torch.bfloat16):
        rough = head(hidden, targets)
    rough.mean().backward()
    assert rough.dtype == torch.float32
    assert (rough != rough.bfloat16()).any(), "losses were rounded to bfloat16"
    torch.testing.assert_close(rough, exact, rtol=0.02, atol=0.02)
    assert head.linear.weight.grad.isfinite().all()
    stored_in_bfloat16 = head.bfloat16()(hidden.detach().bfloat16(), targets)
    assert stored_in_bfloat16.dtype == torch.float32
    torch.testing.assert_close(stored_in_bfloat16, exact, rtol=0.02, atol=0.02)


def largest_allocation(losses) -> int:
    """Most bytes that one operator of the forward or backward pass allocates."""
    hidden, weight = torch.randn(4096, 16, requires_grad=True), torch.randn(5000, 16, requires_grad=True)
    targets = torch.randint(5000, (4096,))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        losses(hidden, weight, targets).mean().backward()
    return max(event.self_cpu_memory_usage for event in profiler.events())


@pytest.mark.parametrize("losses", [token_losses, _chunked_losses])
def test_text_losses_never_hold_all_logits(losses):
    all_logits = 4096 * 5000 * 4
    assert largest_allocation(lambda h, w, t: cross_entropy(h @ w.T, t, reduction="none")) >= all_logits
    assert largest_allocation(losses) <= all_logits / 4


def test_text_head_without_targets_gives_logits():
    head = TextHead(32, 50)
    hidden = torch.randn(2, 3, 32)
    torch.testing.assert_close(head(hidden), hidden @ head.linear.weight.T)


def test_untrained_text_loss_is_that_of_a_guess():
    head = TextHead(256, 8192)
    hidden = torch.nn.functional.rms_norm(torch.randn(600, 256), (256,))
    assert head(hidden, torch.randint(8192, (600,))).mean().item() == pytest.approx(math.log(8192), abs=0.2)


def test_visual_input_is_linear_in_the_latents_plus_one_vector_per_time():
    layer = VisualInput(24, 64)
    latents, times = torch.randn(5, 4, 24), torch.tensor([0.0, 0.3, 0.3, 0.9, 1.0])
    out = layer(latents, times)
    assert out.shape == (5, 4, 64)
    time_only = layer(torch.zeros(5, 4, 24), times)
    assert (time_only == time_only[:, :1]).all()
    torch.testing.assert_close(time_only[1], time_only[2])
    torch.testing.assert_close(out - time_only, latents @ layer.linear.weight.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("autocast", [False, True])
def test_near_times_are_told_apart_and_nearer_than_far_ones(autocast):
    """Times a thousandth apart are told apart, also under bfloat16, where t itself has only three digits."""
    torch.manual_seed(0)
    layer = VisualInput(8, 64)
    times = torch.tensor([0.8985, 0.8995, 0.95, 0.5])  # the first two are one number in bfloat16
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = layer(torch.zeros(4, 1, 8), times).float()[:, 0]
    near, middle, far = (out[0] - out[i] for i in (1, 2, 3))
    assert 0 < near.norm() < min(middle.norm(), far.norm())


def test_velocity_head_starts_at_zero_and_learns():
    head = VelocityHead(64, 24)
    hidden = torch.randn(3, 4, 64)
    with torch.autocast("cpu", torch.bfloat16):
        out = head(hidden)
    assert out.shape == (3, 4, 24)
    assert out.dtype == torch.float32
    assert not out.any()
    (head(hidden) - 1).square().sum().backward()
    assert head.linear.weight.grad.abs().sum() > 0
