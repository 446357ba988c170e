from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.nn.functional import silu

from lit_mm.backbone import ModalityFeedForward, Transformer
from lit_mm.backbone.feed_forward import llama_hidden_dim
from lit_mm.backbone.routing import Groups, Routing


def visual_patterns() -> dict[str, torch.Tensor]:
    mixed = torch.rand(3, 20, generator=torch.Generator().manual_seed(0)) < 0.4
    return {"mixed": mixed, "text only": torch.zeros_like(mixed), "visual only": torch.ones_like(mixed)}


@pytest.mark.parametrize("pattern", visual_patterns())
@pytest.mark.parametrize("waits", [False, True])
def test_modality_equals_a_loop_over_tokens(pattern, waits):
    visual = visual_patterns()[pattern]
    flat = visual.flatten()
    routing = Routing(flat, torch.ones(60), flat.long(), Groups.of_two(flat), grouped_mm_waits=waits)
    torch.manual_seed(0)
    layer = ModalityFeedForward(16, 24)
    for p in layer.parameters():
        p.data.normal_()
    x = torch.randn(3, 20, 16, requires_grad=True)
    out, _ = layer(x, routing)
    weights = torch.randn_like(out)
    gradients = torch.autograd.grad((out * weights).sum(), [x, *layer.parameters()])

    # grouped_mm knows no float64, the truth does
    layer, x, weights = layer.double(), x.detach().double().requires_grad_(), weights.double()
    rows = []
    for r in range(3):
        for i in range(20):
            which = int(visual[r, i])
            inner = silu(layer.gate[which] @ x[r, i]) * (layer.up[which] @ x[r, i])
            rows.append(layer.down[which] @ inner)
    expected = torch.stack(rows).view(3, 20, 16)

    torch.testing.assert_close(out, expected.float(), rtol=1e-5, atol=1e-4)
    truths = torch.autograd.grad((expected * weights).sum(), [x, *layer.parameters()])
    for ours, truth in zip(gradients, truths, strict=True):
        torch.testing.assert_close(ours, truth.float(), rtol=1e-5, atol=1e-4)


def test_modalities_share_attention_but_no_feed_forward_weights(random_layout):
    """The visual weights get no gradient from a batch of text, and the text weights do."""
    model = Transformer(50, 64, 2, 4, 2, partial(ModalityFeedForward, hidden_dim=96))
    model(torch.randn(3, 48, 64), random_layout(0, frames=False)).hidden.sum().backward()
    for layer in model.layers:
        text, visual = layer.feed_forward.gate.grad
        assert text.abs().sum() > 0
        assert visual.abs().sum() == 0


@pytest.mark.parametrize(("dim", "hidden"), [(2048, 8192), (4096, 16384), (256, 1024)])
def test_default_hidden_width_is_the_papers(dim, hidden):
    assert llama_hidden_dim(dim) == hidden


def test_published_llama_widths():
    assert llama_hidden_dim(4096, multiplier=1.3, multiple_of=1024) == 14336  # Llama 3 8B
    assert llama_hidden_dim(8192, multiplier=1.3, multiple_of=4096) == 28672  # Llama 3 70B


@pytest.mark.parametrize(("dim", "hidden", "name"), [(100, 64, "dim is 100"), (64, 100, "hidden_dim is 100")])
def test_widths_that_break_grouped_products_are_refused(dim, hidden, name):
    with pytest.raises(ValueError, match=f"model.backbone.*{name}.*multiple of 8, for instance 104"):
        ModalityFeedForward(dim, hidden)
