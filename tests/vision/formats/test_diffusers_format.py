"""Folders of diffusers' AutoencoderRAE, read and written, against diffusers itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lit_mm.mistake import Mistake
from lit_mm.vision import Rae
from lit_mm.vision.formats.folder import load_folder, save_folder
from lit_mm.vision.rae_network import RaeConfig, RaeNetwork, draw
from tests.vision.conftest import randomised
from tests.vision.formats import autoencoder_rae
from tests.vision.formats.autoencoder_rae import DECODER, WEIGHTS


def pictures(size: int) -> Tensor:
    return torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(7))


def statistics(*shape: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {
        "latents_mean": torch.randn(shape, generator=generator),
        "latents_std": torch.rand(shape, generator=generator) + 0.3,
    }


CASES: dict[str, tuple[str, int, int, dict[str, Any]]] = {
    "siglip2, as many patches as its table": ("siglip2", 64, 256, {}),
    "siglip2, statistics, scaled": ("siglip2", 16, 48, {**statistics(128, 3, 3), "scaling_factor": 0.25}),
    "siglip2, pixels of its own": ("siglip2", 16, 32, {"encoder_norm_mean": [0.5] * 3, "encoder_norm_std": [0.4] * 3}),
    "dinov2, as many patches as its table": ("dinov2", 74, 518, {}),
    "dinov2, statistics per token": ("dinov2", 14, 42, {**statistics(9, 128), "reshape_to_2d": False}),
    "dinov2, statistics per channel": ("dinov2", 14, 42, statistics(128, 1, 1)),
    "mae, as many patches as its table": ("mae", 56, 224, {}),
    "mae, fewer patches, statistics": ("mae", 16, 48, statistics(128, 3, 3)),
    "mae, more patches": ("mae", 56, 280, {"reshape_to_2d": False}),
}


@pytest.mark.parametrize("case", CASES)
def test_reads_what_diffusers_saved(case: str, tmp_path: Path) -> None:
    encoder_type, patch, size, arguments = CASES[case]
    theirs = autoencoder_rae.build(encoder_type, patch, size, **arguments)
    theirs.save_pretrained(tmp_path)
    rae = Rae(str(tmp_path))
    images = pictures(rae.image_size)
    latents = autoencoder_rae.encode(theirs, images)
    torch.testing.assert_close(rae.encode(images), latents, atol=1e-5, rtol=1e-5)
    expected = autoencoder_rae.decode(theirs, latents)
    assert expected.std() > 0.05
    with torch.no_grad():
        drawn = draw(rae.decoder, rae.encoder, rae.statistics.inverse(latents))
    torch.testing.assert_close(drawn, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rae.decode(latents).float(), expected.clamp(0, 1) * 255, atol=0.51, rtol=0)


@pytest.mark.parametrize("encoder_type", ["siglip2", "dinov2", "mae"])
def test_reads_the_names_of_published_folders(encoder_type: str, tmp_path: Path) -> None:
    """Published folders were saved with transformers 4, whose names transformers 5 still writes but does not use."""
    theirs = autoencoder_rae.build(encoder_type, 14, 42)
    theirs.save_pretrained(tmp_path)
    theirs.encoder.save_pretrained(tmp_path / "encoder")
    published = load_file(tmp_path / "encoder/model.safetensors")
    if encoder_type == "siglip2":
        published = {f"vision_model.{k.removeprefix('vision_model.')}": v for k, v in published.items()}
    else:
        assert "encoder.layer.1.attention.attention.query.weight" in published
    tensors = {k: v.clone() for k, v in load_file(tmp_path / WEIGHTS).items() if not k.startswith("encoder.")}
    save_file(tensors | {f"encoder.{k}": v for k, v in published.items()}, tmp_path / WEIGHTS)
    rae = Rae(str(tmp_path))
    images = pictures(rae.image_size)
    torch.testing.assert_close(rae.encode(images), autoencoder_rae.encode(theirs, images), atol=1e-5, rtol=1e-5)


# ---- broken folders


def rewrite(folder: Path, tensors: dict[str, Tensor | None], settings: dict[str, Any]) -> None:
    """Change tensors and settings of a folder; None takes one away."""
    merged = load_file(folder / WEIGHTS) | tensors
    save_file({k: v.clone() for k, v in merged.items() if v is not None}, folder / WEIGHTS)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | settings))


NAN = torch.full((48,), torch.nan)
BROKEN: list[tuple[dict[str, Tensor | None], dict[str, Any], str]] = [
    ({"_latents_mean": None}, {}, "lacks _latents_mean"),
    ({"_latents_std": None}, {}, "lacks _latents_std"),
    ({}, {"latents_mean": None}, r"holds '_latents_mean' of shape \(128, 3, 3\); this encoder needs \(1,\)"),
    ({"_latents_mean": torch.zeros(1)}, {"latents_mean": None}, "lacks latents_mean; mean and deviation"),
    ({"_latents_std": torch.ones(128, 4, 4)}, {}, r"holds '_latents_std' of shape \(128, 4, 4\)"),
    (
        {"_latents_std": torch.ones(128, 3, 3, dtype=torch.bfloat16)},
        {},
        "holds '_latents_std' in bfloat16; statistics of latents must be float32",
    ),
    ({"_latents_std": -torch.ones(128, 3, 3)}, {}, "holds '_latents_std' with values below 0"),
    ({"_latents_mean": torch.full((128, 3, 3), torch.inf)}, {}, "'_latents_mean' with values that are not finite"),
    ({"encoder_std": None}, {}, "lacks encoder_std"),
    ({"encoder_mean": torch.zeros(1, 3, 1, 1)}, {}, r"'encoder_mean' of \[0.0, 0.0, 0.0\], but config.json says"),
    ({"decoder.decoder_norm.bias": NAN}, {}, "'decoder.decoder_norm.bias' with values that are not finite"),
    ({"encoder.layernorm_more": torch.ones(1)}, {}, "unexpected encoder.layernorm_more"),
    ({"decoder.decoder_norm.bias": None}, {}, "lacks decoder.decoder_norm.bias"),
    ({"decoder.decoder_norm.bias": torch.ones(2)}, {}, r"'decoder.decoder_norm.bias' of shape \(2,\)"),
    ({"encoder.embeddings.cls_token": None}, {}, "lacks encoder.cls_token"),
    ({}, {"encoder_type": "clip"}, "says encoder_type is 'clip'; known are siglip2, dinov2, mae"),
    ({}, {"colour": 1}, "has the unexpected colour"),
]


@pytest.mark.parametrize(("tensors", "settings", "sentence"), BROKEN, ids=lambda value: str(value)[:60])
def test_broken_folders_are_refused(
    tensors: dict[str, Tensor | None], settings: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    autoencoder_rae.build("mae", 16, 48, **statistics(128, 3, 3)).save_pretrained(tmp_path)
    Rae(str(tmp_path))
    rewrite(tmp_path, tensors, settings)
    with pytest.raises(Mistake, match=sentence) as error:
        Rae(str(tmp_path))
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


# ---- written folders

SIGLIP = RaeConfig(
    encoder="vit_base_patch16_siglip_256",
    image_size=64,
    encoder_args={"embed_dim": 128, "depth": 2, "num_heads": 2, "act_layer": "gelu_tanh"},
    **DECODER,
)
SHAPES: dict[str, tuple[str, RaeConfig]] = {
    "siglip of 4x4 patches, the shipped one's": ("siglip2", SIGLIP),
    "siglip of 5x5 patches": ("siglip2", replace(SIGLIP, image_size=80)),
    "siglip that sees less than is drawn": ("siglip2", replace(SIGLIP, image_size=64, encoder_input_size=32)),
    "dinov2 with narrow mlps": (
        "dinov2",
        RaeConfig(
            encoder="vit_small_patch14_reg4_dinov2",
            image_size=64,
            encoder_args={"patch_size": 16, "embed_dim": 128, "depth": 2, "num_heads": 2, "mlp_ratio": 2},
            **DECODER,
        ),
    ),
    "mae with the eps of transformers": (
        "mae",
        RaeConfig(
            encoder="vit_base_patch16_224.mae",
            image_size=64,
            encoder_args={"embed_dim": 128, "depth": 2, "num_heads": 2},
            encoder_norm_eps=1e-12,
            **DECODER,
        ),
    ),
}


def trained(config: RaeConfig) -> RaeNetwork:
    """A network with random weights and statistics."""
    network = RaeNetwork(config).eval()
    randomised(network, seed=11)
    shape = (network.encoder.num_tokens, network.encoder.channels)
    network.statistics.set(torch.randn(shape) * 0.5, torch.rand(shape) + 0.2)
    return network


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_diffusers_loads_what_is_saved(shape: str, dtype: torch.dtype, tmp_path: Path) -> None:
    encoder_type, config = SHAPES[shape]
    network = trained(config)
    save_folder(network, tmp_path, dtype)
    theirs, rae = autoencoder_rae.load(tmp_path, encoder_type), Rae(str(tmp_path))
    images = pictures(64 if config.image_size == 64 else 80)
    latents = rae.encode(images)
    torch.testing.assert_close(autoencoder_rae.encode(theirs, images), latents, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        drawn = draw(rae.decoder, rae.encoder, rae.statistics.inverse(latents))
        original = network.encode(images)
    torch.testing.assert_close(autoencoder_rae.decode(theirs, latents), drawn, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(latents, original, atol=1e-6 if dtype == torch.float32 else 0.1, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_both_forms_hold_the_same_to_the_last_bit(shape: str, dtype: torch.dtype, tmp_path: Path) -> None:
    network = trained(SHAPES[shape][1])
    for_both = save_folder(network, tmp_path / "both", dtype)
    compact = save_folder(network, tmp_path / "compact", dtype, compact=True)
    again = save_folder(load_folder(compact), tmp_path / "again", dtype)
    assert (for_both / WEIGHTS).is_file()
    assert sorted(file.name for file in compact.iterdir()) == ["config.json", "model.safetensors"]
    names = {Rae(str(folder)).fingerprint() for folder in (for_both, compact, again)}
    assert len(names) == 1
    if dtype == torch.float32:
        for name, tensor in load_folder(for_both).state_dict().items():
            assert torch.equal(tensor, network.state_dict()[name]), name
    statistics = load_folder(for_both).statistics
    torch.testing.assert_close(statistics.std, network.statistics.std, atol=1e-7, rtol=0)


def test_without_statistics_diffusers_divides_by_one(tmp_path: Path) -> None:
    network = RaeNetwork(SIGLIP).eval()
    randomised(network)
    save_folder(network, tmp_path)
    theirs = autoencoder_rae.load(tmp_path, "siglip2")
    images = pictures(64)
    with torch.no_grad():
        latents = network.encode(images)
    torch.testing.assert_close(autoencoder_rae.encode(theirs, images), latents, atol=5e-6, rtol=0)


ARGS = SIGLIP.encoder_args
OBSTACLES = [
    (replace(SIGLIP, encoder_args={**ARGS, "num_heads": 4}), "heads have 64 channels, not 32"),
    (replace(SIGLIP, encoder_args={**ARGS, "act_layer": "gelu"}), "activation is gelu_tanh, not gelu"),
    (replace(SIGLIP, encoder_args={**ARGS, "mlp_ratio": 32}), "MLPs have 3072 units, not 4096"),
    (replace(SIGLIP, encoder_args={**ARGS, "qk_norm": True}), "no encoder with the layers of 'vit_base_patch16_siglip"),
    (replace(SIGLIP, encoder_layers=[0, 1]), r"from the last layer only, not from \[0, 1\]"),
    (replace(SIGLIP, encoder_norm_eps=1e-5), "norms have eps 1e-06, not 1e-05"),
    (replace(SIGLIP, image_size=320), "no position table of 16 x 16 patches is resized to this one of 20 x 20"),
]


@pytest.mark.parametrize(("config", "reason"), OBSTACLES, ids=[reason for _, reason in OBSTACLES])
def test_what_diffusers_cannot_hold_is_saved_for_us_and_said(config: RaeConfig, reason: str, tmp_path: Path) -> None:
    network = RaeNetwork(config).eval()
    randomised(network)
    with pytest.warns(UserWarning, match=f"is for vision.Rae alone, not for diffusers' AutoencoderRAE: .*{reason}"):
        save_folder(network, tmp_path)
    images = pictures(config.image_size)
    with torch.no_grad():
        assert torch.equal(Rae(str(tmp_path)).encode(images), network.encode(images))


def test_a_folder_written_again_keeps_nothing_of_before(tmp_path: Path) -> None:
    network = trained(SIGLIP)
    save_folder(network, tmp_path)
    save_folder(network, tmp_path, compact=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    save_folder(network, tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


def test_files_of_two_runs_are_not_mixed(tmp_path: Path) -> None:
    """As when diffusers trains an autoencoder further and saves it over the folder that it is from."""
    save_folder(trained(SIGLIP), tmp_path / "first")
    other = trained(SIGLIP)
    with torch.no_grad():
        other.encoder.vit.pos_embed.mul_(1.1)
    save_folder(other, tmp_path / "second")
    (tmp_path / "first" / WEIGHTS).replace(tmp_path / "second" / WEIGHTS)
    with pytest.raises(Mistake, match=r"rae\.safetensors' holds another 'pos_embed' than 'diffusion_pytorch_model"):
        Rae(str(tmp_path / "second"))


@pytest.mark.parametrize("reshape", [True, False])
def test_statistics_and_decoder_alone(reshape: bool, tmp_path: Path) -> None:
    """Of a folder of diffusers, for another encoder that gives tokens of the same size."""
    stored = statistics(128, 4, 4) if reshape else statistics(16, 128)
    pixels = {"encoder_norm_mean": [0.5] * 3, "encoder_norm_std": [0.5] * 3}
    theirs = autoencoder_rae.build("mae", 8, 32, reshape_to_2d=reshape, **pixels, **stored)
    theirs.save_pretrained(tmp_path / "folder")
    arguments = {"encoder": SIGLIP.encoder, "image_size": 32, "pretrained": False}
    arguments["encoder_args"] = {**ARGS, "patch_size": 8}
    folder = str(tmp_path / "folder")
    rae = Rae(**arguments, statistics=folder, decoder=folder)
    images = pictures(32)
    with torch.no_grad():
        tokens = rae.encoder(images / 255)
        tokens = tokens.transpose(1, 2).unflatten(2, (4, 4)) if reshape else tokens
        expected = theirs._normalize_latents(tokens)
    expected = expected.flatten(2).transpose(1, 2) if reshape else expected
    latents = rae.encode(images)
    torch.testing.assert_close(latents, expected, atol=1e-5, rtol=1e-5)
    drawn = autoencoder_rae.decode(theirs, latents)
    torch.testing.assert_close(rae.decode(latents).float(), drawn.clamp(0, 1) * 255, atol=0.51, rtol=0)
    with pytest.raises(
        ValueError, match=r"draws pixels of mean \[0.5, 0.5, 0.5\], but those of vision.encoder have \[0.485"
    ):
        Rae(
            **{**arguments, "encoder": "vit_base_patch16_224.mae", "encoder_args": {**ARGS, "patch_size": 8}},
            decoder=folder,
        )
    autoencoder_rae.build("mae", 8, 32).save_pretrained(tmp_path / "without")
    with pytest.raises(Mistake, match="holds no statistics of latents: their mean is 0"):
        Rae(**arguments, statistics=str(tmp_path / "without"))


def test_weights_that_overflow_are_not_saved(tmp_path: Path) -> None:
    network = trained(SIGLIP)
    with torch.no_grad():
        network.decoder.decoder_pred.bias[0] = 1e6
    save_folder(network, tmp_path / "float32")
    with pytest.raises(
        ValueError, match=r"'decoder\.decoder_pred\.bias' holds values that are not finite in torch.float1"
    ):
        save_folder(network, tmp_path / "float16", torch.float16)
