"""Activation checkpointing and compilation change how the model is computed, not what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from lit_mm.backbone import ExpertFeedForward, SequenceLayout, Transformer, flex
from lit_mm.backbone.flex import FlexMask
from lit_mm.backbone.masks import build_mask
from lit_mm.model.multimodal import MultimodalTransformer
from lit_mm.parallel import Parallelize, parallelize
from lit_mm.parallel.parallelize import Recomputed

Layouts = Callable[[int], SequenceLayout]


def prepared(plan: Parallelize, depth: int = 3) -> MultimodalTransformer:
    torch.manual_seed(0)
    layer = partial(ExpertFeedForward, experts=10, active=3, granularity=16, balance_weight=0.1)
    with torch.device("meta"):
        model = MultimodalTransformer(Transformer(50, 64, depth, 4, 2, layer), 50, 8)
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
    (out.hidden @ torch.randn(64) + out.expert_loss).sum().backward()
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


class Calls(TorchDispatchMode):
    """Counts how often each operator runs."""

    def __init__(self) -> None:
        super().__init__()
        self.of: Counter[Any] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.of[func] += 1
        return func(*args, **(kwargs or {}))


def test_selective_recomputing_neither_attends_nor_chooses_again(random_layout: Layouts) -> None:
    attention, choice = torch.ops.lit_mm.block_sparse_attention.default, torch.ops.aten.topk.default
    for recompute, runs in (("all", 2), ("selective", 1)):
        with Calls() as calls:
            outcome(prepared(Parallelize(recompute), depth=3), random_layout(0))  # type: ignore[arg-type]
        assert calls.of[attention] == calls.of[choice] == 3 * runs


@pytest.mark.parametrize("operator", sorted(parallelize._PRODUCTS, key=str), ids=str)
def test_what_leaves_a_feed_forward_is_not_kept(operator: Any) -> None:
    """Nothing that is differentiated reads it."""
    stack = () if operator == torch.ops.aten.mm.default else (3,)
    tokens, inner = torch.zeros(10, 64), torch.zeros(10, 96)
    into, out_of, within = torch.zeros(*stack, 64, 96), torch.zeros(*stack, 96, 64), torch.zeros(*stack, 64, 64)
    kept = [parallelize._policy(64, None, operator, *p) for p in ((tokens, into), (inner, out_of), (tokens, within))]
    save, again = CheckpointPolicy.MUST_SAVE, CheckpointPolicy.PREFER_RECOMPUTE
    assert kept == [save, again, save]


@pytest.mark.slow
def test_selective_recomputing_sees_attention_that_is_compiled_by_itself(random_layout: Layouts) -> None:
    seen: list[Any] = []
    keeps, _ = create_selective_checkpoint_contexts(lambda _, operator, *__, **___: seen.append(operator))
    query, mask = torch.randn(3, 2, 48, 16), build_mask(random_layout(0), "flex")
    assert isinstance(mask, FlexMask)
    with torch.no_grad(), keeps:
        flex._flex_attention(query, query, query, block_mask=mask.block_mask)
    assert len(seen) == 1
    assert parallelize._policy(64, None, seen[0]) == CheckpointPolicy.MUST_SAVE


@pytest.mark.slow
@pytest.mark.parametrize("recompute", ["none", "selective"])
def test_compiled_blocks_keep_their_names_and_agree(recompute: Recomputed, random_layout: Layouts) -> None:
    """All of them are one graph: at depth 10, Dynamo would give up if they were not."""
    plain, compiled = prepared(Parallelize(), 10), prepared(Parallelize(recompute, compile=True), 10)
    assert [name for name, _ in compiled.named_parameters()] == [name for name, _ in plain.named_parameters()]
    hidden, gradients, _, _ = outcome(plain, random_layout(0))
    counters.clear()
    other, others, _, _ = outcome(compiled, random_layout(0))
    assert counters["stats"]["unique_graphs"] == 1
    torch.testing.assert_close(other, hidden, rtol=1e-3, atol=1e-4)
    for ours, theirs in zip(others, gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-3)


def test_no_block_in_none_is_refused() -> None:
    with pytest.raises(ValueError, match="model.parallelize.every is 0"):
        Parallelize("all", every=0)
