"""Activation checkpointing and compilation change how the model is computed, not what."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from lit_mm.backbone import ExpertFeedForward, SequenceLayout, Transformer
from lit_mm.model.multimodal import MultimodalTransformer
from lit_mm.parallel import Parallelize

Layouts = Callable[[int], SequenceLayout]


def prepared(plan: Parallelize) -> MultimodalTransformer:
    torch.manual_seed(0)
    layer = partial(ExpertFeedForward, experts=10, active=3, granularity=16, balance_weight=0.1)
    with torch.device("meta"):
        model = MultimodalTransformer(Transformer(50, 64, 3, 4, 2, layer), 50, 8)
    plan(model, torch.device("cpu"))
    return model.train()


def outcome(model: MultimodalTransformer, layout: SequenceLayout) -> tuple[Tensor, list[Tensor], Tensor, int]:
    """Output, gradients, expert load, and how many numbers were kept for the backward pass."""
    torch.manual_seed(1)
    x = torch.randn(3, 48, 64, requires_grad=True)
    kept = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        out = model.backbone(x, layout)
    (out.hidden.square().sum() + out.expert_loss).backward()
    gradients = [p.grad.clone() for p in model.backbone.layers.parameters()]
    assert out.expert_tokens is not None
    return out.hidden.detach(), gradients, out.expert_tokens, kept


@pytest.mark.parametrize("plan", [Parallelize("all"), Parallelize("all", every=2), Parallelize("selective")])
def test_recomputing_keeps_less_and_changes_nothing(plan: Parallelize, random_layout: Layouts) -> None:
    layout = random_layout(0)
    hidden, gradients, load, kept = outcome(prepared(Parallelize()), layout)
    other, others, other_load, other_kept = outcome(prepared(plan), layout)
    torch.testing.assert_close(other, hidden)
    for ours, theirs in zip(others, gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert torch.equal(other_load, load), "each choice is counted once"
    assert other_kept < 0.8 * kept


@pytest.mark.slow
@pytest.mark.parametrize("recompute", ["none", "selective"])
def test_compiled_blocks_keep_their_names_and_agree(recompute: str, random_layout: Layouts) -> None:
    plain, compiled = prepared(Parallelize()), prepared(Parallelize(recompute, compile=True))
    assert [name for name, _ in compiled.named_parameters()] == [name for name, _ in plain.named_parameters()]
    hidden, gradients, _, _ = outcome(plain, random_layout(0))
    other, others, _, _ = outcome(compiled, random_layout(0))
    torch.testing.assert_close(other, hidden, rtol=1e-3, atol=1e-4)
    for ours, theirs in zip(others, gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-3)


def test_no_block_in_none_is_refused() -> None:
    with pytest.raises(ValueError, match="model.parallelize.every is 0"):
        Parallelize("all", every=0)
