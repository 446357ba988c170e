"""Whoever wrote a part that is not trained: it stays as it is, in every mode and precision."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lit_mm.cli import main
from lit_mm.frozen import freeze
from lit_mm.precision import product_dtype
from lit_mm.vision import Dual
from lit_mm.vision.training.adversary import AdversarialTerm
from lit_mm.vision.training.lit_rae import LitRae
from lit_mm.vision.training.losses import ReconstructionTerms
from tests.helpers.careless import Careless, Float32Only, InferenceMode
from tests.helpers.program import ROOT, SMALL
from tests.vision.conftest import SMALL as SMALL_RAE
from tests.vision.training.toys import ToyFeatures

CARELESS = f"{Careless.__module__}.{Careless.__qualname__}"


@pytest.fixture
def pictures() -> Tensor:
    return torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_fit_leaves_any_tokenizer_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One within another, in half precision, with a validation between the steps."""
    monkeypatch.chdir(ROOT)
    vision = [f"--model.vision={Dual.__module__}.Dual", f"--model.vision.read={CARELESS}"]
    vision += [f"--model.vision.draw={CARELESS}"]
    steps = ["--trainer.max_steps=2", "--trainer.val_check_interval=1", "--trainer.precision=bf16-mixed"]
    steps += [f"--trainer.logger.save_dir={tmp_path}", "--data.loader.workers=0"]
    monkeypatch.setattr(Careless, "made", [])
    main(["fit", "--config=configs/tiny.yaml", *(a for a in SMALL if "vision" not in a), *vision, *steps])
    assert len(Careless.made) == 2
    for tokenizer in Careless.made:
        assert set(tokenizer.seen) == {(False, False, False)}
        assert torch.equal(tokenizer.norm.running_mean, torch.zeros(16)), "or it had learned from the pictures"
        assert all(p.grad is None and not p.requires_grad for p in tokenizer.parameters())
        assert tokenizer.compute_dtype == product_dtype("cpu")


def test_what_fails_under_autocast_computes_in_float32_and_says_so(pictures: Tensor) -> None:
    tokenizer = freeze(Float32Only())
    exact = tokenizer.encode(pictures)
    tokenizer.compute_in(torch.bfloat16)
    with pytest.warns(UserWarning, match="Float32Only computes in float32 .*fails in bfloat16"):
        assert torch.equal(tokenizer.encode(pictures), exact)
    assert torch.equal(tokenizer.encode(pictures), exact)


def test_latents_are_float32_and_can_be_trained_on_whatever_a_tokenizer_returns(pictures: Tensor) -> None:
    layer = nn.Linear(32, 1)
    for tokenizer in (Careless(), InferenceMode()):
        latents = freeze(tokenizer).encode(pictures)
        assert latents.dtype == torch.float32
        layer(latents).sum().backward()
        assert tokenizer.decode(latents.bfloat16()).shape == pictures.shape


def test_frozen_parts_of_a_trained_module_ignore_its_mode() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    holder = nn.ModuleList([freeze(network), nn.Dropout()])
    copied = copy.deepcopy(holder)
    network[1].training = True
    for module in (holder, copied):
        module.train()
        assert [part.training for part in module.modules()] == [True, False, False, False, True]
    assert network[1] is not copied[0][1]


def test_a_training_of_a_decoder_freezes_all_else() -> None:
    """Also feature networks whose author did not; the average, and an encoder with dropout."""
    loss = ReconstructionTerms(l1=1.0, perceptual=1.0, network=ToyFeatures)
    lit = LitRae(
        SMALL_RAE, loss=loss, adversarial=AdversarialTerm(1.0, ToyFeatures), judge=lambda: ToyFeatures("judge")
    )
    lit.train()
    assert lit.adversary is not None
    lit.adversary.decoder_loss(torch.rand(2, 3, 32, 32), torch.Generator())
    trained = {id(p) for p in [*lit.rae.decoder.parameters(), *lit.adversary.discriminator.heads.parameters()]}
    assert {id(p) for p in lit.parameters() if p.requires_grad} == trained
    frozen = [
        lit.rae.encoder,
        lit.average,
        lit.judge,
        lit.reconstruction_loss.network,
        lit.adversary.discriminator.network,
    ]
    assert not any(part.training for module in frozen if module is not None for part in module.modules())
    assert all(part.training for part in [*lit.rae.decoder.modules(), *lit.adversary.discriminator.heads.modules()])
