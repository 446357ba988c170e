"""Options of the follow-up paper: what text and visual tokens share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch

from lit_mm.backbone import ModalityFeedForward, Routing, SequenceLayout, Transformer
from lit_mm.backbone.modality import ModalityLinear, ModalityRMSNorm
from lit_mm.backbone.routing import Groups

Layouts = Callable[..., SequenceLayout]


def tiny(**options: bool) -> Transformer:
    torch.manual_seed(0)
    return Transformer(50, 64, 2, 4, 2, partial(ModalityFeedForward, hidden_dim=96), **options)


@pytest.mark.parametrize("waits", [False, True])
def test_projection_and_norm_equal_a_loop_over_tokens(waits: bool) -> None:
    torch.manual_seed(0)
    visual = torch.rand(3, 10) < 0.4
    flat = visual.flatten()
    routing = Routing(flat, torch.ones(30), flat.long(), Groups.of_two(flat), grouped_mm_waits=waits)
    linear, norm = ModalityLinear(16, 24), ModalityRMSNorm(16, eps=1e-5)
    for parameter in (linear.weight, norm.weight):
        parameter.data.normal_()
    x, heads = torch.randn(3, 10, 16), torch.randn(3, 10, 2, 16)
    projected, normed, by_head = linear(x, routing), norm(x, routing), norm(heads, routing)
    for row in range(3):
        for i in range(10):
            which = int(visual[row, i])
            torch.testing.assert_close(projected[row, i], linear.weight[which] @ x[row, i])
            size = (x[row, i].square().mean() + 1e-5).sqrt()
            torch.testing.assert_close(normed[row, i], x[row, i] / size * norm.weight[which])
            sizes = (heads[row, i].square().mean(-1, keepdim=True) + 1e-5).sqrt()
            torch.testing.assert_close(by_head[row, i], heads[row, i] / sizes * norm.weight[which])


@pytest.mark.parametrize("qk_norm", [False, True])
def test_split_weights_that_are_alike_do_what_shared_ones_do(qk_norm: bool, random_layout: Layouts) -> None:
    shared = tiny(qk_norm=qk_norm)
    split = tiny(qk_norm=qk_norm, attention_by_modality=True, norms_by_modality=True)
    own = split.state_dict()
    weights = {
        name: value if value.shape == own[name].shape else torch.stack([value, value])
        for name, value in shared.state_dict().items()
    }
    split.load_state_dict(weights)
    x, layout = torch.randn(3, 48, 64), random_layout(0)
    torch.testing.assert_close(split(x, layout).hidden, shared(x, layout).hidden, rtol=1e-4, atol=1e-5)


def test_text_moves_nothing_of_what_visual_tokens_pass(random_layout: Layouts) -> None:
    """The last projection on, where no text reads of frames; in a batch of text alone, everywhere."""
    model = tiny(attention_by_modality=True, norms_by_modality=True, qk_norm=True)
    model(torch.randn(3, 48, 64), random_layout(0, frames=False)).hidden.square().mul(torch.rand(64)).sum().backward()
    for name, parameter in model.named_parameters():
        if name == "embedding.weight":
            continue
        of_text, of_visual = parameter.grad
        assert of_text.abs().sum() > 0, name
        assert of_visual.abs().sum() == 0, name
