"""Training runs of `LitRae`: two optimizers, averaged weights, checkpoints, measures."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor

from lit_mm.mistake import Mistake
from lit_mm.vision import Rae
from lit_mm.vision.metrics.quality import picture_quality
from lit_mm.vision.training.losses import ReconstructionTerms
from tests.vision.training.toys import Pictures, ToyFeatures, adversarial, batch_of, never, rae, shapes, trainer

TERMS = ReconstructionTerms(l1=1.0, mse=4.0, perceptual=0.5, gram=0.5, network=ToyFeatures)


class AfterStep(Callback):
    """Keeps what `look` sees after every step, and saves a checkpoint after step `save_at`."""

    def __init__(self, look: Any = lambda _: None, save_at: int = -1, file: Path = Path()) -> None:
        self.look, self.save_at, self.file = look, save_at, file
        self.seen: list[Any] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.seen.append(copy.deepcopy(self.look(pl_module)))
        if trainer.global_step == self.save_at:
            trainer.save_checkpoint(self.file)


def equal(one: Any, other: Any) -> bool:
    """Of nested containers, every tensor to the last bit."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(v, other[k]) for k, v in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(equal(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def everything(lit: Any) -> dict[str, Any]:
    """Weights, averages, and both optimizers with their learning rates."""
    optimizers = [optimizer.state_dict() for optimizer in lit.trainer.optimizers]
    return {"weights": lit.state_dict(), "optimizers": optimizers}


@pytest.mark.parametrize("with_adversary", [False, True])
def test_a_resumed_run_is_the_unbroken_one(tmp_path: Path, with_adversary: bool) -> None:
    def make() -> Any:
        term = adversarial(discriminator_start=1, adversarial_start=3) if with_adversary else None
        return rae(loss=TERMS, adversarial=term, max_shift=2, statistics_pictures=6, train_encoder=False)

    watch = AfterStep(everything, save_at=4, file=tmp_path / "four.ckpt")
    runner = trainer(tmp_path / "unbroken", 7, callbacks=[watch])
    runner.fit(make(), Pictures())
    assert runner.global_step == 7  # the discriminator's steps are not counted
    resumed = AfterStep(everything)
    lit = make()
    with torch.no_grad():
        for parameter in lit.trained.parameters():
            parameter.zero_()
    trainer(tmp_path / "resumed", 7, callbacks=[resumed]).fit(lit, Pictures(), ckpt_path=tmp_path / "four.ckpt")
    assert len(resumed.seen) == 3
    for one, other in zip(watch.seen[4:], resumed.seen, strict=True):
        assert equal(one, other)
    assert not equal(watch.seen[3]["weights"], watch.seen[4]["weights"])


def test_each_part_starts_at_its_step(tmp_path: Path) -> None:
    def look(lit: Any) -> Any:
        heads = lit.adversary.discriminator.heads
        return dict(heads.named_parameters()), dict(lit.trainer.callback_metrics)

    term = adversarial(discriminator_start=2, adversarial_start=4)
    lit = rae(adversarial=term)
    start = {k: v.detach().clone() for k, v in lit.adversary.discriminator.heads.named_parameters()}
    features = copy.deepcopy(lit.adversary.discriminator.network.state_dict())
    watch = AfterStep(look)
    trainer(tmp_path, 5, callbacks=[watch]).fit(lit, Pictures())
    moved = [not equal(weights, start) for weights, _ in watch.seen]
    assert moved == [False, False, True, True, True]
    assert ["train/adversarial_loss" in metrics for _, metrics in watch.seen] == [False] * 4 + [True]
    assert all(0 < metrics["train/adaptive_weight"] <= 1e4 for _, metrics in watch.seen[4:])
    assert equal(features, lit.adversary.discriminator.network.state_dict())
    rates = [optimizer.param_groups[0]["lr"] for optimizer in lit.trainer.optimizers]
    assert rates == [pytest.approx(3e-3 * 6 / 10), pytest.approx(2e-4 * 4 / 10)]  # each by its own steps, in warm-up


