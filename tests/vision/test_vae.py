"""`Vae` against diffusers' own `AutoencoderKL`, on folders in the published format with small sizes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

from lit_mm.mistake import MissingFile, Mistake
from lit_mm.vision import Vae
from tests.vision.conftest import randomised

# Two halvings of the side, and what sets the two families apart.
STABLE_DIFFUSION = {"latent_channels": 4, "scaling_factor": 0.18215}
FLUX = {
    "latent_channels": 16,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
PER_CHANNEL = {
    "latent_channels": 4,
    "scaling_factor": 0.5,
    "latents_mean": [-1.6, 1.9, -1.4, 2.5],
    "latents_std": [8.5, 5.9, 6.5, 5.2],
}
WEIGHTS = "diffusion_pytorch_model.safetensors"


def save(folder: Path, **settings: Any) -> Path:
    sizes = {"block_out_channels": (8, 16, 16), "layers_per_block": 1, "norm_num_groups": 4}
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    vae = AutoencoderKL(**sizes, **blocks, **settings)
    randomised(vae)
    vae.save_pretrained(folder)
    return folder


def edited(folder: Path, to: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    """A copy whose tensors were changed."""
    shutil.copytree(folder, to)
    tensors = load_file(folder / WEIGHTS)
    edit(tensors)
    save_file(tensors, to / WEIGHTS)
    return to


def configured(folder: Path, to: Path, **settings: Any) -> Path:
    """A copy whose config was changed."""
    shutil.copytree(folder, to)
    config = json.loads((folder / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(config | settings))
    return to


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "small", **STABLE_DIFFUSION)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def normalised(reference: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """The posterior's mean, as the pipelines of diffusers normalise it."""
    config: Any = reference.config
    latents = reference.encode(images.float() / 127.5 - 1).latent_dist.mean
    if config.latents_mean is not None:
        mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (config.latents_mean, config.latents_std))
        return (latents - mean) * config.scaling_factor / std
    return (latents - (config.shift_factor or 0.0)) * config.scaling_factor


