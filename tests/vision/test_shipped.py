"""The autoencoder that comes with the package, on pictures it was not trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor
from torchvision.io import ImageReadMode, read_image

from lit_mm.vision import Rae, Vae
from lit_mm.vision.formats.folder import find_folder
from tests.vision.training.toys import shapes

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rae() -> Rae:
    return Rae("rae_tiny")


def test_sizes(rae: Rae) -> None:
    assert (rae.image_size, rae.num_tokens, rae.channels) == (64, 16, 256)
    assert sum(file.stat().st_size for file in find_folder("rae_tiny").iterdir()) < 24e6


def mean_psnr(drawn: Tensor, images: Tensor) -> float:
    """In dB, the mean over pictures uint8."""
    error = ((drawn.double() - images) / 255).square().mean(dim=(1, 2, 3))
    return float(-10 * error.log10().mean())


def held_out(source: str, count: int = 64) -> Tensor:
    """Pictures the autoencoders were not trained on, evenly spread."""
    files = sorted((ROOT / "data/tiny" / source / "val").glob("*.png"))
    return torch.stack([read_image(str(f), ImageReadMode.RGB) for f in files[:: len(files) // count][:count]])


@pytest.mark.parametrize(("source", "decibels"), [("image_text", 18), ("game_captions", 25)])
def test_draws_what_it_never_saw(rae: Rae, source: str, decibels: float) -> None:
    images = held_out(source)
    drawn = rae.decode(rae.encode(images))
    flat = images.float().mean(dim=(2, 3), keepdim=True)
    assert mean_psnr(drawn, images) > decibels
    assert mean_psnr(drawn, images) > mean_psnr(flat, images) + 6


def test_neighbouring_latents_draw_nearly_the_same(rae: Rae) -> None:
    images = shapes(16, 64, seed=5)
    latents = rae.encode(images)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    error = (rae.decode(latents + 0.2 * noise).float() - rae.decode(latents)).div(255).square().mean()
    assert -10 * error.log10() > 30


def test_the_small_kl_autoencoder_draws_drawings_it_never_saw() -> None:
    vae = Vae("vae_tiny", image_size=64)
    assert (vae.num_tokens, vae.channels) == (16, 64)
    images = held_out("image_text", 32)
    latents = vae.encode(images)
    assert 0.8 < float(latents.std()) < 1.25
    assert mean_psnr(vae.decode(latents), images) > 18


def test_the_yaml_finds_it_from_any_folder(rae: Rae, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = yaml.safe_load((ROOT / "configs/vision/rae_tiny.yaml").read_text())
    assert config["class_path"] == "lit_mm.vision.Rae"
    monkeypatch.chdir(tmp_path)
    assert Rae(**config["init_args"]).fingerprint() == rae.fingerprint()
