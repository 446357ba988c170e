from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lit_mm.mistake import Mistake
from lit_mm.vision.training.adversary import AdversarialTerm, Adversary, Discriminator
from lit_mm.vision.training.diff_augment import diff_augment
from tests.vision.training.toys import ToyFeatures, adversarial, shapes


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_learns_to_tell_two_kinds_of_pictures_apart_with_its_heads_alone() -> None:
    torch.manual_seed(0)
    adversary = Adversary(adversarial())
    network, heads = adversary.discriminator.network, adversary.discriminator.heads
    before = {k: v.clone() for k, v in network.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in adversary.parameters() if p.requires_grad], lr=2e-2)
    assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {id(p) for p in heads.parameters()}
    true = shapes(16, 32) / 255
    drawn = true.mean((2, 3), keepdim=True).expand_as(true)  # flat
    for step in range(80):
        loss = adversary.discriminator_loss(drawn, true, random(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.8
    others = shapes(16, 32, seed=1) / 255
    with torch.no_grad():
        of_true = adversary.discriminator(others).mean(1)
        of_flat = adversary.discriminator(others.mean((2, 3), keepdim=True).expand_as(others)).mean(1)
    assert (of_true > of_flat).all()
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_the_decoder_is_pulled_towards_higher_scores_and_the_heads_do_not_move() -> None:
    torch.manual_seed(0)
    adversary = Adversary(adversarial())
    before = {k: v.clone() for k, v in adversary.state_dict().items()}
    drawn = (shapes(4, 32) / 255).requires_grad_()
    loss = adversary.decoder_loss(drawn, random())
    loss.backward()
    loss = loss.detach()
    assert drawn.grad is not None
    assert all(p.grad is None for p in adversary.parameters())
    assert all(torch.equal(v, before[k]) for k, v in adversary.state_dict().items())
    with torch.no_grad():
        better = drawn - 1e-2 * drawn.grad / drawn.grad.abs().max()
        assert float(adversary.decoder_loss(better, random())) < float(loss)
        adversary.discriminator.eval()
        scores = adversary.discriminator(diff_augment(drawn, random()))
    assert float(loss) == pytest.approx(-float(scores.mean()), rel=1e-4)
    assert all(p.requires_grad for p in adversary.discriminator.heads.parameters())
    assert not any(p.requires_grad for p in adversary.discriminator.network.parameters())


def test_drawn_pictures_are_judged_as_they_would_be_stored() -> None:
    torch.manual_seed(0)
    adversary = Adversary(adversarial())
    adversary.eval()  # no power iterations
    true = shapes(4, 32) / 255
    drawn = (true + 0.3).clamp(0, 1)
    off = drawn + 0.0015  # rounds to the same 8 bits, but for what is above 1
    losses = [float(adversary.discriminator_loss(d, true, random())) for d in (drawn, off)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_every_position_of_every_layer_gets_a_score_of_its_picture_alone() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(ToyFeatures()).eval()
    images = shapes(3, 32) / 255
    scores = discriminator(images)
    assert scores.shape == (3, 15 * 15 + 7 * 7)
    torch.testing.assert_close(discriminator(images[1:2]), scores[1:2], atol=1e-5, rtol=1e-4)


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(Mistake, match=r"model\.adversarial\.network is missing"):
        Adversary(AdversarialTerm(weight=1.0))
    with pytest.raises(Mistake, match=r"adversarial_start is 3, before .* learn at 4"):
        Adversary(adversarial(discriminator_start=4, adversarial_start=3))


def test_augmented_pictures_are_recoloured_and_shifted() -> None:
    images = shapes(150, 16).double() / 255
    augmented = diff_augment(images, random())
    assert augmented.shape == images.shape
    seen = set()
    for picture, changed in zip(images, augmented, strict=True):
        found = [shift for shift in _shifts(2) if _is_recoloured(_moved(picture, shift), _inside(shift), changed)]
        assert found
        seen.add(found[0])
    assert seen == set(_shifts(2))


def _shifts(most: int) -> list[tuple[int, int]]:
    return [(y, x) for y in range(-most, most + 1) for x in range(-most, most + 1)]


def _moved(values: Tensor, shift: tuple[int, int]) -> Tensor:
    padded = F.pad(values, (2, 2, 2, 2))
    return padded[..., 2 + shift[0] : 18 + shift[0], 2 + shift[1] : 18 + shift[1]]


def _inside(shift: tuple[int, int]) -> Tensor:
    return _moved(torch.ones(1, 16, 16), shift)[0].bool()


def _is_recoloured(moved: Tensor, inside: Tensor, changed: Tensor) -> bool:
    """Mid-grey outside; inside, one affine map of colour and grey fits all pixels of all channels."""
    if not torch.allclose(changed[:, ~inside], torch.tensor(0.5, dtype=torch.float64)):
        return False
    grey = moved.mean(0, keepdim=True).expand_as(moved)
    known = torch.stack([m[:, inside].flatten() for m in (moved, grey, torch.ones_like(moved))], dim=1)
    wanted = changed[:, inside].flatten()
    fitted = known @ torch.linalg.lstsq(known, wanted[:, None]).solution
    return torch.allclose(fitted[:, 0], wanted, atol=1e-6)


@pytest.mark.parametrize("change", [lambda x: x, lambda x: x.flip(0)])
def test_augmentation_follows_its_generator_and_passes_gradients(change: Callable[[Tensor], Tensor]) -> None:
    images = change(shapes(4, 16).double() / 255).requires_grad_()
    first = diff_augment(images, random(1))
    assert torch.equal(first, diff_augment(images, random(1)))
    assert not torch.equal(first, diff_augment(images, random(2)))
    first.sum().backward()
    assert images.grad is not None
    assert (images.grad != 0).double().mean() > 0.7


def test_a_rank_without_pictures_moves_its_spectral_norms_alike_and_no_weight() -> None:
    torch.manual_seed(0)
    seeing, blind = Adversary(adversarial()), Adversary(adversarial())
    blind.load_state_dict(seeing.state_dict())
    pictures = shapes(4, 32) / 255
    seeing.discriminator_loss(pictures.flip(0), pictures, random()).backward()
    loss = blind.loss_without_pictures()
    loss.backward()
    assert float(loss) == 0
    for name, tensor in seeing.state_dict().items():
        assert torch.equal(blind.state_dict()[name], tensor), name
    for one, other in zip(seeing.discriminator.heads.parameters(), blind.discriminator.heads.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert not other.grad.any()