@torch.no_grad()
@pytest.mark.parametrize("patch", [1, 2, 4])
@pytest.mark.parametrize("settings", [STABLE_DIFFUSION, FLUX, PER_CHANNEL], ids=["sd", "flux", "per channel"])
def test_tokens_are_patches_of_diffusers_latents_in_raster_order(
    settings: dict[str, Any], patch: int, tmp_path: Path, images: torch.Tensor
) -> None:
    save(tmp_path / "small", **settings)
    reference = AutoencoderKL.from_pretrained(tmp_path / "small").eval()
    latents = normalised(reference, images)
    vae = Vae(str(tmp_path / "small"), image_size=32, patch_size=patch)
    tokens = vae.encode(images)
    grid = 8 // patch
    channels = settings["latent_channels"] * patch**2
    assert tokens.shape == (4, vae.num_tokens, vae.channels) == (4, grid**2, channels)
    assert tokens.dtype == torch.float32
    for token in range(grid**2):
        top, left = token // grid * patch, token % grid * patch
        there = latents[:, :, top : top + patch, left : left + patch].reshape(4, -1)
        torch.testing.assert_close(tokens[:, token], there, rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("settings", [STABLE_DIFFUSION, FLUX, PER_CHANNEL], ids=["sd", "flux", "per channel"])
def test_pictures_are_those_that_diffusers_decodes(
    settings: dict[str, Any], tmp_path: Path, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "small", **settings)
    reference = AutoencoderKL.from_pretrained(tmp_path / "small").eval()
    latents = reference.encode(images.float() / 127.5 - 1).latent_dist.mean
    wanted = ((reference.decode(latents).sample + 1) * 127.5).clamp(0, 255)
    assert wanted.std() > 5
    vae = Vae(str(tmp_path / "small"), image_size=32, patch_size=2)
    decode, given = vae.vae.decode, []
    monkeypatch.setattr(vae.vae, "decode", lambda z: given.append(z) or decode(z))
    drawn = vae.decode(vae.encode(images))
    # What reaches the decoder is what left the encoder: patching and normalisation are undone.
    torch.testing.assert_close(torch.cat(given), latents, rtol=1e-5, atol=1e-5)
    assert drawn.dtype == torch.uint8
    assert ((drawn - wanted).abs() <= 0.5 + 1e-3).all()


def test_sizes_of_the_published_autoencoders(tmp_path: Path) -> None:
    """256x256 pictures: 32x32 positions of 4 (SD) or 16 (FLUX) channels are 256 tokens of 16 or 64."""
    for settings, channels in ((STABLE_DIFFUSION, 16), (FLUX, 64)):
        blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
        vae = AutoencoderKL(block_out_channels=(8,) * 4, norm_num_groups=4, **blocks, **settings)
        vae.save_pretrained(tmp_path / str(channels) / "vae")
        ours = Vae(str(tmp_path / str(channels)), subfolder="vae", image_size=256, patch_size=2)
        assert (ours.num_tokens, ours.channels) == (256, channels)


def test_the_names_that_older_files_give_to_attention_are_understood(
    folder: Path, tmp_path: Path, images: torch.Tensor
) -> None:
    """`stabilityai/sd-vae-ft-ema` was saved with them, its projections as 1x1 convolutions."""
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def older(tensors: dict[str, torch.Tensor]) -> None:
        for key in [key for key in tensors if "attentions" in key]:
            for new, old in names.items():
                if f".{new}." in key:
                    tensors[key.replace(new, old)] = tensors.pop(key)

    old = edited(folder, tmp_path / "old", older)
    assert any("proj_attn" in key for key in load_file(old / WEIGHTS))
    torch.testing.assert_close(
        Vae(str(old), image_size=32).encode(images), Vae(str(folder), image_size=32).encode(images)
    )


def test_any_number_of_pictures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than go through the network together, and none."""
    monkeypatch.setattr("lit_mm.vision.vae._AT_ONCE", 2)
    vae = Vae(str(folder), image_size=16)
    images = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    tokens = vae.encode(images)
    torch.testing.assert_close(tokens, torch.cat([vae.encode(image[None]) for image in images]), rtol=1e-5, atol=1e-5)
    drawn = torch.cat([vae.decode(token[None]) for token in tokens])
    assert ((vae.decode(tokens).int() - drawn.int()).abs() <= 1).all()
    assert vae.encode(images[:0]).shape == (0, 4, 16)
    assert vae.decode(tokens[:0]).shape == (0, 3, 16, 16)


def test_it_is_frozen(folder: Path) -> None:
    vae = Vae(str(folder), image_size=32).train()
    assert not any(module.training for module in vae.modules())
    assert not any(parameter.requires_grad for parameter in vae.parameters())


def test_normalisation_stays_float32_when_the_weights_are_cast(tmp_path: Path, images: torch.Tensor) -> None:
    save(tmp_path / "small", **FLUX)
    vae = Vae(str(tmp_path / "small"), image_size=32)
    exact = vae.encode(images)
    cast = vae.to(torch.bfloat16).encode(images)
    assert cast.dtype == torch.float32
    assert vae.statistics.mean.unique().item() == pytest.approx(0.1159, rel=1e-6)
    assert vae.statistics.std.unique().item() == pytest.approx(1 / 0.3611, rel=1e-6)
    assert ((cast - exact).norm() / exact.norm()).item() < 0.1


def test_fingerprint_names_what_tokens_depend_on_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    name = Vae(str(folder), image_size=32).fingerprint()

    def plus_one(key: str) -> Callable[[dict[str, torch.Tensor]], Any]:
        return lambda tensors: tensors[key].add_(1)

    same = [
        shutil.copytree(folder, tmp_path / "moved"),
        edited(folder, tmp_path / "d", plus_one("decoder.conv_in.bias")),
    ]
    other = [
        edited(folder, tmp_path / "e", plus_one("encoder.conv_in.bias")),
        edited(folder, tmp_path / "q", plus_one("quant_conv.bias")),
        configured(folder, tmp_path / "scale", scaling_factor=0.2),
        configured(folder, tmp_path / "shift", shift_factor=0.2),
    ]
    assert {Vae(str(path), image_size=32).fingerprint() for path in same} == {name}
    names = [Vae(str(path), image_size=32).fingerprint() for path in other]
    names += [Vae(str(folder), image_size=size, patch_size=p).fingerprint() for size, p in ((16, 2), (32, 1))]
    assert len({name, *names}) == 7


@pytest.mark.parametrize("size", [0, 30, 36])
def test_pictures_that_do_not_fit_the_tokens_are_refused(size: int, folder: Path) -> None:
    with pytest.raises(
        ValueError, match=rf"image_size is {size}.*multiple of 8.*4 pixels to a position.*patch_size is 2"
    ):
        Vae(str(folder), image_size=size, patch_size=2)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("encoder.conv_in.weight", None, "lacks encoder.conv_in.weight"),
        ("decoder.conv_out.bias", None, "lacks decoder.conv_out.bias"),
        ("surplus", torch.zeros(1), "unexpected surplus"),
        ("encoder.conv_in.weight", torch.zeros(8, 4, 3, 3), "size mismatch for encoder.conv_in.weight"),
    ],
)
def test_weights_that_are_not_whole_are_refused_not_left_random(
    key: str, value: torch.Tensor | None, words: str, folder: Path, tmp_path: Path
) -> None:
    broken = edited(folder, tmp_path / "broken", lambda t: t.pop(key) if value is None else t.update({key: value}))
    with pytest.raises(Mistake, match=rf"vision.pretrained '.*broken'.*{words}") as complaint:
        Vae(str(broken), image_size=32)
    assert "\n" not in str(complaint.value)


def test_autoencoders_of_other_than_rgb_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "grey", in_channels=1, out_channels=1)
    with pytest.raises(Mistake, match="1 colours"):
        Vae(str(tmp_path / "grey"), image_size=32)


@pytest.mark.parametrize("missing", ["config.json", WEIGHTS])
def test_a_folder_that_lacks_a_file_is_named(missing: str, folder: Path) -> None:
    (folder / missing).unlink()
    with pytest.raises(MissingFile, match=rf"'{folder}', which should hold config.json and {WEIGHTS}"):
        Vae(str(folder), image_size=32)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("subfolder", "download"),
    [
        (None, "`hf download owner/name --local-dir weights/name`"),
        ("vae", '`hf download owner/name --include "vae/\\*" --local-dir weights/name`'),
    ],
)
def test_without_a_network_it_says_what_to_download_and_where_to_put_it(subfolder: str | None, download: str) -> None:
    with pytest.raises(MissingFile, match=rf"'owner/name'.*{download} and set vision.pretrained to weights/name"):
        Vae("owner/name", subfolder=subfolder)
