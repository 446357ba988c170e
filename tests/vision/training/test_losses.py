from __future__ import annotations

import pytest
import torch
from torch import nn

from lit_mm.mistake import Mistake
from lit_mm.vision.training.losses import (
    MAX_ADAPTIVE_WEIGHT,
    ReconstructionLoss,
    ReconstructionTerms,
    adaptive_weight,
    gram_distance,
    hinge_loss,
)
from tests.vision.training.toys import ToyFeatures, never, shapes


def test_pixel_terms_are_means_over_values_in_0_to_1() -> None:
    images = shapes(3, 8) / 255
    drawn = images + 0.1
    drawn[0] += 0.2
    losses = ReconstructionLoss(ReconstructionTerms(l1=2.0, mse=3.0))(drawn, images)
    assert set(losses) == {"l1", "mse"}
    assert float(losses["l1"]) == pytest.approx(2 * (0.3 + 0.1 + 0.1) / 3, rel=1e-5)
    assert float(losses["mse"]) == pytest.approx(3 * (0.09 + 0.01 + 0.01) / 3, rel=1e-5)


def test_terms_of_features_carry_the_networks_name() -> None:
    terms = ReconstructionTerms(l1=0.0, perceptual=2.0, gram=5.0, network=ToyFeatures)
    images, drawn = shapes(3, 16) / 255, shapes(3, 16, seed=1) / 255
    losses = ReconstructionLoss(terms)(drawn, images)
    assert set(losses) == {"toy", "toy_gram"}
    network = ToyFeatures()
    one, other = network(drawn), network(images)
    assert float(losses["toy"]) == pytest.approx(2 * float(network.distance(one, other).mean()), rel=1e-5)
    assert float(losses["toy_gram"]) == pytest.approx(5 * float(gram_distance(one, other).mean()), rel=1e-5)


def test_only_the_drawn_picture_gets_a_gradient() -> None:
    loss = ReconstructionLoss(ReconstructionTerms(perceptual=1.0, network=ToyFeatures))
    drawn = (shapes(2, 16) / 255).requires_grad_()
    torch.stack(list(loss(drawn, shapes(2, 16, seed=1) / 255).values())).sum().backward()
    assert drawn.grad is not None
    assert drawn.grad.abs().min() > 0
    assert all(p.grad is None for p in loss.parameters())


def test_a_term_of_weight_0_makes_no_network() -> None:
    ReconstructionLoss(ReconstructionTerms(l1=1.0, network=never))
    with pytest.raises(AssertionError, match="no term needs"):
        ReconstructionLoss(ReconstructionTerms(gram=1.0, network=never))


def test_missing_parts_are_named() -> None:
    with pytest.raises(Mistake, match=r"^model\.loss has only weights of 0"):
        ReconstructionLoss(ReconstructionTerms(l1=0.0))
    with pytest.raises(Mistake, match=r"need model\.loss\.network"):
        ReconstructionLoss(ReconstructionTerms(perceptual=1.0))


def test_gram_distance_is_that_of_its_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    one = [torch.randn(2, 3, 4, 5, generator=generator), torch.randn(2, 2, 2, 2, generator=generator)]
    other = [torch.randn(m.shape, generator=generator) for m in one]
    found = gram_distance(one, other)
    for picture in range(2):
        expected = 0.0
        for a, b in zip(one, other, strict=True):
            channels, values = a.shape[1], a[0].numel()
            for i in range(channels):
                for j in range(channels):
                    difference = (a[picture, i] * a[picture, j]).sum() - (b[picture, i] * b[picture, j]).sum()
                    expected += float(difference / values) ** 2
        assert float(found[picture]) == pytest.approx(expected, rel=1e-5)


def test_gram_matrices_do_not_see_where_things_are() -> None:
    features = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    moved = features.flatten(2)[:, :, torch.randperm(16, generator=torch.Generator().manual_seed(1))].view(2, 3, 4, 4)
    torch.testing.assert_close(gram_distance([features], [moved]), torch.zeros(2), atol=1e-9, rtol=0)


def test_hinge_loss_is_that_of_its_definition() -> None:
    true, drawn = torch.tensor([[2.0, 0.5], [-1.0, 1.0]]), torch.tensor([[-3.0, 0.5], [0.0, -1.0]])
    of_true = (0 + 0.5 + 2 + 0) / 4
    of_drawn = (0 + 1.5 + 1 + 0) / 4
    assert float(hinge_loss(true, drawn)) == pytest.approx((of_true + of_drawn) / 2)


def test_adaptive_weight_is_the_ratio_of_known_gradients() -> None:
    layer = nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 3.0]]))
    one, other = torch.tensor([[3.0, 0.0], [0.0, 4.0]]), torch.tensor([[0.0, 0.5], [0.0, 0.0]])
    reconstruction, term = (layer * one).sum(), (layer * other).sum()  # gradients `one` and `other`: norms 5 and 0.5
    assert float(adaptive_weight(reconstruction, term, layer)) == pytest.approx(5 / 0.500001)
    assert float(adaptive_weight(reconstruction, 0 * term, layer)) == MAX_ADAPTIVE_WEIGHT
    (reconstruction + term).backward()  # both graphs are still there, and the gradient holds nothing but this
    torch.testing.assert_close(layer.grad, one + other)
