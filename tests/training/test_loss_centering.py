from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from lit_mm.module import LitMultimodal
from lit_mm.packing import pack_rows
from lit_mm.sequence import Document, Frame, PackedRow, Text
from lit_mm.training.loss_centering import LossCentering
from tests.helpers.small_model import small_model

TEXT, FLOW = [5.0, 4.0, 3.5, 3.0, 2.0], [1.5, 1.2, 2.0, 0.5, 0.8]


def losses(step: int) -> tuple[Tensor, Tensor]:
    return torch.tensor(TEXT[step], requires_grad=True), torch.tensor(FLOW[step], requires_grad=True)


def targets(alpha: float, mu: float) -> list[float]:
    """The recursion in closed form: every centre, by how often it has decayed."""
    centres = [alpha * flow + (1 - alpha) * text for text, flow in zip(TEXT, FLOW, strict=True)]
    return [
        mu**n * centres[0] + (1 - mu) * sum(mu ** (n - i) * centres[i] for i in range(1, n + 1))
        for n in range(len(centres))
    ]


@pytest.mark.parametrize(("alpha", "mu"), [(0.5, 0.99), (0.2, 0.7), (1.0, 0.0), (0.0, 0.5)])
def test_the_target_is_a_moving_mean_and_both_weighted_losses_are_it(alpha: float, mu: float) -> None:
    centering = LossCentering(alpha, mu)
    for step, target in enumerate(targets(alpha, mu)):
        text, flow = losses(step)
        for_text, for_flow = centering(text, flow)
        assert not for_text.requires_grad
        assert float(for_text * text.detach()) == pytest.approx(target, rel=1e-5)
        assert float(for_flow * flow.detach()) == pytest.approx(target, rel=1e-5)


@pytest.mark.parametrize("bad", [(3.0, 0.0), (0.0, 2.0), (math.nan, 2.0), (3.0, math.inf)])
def test_a_batch_without_one_of_the_losses_does_not_move_the_target(bad: tuple[float, float]) -> None:
    centering, spared = LossCentering(0.5, 0.7), LossCentering(0.5, 0.7)
    for step in range(len(TEXT)):
        weights = centering(*map(torch.tensor, bad))
        for loss, weight in zip(bad, weights, strict=True):
            if loss == 0 or (step == 0 and math.isfinite(loss)):
                assert weight == 1, "nothing of its kind, or nothing known yet"
            elif math.isfinite(loss):
                assert float(weight * loss) == pytest.approx(float(centering.target))
        centering(*losses(step))
        spared(*losses(step))
        assert float(centering.target) == float(spared.target)


def test_the_target_is_that_of_all_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has a part of the losses, as `global_means` gives them: their mean over ranks is that of all tokens."""
    parts = torch.tensor([[1.5, 0.2, 1.3], [0.5, 1.8, 0.7]]).T  # of three ranks
    centerings = [LossCentering(0.3, 0.6) for _ in parts]
    for step, target in enumerate(targets(0.3, 0.6)):
        of_ranks = parts * torch.stack(losses(step)).detach()
        total = of_ranks.sum(0)
        monkeypatch.setattr(dist, "all_reduce", lambda tensor, total=total: tensor.copy_(total))
        for centering, (text, flow) in zip(centerings, of_ranks, strict=True):
            weights = centering(text, flow, world_size=3)
            assert float(centering.target) == pytest.approx(target, rel=1e-5)
            assert float(weights[1] * FLOW[step]) == pytest.approx(target, rel=1e-5)


def test_a_training_step_is_weighted_by_it() -> None:
    module = small_model()
    module.trainer = Trainer(accelerator="cpu", logger=False)
    module.configure_model()
    segments = (Text(torch.arange(5, 25)), Frame(torch.zeros(3, 64, 64, dtype=torch.uint8)))
    row = PackedRow((Document(segments, "s"),), 0, 7)
    batch = pack_rows([row], length=40, tokens_per_frame=16, image_size=64, pad_id=0, sources=("s",))

    def gradients(text_weight: float, flow_weight: float) -> tuple[float, Tensor, Tensor]:
        module.text_weight, module.flow_weight = text_weight, flow_weight
        loss = module.training_step(batch, 0)
        heads = module.model.text_head.linear.weight, module.model.velocity_head.linear.weight
        return (loss.item(), *torch.autograd.grad(loss, heads, allow_unused=True, materialize_grads=True))

    (text, of_text, _), (flow, _, of_flow) = gradients(1.0, 0.0), gradients(0.0, 1.0)
    module.loss_centering = LossCentering(alpha=0.25)
    loss, text_gradient, flow_gradient = gradients(5.0, 5.0)
    target = 0.25 * flow + 0.75 * text
    assert loss == pytest.approx(2 * target, rel=1e-5)
    torch.testing.assert_close(text_gradient, target / text * of_text)
    torch.testing.assert_close(flow_gradient, target / flow * of_flow)


def test_the_device_is_not_waited_for() -> None:
    with FakeTensorMode():
        centering = LossCentering()
        for _ in range(2):
            weights = centering(*(torch.ones((), device="cuda") for _ in range(2)))
        assert all(weight.is_cuda for weight in weights)


def test_values_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^model\.loss_centering\.alpha is 1\.5; it has to be from 0 to 1$"):
        LossCentering(alpha=1.5)
    with pytest.raises(ValueError, match=r"^model\.loss_centering\.mu is 1\.0; it has to be at least 0 and below 1$"):
        LossCentering(mu=1.0)


def test_a_checkpoint_holds_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tokenizer:
        def fingerprint(self) -> str:
            return "t"

    class Trainer:
        validating = False

    monkeypatch.setattr(LitMultimodal, "tokenizer", Tokenizer())
    monkeypatch.setattr(LitMultimodal, "trainer", Trainer())
    checkpoint: dict[str, Any] = {}
    saved, loaded = small_model(), small_model()
    saved.loss_centering, loaded.loss_centering = LossCentering(0.3, 0.6), LossCentering(0.3, 0.6)
    for step in range(3):
        saved.loss_centering(*losses(step))
    saved.on_save_checkpoint(checkpoint)
    loaded.on_load_checkpoint(checkpoint)
    for step in range(3, len(TEXT)):
        loaded.loss_centering(*losses(step))
    assert float(loaded.loss_centering.target) == pytest.approx(targets(0.3, 0.6)[-1], rel=1e-5)
    small_model().on_load_checkpoint(checkpoint)  # a run without it takes no notice
