from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from lit_mm.mistake import Mistake
from lit_mm.training.schedule import WarmupCosine
from lit_mm.vision import Vae
from lit_mm.vision.metrics.quality import picture_quality
from lit_mm.vision.training.lit_vae import LitVae, VaeConfig
from tests.vision.training.toys import Pictures, ToyFeatures, adversarial, batch_of, shapes, trainer

SMALL_VAE = VaeConfig(image_size=32, block_out_channels=[8, 16, 16], latent_channels=4, norm_num_groups=4)


def vae(**arguments: object) -> LitVae:
    torch.manual_seed(0)
    defaults = {
        "vae": SMALL_VAE,
        "optimizer": lambda p: torch.optim.AdamW(p, lr=5e-3),
        "schedule": WarmupCosine(warmup_steps=5),
        "ema_decay": 0.8,
        "statistics_pictures": 12,
    }
    return LitVae(**{**defaults, **arguments})  # type: ignore[arg-type]


def test_the_folder_draws_as_validation_did_and_has_unit_variance(tmp_path: Path) -> None:
    images = shapes(6, 32, seed=99)
    lit = vae()
    assert (lit.image_size, lit.tokens_per_frame) == (32, 16)
    before, _ = picture_quality(lit.draw(images).detach().clamp(0, 1), images / 255)
    data = Pictures(validation=batch_of(images, [0] * 6))
    trainer(tmp_path, 40, limit_val_batches=1.0, val_check_interval=40, num_sanity_val_steps=0).fit(lit, data)
    tokenizer = Vae(str(tmp_path / "vae"), image_size=32, patch_size=2)
    assert (tokenizer.num_tokens, tokenizer.channels) == (16, 16)
    after, _ = picture_quality(tokenizer.decode(tokenizer.encode(images)) / 255, images / 255)
    assert float((after - before).mean()) > 1
    assert lit.validation_results["val/drawings/psnr"] == pytest.approx(float(after.mean()), abs=5e-3)
    measured = torch.cat([data.batch(40 + step).frames for step in range(3)])  # the next ones of the stream
    latents = tokenizer.encode(measured)
    assert float(latents.mean()) == pytest.approx(0, abs=1e-4)
    assert float(latents.std(correction=0)) == pytest.approx(1, abs=1e-4)
    original = AutoencoderKL.from_pretrained(tmp_path / "vae")
    raw = original.encode(measured / 127.5 - 1).latent_dist.mode().double()
    assert original.config.shift_factor == pytest.approx(float(raw.mean()), abs=1e-5)
    assert original.config.scaling_factor == pytest.approx(float(1 / raw.std(correction=0)), rel=1e-5)


def test_a_folder_in_half_precision_has_half_the_size_and_is_computed_with_in_float32(tmp_path: Path) -> None:
    for stored_as in ("float32", "float16"):
        vae(stored_as=stored_as).save(tmp_path / stored_as)
    full, half = (sum(p.stat().st_size for p in (tmp_path / f).glob("*.safetensors")) for f in ("float32", "float16"))
    assert half < 0.7 * full  # the names weigh in so small a network
    tokenizers = [Vae(str(tmp_path / folder), image_size=32) for folder in ("float32", "float16")]
    for ours, its in zip(*(tokenizer.vae.parameters() for tokenizer in tokenizers), strict=True):
        assert its.dtype is torch.float32
        assert torch.equal(ours.half().float(), its)


def test_the_kl_term_is_that_of_its_definition_and_can_be_switched_off() -> None:
    images = shapes(3, 32)
    lit = vae(kl_weight=0.5)
    _, losses = lit.draw_for_training(images, torch.Generator().manual_seed(0))
    posterior = lit.vae.encode(images / 127.5 - 1).latent_dist
    standard = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
    own = torch.distributions.Normal(posterior.mean, posterior.std)
    expected = torch.distributions.kl_divergence(own, standard).mean()
    assert float(losses["kl"].detach()) == pytest.approx(0.5 * float(expected.detach()), rel=1e-4)
    assert vae(kl_weight=0.0).draw_for_training(images, torch.Generator().manual_seed(0))[1] == {}


def test_an_adversary_works_here_too(tmp_path: Path) -> None:
    lit = vae(adversarial=adversarial(ToyFeatures))
    runner = trainer(tmp_path, 3)
    runner.fit(lit, Pictures())
    assert runner.global_step == 3
    names = ("kl", "l1", "adversarial", "discriminator")
    assert {f"train/{name}_loss" for name in names} <= set(runner.callback_metrics)


def test_sizes_that_leave_no_whole_tokens_are_refused() -> None:
    with pytest.raises(Mistake, match=r"model\.vae\.image_size is 36, but a token has 8 pixels on each side"):
        LitVae(VaeConfig(image_size=36, block_out_channels=[8, 8, 8], norm_num_groups=4))