def test_averaged_weights_follow_the_recursion(tmp_path: Path) -> None:
    def look(lit: Any) -> Any:
        return lit.rae.decoder.state_dict(), lit.shown.state_dict()

    for term in (None, adversarial()):
        lit = rae(train_encoder=False, ema_decay=0.7, adversarial=term)
        average = {k: v.double().clone() for k, v in lit.rae.decoder.named_parameters()}
        watch = AfterStep(look)
        trainer(tmp_path, 5, callbacks=[watch]).fit(lit, Pictures())
        for weights, shown in watch.seen:
            for name, value in average.items():
                value.mul_(0.7).add_(0.3 * weights[name].double())
                torch.testing.assert_close(shown[name].double(), value, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(weights["decoder_pred.weight"], shown["decoder_pred.weight"], atol=1e-4)


@pytest.mark.parametrize("train_encoder", [False, True])
def test_what_is_saved_draws_as_validation_did(tmp_path: Path, train_encoder: bool) -> None:
    images = shapes(6, 32, seed=99)
    sources = [0, 0, 0, 1, 1, 1]
    data = Pictures(validation=batch_of(images, sources))
    lit = rae(ema_decay=0.9, train_encoder=train_encoder)
    runner = trainer(tmp_path, 6, limit_val_batches=1.0, val_check_interval=6, num_sanity_val_steps=0)
    runner.fit(lit, data)
    saved = Rae(str(tmp_path / "rae"))
    drawn = saved.decode(saved.encode(images)) / 255
    psnr, ssim = picture_quality(drawn, images / 255)
    trained, _ = picture_quality(lit.rae.decode(lit.rae.encode(images)).detach().clamp(0, 1), images / 255)
    for source, part in (("drawings", slice(0, 3)), ("game", slice(3, 6))):
        assert lit.validation_results[f"val/{source}/psnr"] == pytest.approx(float(psnr[part].mean()), abs=1e-3)
        assert lit.validation_results[f"val/{source}/ssim"] == pytest.approx(float(ssim[part].mean()), abs=1e-3)
    assert abs(float(trained.mean() - psnr.mean())) > 0.05  # the trained weights draw otherwise


def test_judges_measure_under_their_names(tmp_path: Path) -> None:
    images = shapes(6, 32)
    lit = rae(loss=TERMS, judge=lambda: ToyFeatures("other"))
    runner = trainer(tmp_path, 1, limit_val_batches=1.0)
    logged = runner.validate(lit, Pictures(validation=batch_of(images, [0, 0, 0, 0, 0, 1])), verbose=False)[0]
    measures = ("psnr", "ssim", "toy_distance", "other_distance")
    names = {f"val/{source}/{measure}" for source in ("drawings", "game") for measure in measures}
    assert set(logged) == names | {"val/drawings/frechet_other"}  # one picture has no covariance
    network = ToyFeatures()
    drawn = (lit.draw(images[5:]).detach() * 255).round().clamp(0, 255) / 255
    expected = network.distance(network(drawn), network(images[5:] / 255))
    assert logged["val/game/toy_distance"] == logged["val/game/other_distance"] == pytest.approx(float(expected))


def test_switched_off_parts_make_no_network_and_log_nothing(tmp_path: Path) -> None:
    loss = ReconstructionTerms(l1=1.0, network=never)
    lit = rae(loss=loss, adversarial=adversarial(never, weight=0.0), ema_decay=0.0)
    assert lit.automatic_optimization
    runner = trainer(tmp_path, 2)
    runner.fit(lit, Pictures())
    assert {name for name in runner.callback_metrics if name.startswith("train/")} == {"train/loss", "train/l1_loss"}
    assert all(name.startswith("rae.") for name in lit.state_dict())
    assert lit.shown is lit.trained


def test_frozen_networks_are_not_in_checkpoints(tmp_path: Path) -> None:
    lit = rae(loss=TERMS, adversarial=adversarial(), judge=ToyFeatures)
    runner = trainer(tmp_path, 1)
    runner.fit(lit, Pictures())
    runner.save_checkpoint(tmp_path / "one.ckpt")
    stored = set(torch.load(tmp_path / "one.ckpt", weights_only=True)["state_dict"])
    missing = set(lit.state_dict()) - stored
    assert {name.rsplit(".", 2)[0] for name in missing} == {
        "reconstruction_loss.network",
        "adversary.discriminator.network",
        "judge",
    }
    other = rae(loss=TERMS, adversarial=adversarial(), judge=ToyFeatures)
    trainer(tmp_path, 1, limit_val_batches=1.0).validate(
        other, Pictures(validation=batch_of(shapes(2, 32), [0, 0])), ckpt_path=tmp_path / "one.ckpt", verbose=False
    )
    assert equal(lit.state_dict(), other.state_dict())


def test_gradients_are_clipped_with_one_optimizer_and_with_two(tmp_path: Path) -> None:
    def norm(lit: Any) -> float:
        return math.sqrt(sum(float(p.grad.square().sum()) for p in lit.trained.parameters() if p.grad is not None))

    for term in (None, adversarial()):
        for limit in (0.01, None):
            watch = AfterStep(norm)
            lit = rae(gradient_clip=limit, adversarial=term)
            trainer(tmp_path, 2, callbacks=[watch]).fit(lit, Pictures())
            assert (watch.seen[-1] == pytest.approx(0.01, rel=1e-3)) is (limit is not None)


def test_settings_that_cannot_work_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=r"model\.ema_decay is 1\.0, but must be"):
        rae(ema_decay=1.0)
    with pytest.raises(Mistake, match=r"trainer\.precision is bf16-true, but .*: use 32-true or bf16-mixed$"):
        trainer(tmp_path, 1, precision="bf16-true").fit(rae(), Pictures())


def test_all_terms_learn_in_bfloat16_too(tmp_path: Path) -> None:
    images = shapes(8, 32)
    batch = batch_of(images, [0] * 8)

    class Same(Pictures):
        def batch(self, step: int) -> Any:
            return batch

    lit = rae(loss=TERMS, adversarial=adversarial(discriminator_start=5, adversarial_start=10))
    before = picture_quality(lit.draw(images).detach().clamp(0, 1), images / 255)[0].mean()
    trainer(tmp_path, 25, precision="bf16-mixed").fit(lit, Same())
    after = picture_quality(lit.draw(images).detach().clamp(0, 1), images / 255)[0].mean()
    assert float(after - before) > 2
