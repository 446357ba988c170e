from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from lit_mm.model import text_loss
from lit_mm.model.heads import TextHead
from lit_mm.model.text_loss import LOGIT_ROWS, text_losses


@pytest.mark.parametrize("tokens", [0, 1, LOGIT_ROWS, 2 * LOGIT_ROWS + 77])
def test_losses_and_gradients_equal_plain_cross_entropy(tokens):
    hidden = torch.randn(tokens, 32, requires_grad=True)
    weight = (0.3 * torch.randn(500, 32)).requires_grad_()
    targets = torch.randint(500, (tokens,))
    targets[1::5] = -100

    ours = text_losses(hidden, weight, targets)
    truth = cross_entropy(hidden @ weight.T, targets, reduction="none", ignore_index=-100)
    assert ours.each.dtype == ours.sum.dtype == torch.float32
    assert not ours.each.requires_grad
    torch.testing.assert_close(ours.each, truth, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.sum, truth.sum(), rtol=1e-5, atol=1e-5)
    got = torch.autograd.grad(ours.sum * 0.7, (hidden, weight), retain_graph=True)
    expected = torch.autograd.grad(truth.sum() * 0.7, (hidden, weight))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    again = torch.autograd.grad(ours.sum * 0.7, (hidden, weight))
    assert all(map(torch.equal, got, again)), "a second backward pass finds what the first found"


@pytest.mark.parametrize("size", [1e-3, 1.0, 200.0])
def test_certain_and_hopeless_tokens_have_finite_losses(size):
    hidden, weight = size * torch.eye(8)[:4], torch.cat([torch.eye(8), -torch.eye(8)]).requires_grad_()
    targets = torch.tensor([0, 1, 8, 9])  # right, right, as wrong as can be, twice
    found = text_losses(hidden.requires_grad_(), weight, targets)
    truth = cross_entropy(hidden @ weight.T, targets, reduction="none")
    torch.testing.assert_close(found.each, truth, rtol=1e-5, atol=1e-5)
    found.sum.backward()
    assert weight.grad.isfinite().all()
    assert hidden.grad.isfinite().all()


@pytest.mark.parametrize("default", [torch.float32, torch.bfloat16])
def test_losses_of_half_precision_vectors_are_float32(default):
    head = TextHead(32, 500)
    hidden, targets = torch.randn(700, 32), torch.randint(500, (700,))
    exact = head(hidden, targets).each
    torch.set_default_dtype(default)
    try:
        rough = head(hidden.bfloat16(), targets)
    finally:
        torch.set_default_dtype(torch.float32)
    rough.sum.backward()
    assert rough.each.dtype == rough.sum.dtype == torch.float32
    assert (rough.each != rough.each.bfloat16()).any(), "losses were rounded to bfloat16"
    torch.testing.assert_close(rough.each, exact, rtol=0.02, atol=0.02)
    assert head.linear.weight.grad.dtype == torch.float32


def test_the_head_s_gradient_is_as_exact_as_one_product_however_many_tokens():
    """Summed up in bfloat16, chunk by chunk, it would be off by three times as much after eight chunks."""
    torch.manual_seed(0)
    hidden, targets = torch.randn(16 * LOGIT_ROWS, 64).bfloat16(), torch.randint(300, (16 * LOGIT_ROWS,))
    weight = (0.3 * torch.randn(300, 64)).bfloat16().float().requires_grad_()
    (found,) = torch.autograd.grad(text_losses(hidden, weight, targets).sum, weight)
    exact = weight.detach().double().requires_grad_()
    cross_entropy(hidden.double() @ exact.T, targets, reduction="sum").backward()
    assert (found - exact.grad).norm() / exact.grad.norm() < 0.002


def test_compiled_cross_entropy_is_the_same():
    logits, targets = torch.randn(130, 50), torch.randint(50, (130,))
    targets[::7] = -100
    plain, compiled = (text_loss.cross_entropy, text_loss._compiled_cross_entropy())
    torch.testing.assert_close(compiled(logits, targets, True), plain(logits, targets, True))


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(4096, 16, requires_grad=True), torch.randn(5000, 16, requires_grad=True), torch.arange(4096)


def largest_allocation(total) -> int:
    """Most bytes that one operator of the forward or backward pass allocates."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        total(*inputs()).backward()
    return max(event.self_cpu_memory_usage for event in profiler.events())


def test_logits_are_never_held_all_at_once():
    all_logits = 4096 * 5000 * 4
    assert largest_allocation(lambda h, w, t: cross_entropy(h @ w.T, t)) >= all_logits
    assert largest_allocation(lambda h, w, t: text_losses(h, w, t).sum) <= all_logits / 4


def products(total) -> int:
    """Matrix products of forward and backward pass."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        total(*inputs()).backward()
    return sum(event.name in ("aten::mm", "aten::addmm", "aten::addmm_") for event in profiler.events())


def test_logits_are_computed_once():
    assert products(lambda h, w, t: cross_entropy(h @ w.T, t)) == 3
    chunks = 4096 // LOGIT_ROWS
    assert products(lambda h, w, t: text_losses(h, w, t).sum) == 3 * chunks
    with torch.no_grad():
        alone = products(lambda h, w, t: text_losses(h, w, t).sum.requires_grad_())
    assert alone == chunks
