from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from lit_mm.mistake import MissingFile, Mistake
from lit_mm.vision import Rae
from lit_mm.vision.formats.folder import load_folder, save_folder
from lit_mm.vision.rae_network import RaeNetwork
from tests.vision.conftest import SMALL, randomised


def test_latents_are_standardised_tokens(folder: Path, network: RaeNetwork, images: Tensor) -> None:
    rae = Rae(str(folder))
    latents = rae.encode(images)
    assert (rae.image_size, rae.num_tokens, rae.channels) == (32, 16, 64)
    assert latents.shape == (4, 16, 64)
    assert latents.dtype == torch.float32
    torch.testing.assert_close(latents.mean(-1), torch.zeros(4, 16), atol=1e-5, rtol=0)
    torch.testing.assert_close(latents.var(-1, unbiased=False), torch.ones(4, 16), atol=1e-3, rtol=0)
    drawn = rae.decode(latents)
    assert drawn.shape == images.shape
    assert drawn.dtype == torch.uint8


def test_saved_and_loaded_is_bit_equal(folder: Path, network: RaeNetwork, images: Tensor) -> None:
    rae = Rae(str(folder))
    with torch.no_grad():
        latents = network.encode(images)
        assert torch.equal(rae.encode(images), latents)
        pixels = (network.decode(latents) * 255).round().clamp(0, 255).to(torch.uint8)
    assert torch.equal(rae.decode(latents), pixels)
    again = load_folder(save_folder(load_folder(folder), folder.parent / "again", compact=True))
    assert again.config == network.config
    for name, tensor in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_draws_as_the_decoder_of_diffusers(tmp_path: Path, network: RaeNetwork, images: Tensor) -> None:
    """A folder saved by diffusers' AutoencoderRAE is drawn from as diffusers draws from it."""
    from diffusers import AutoencoderRAE

    theirs = AutoencoderRAE(
        encoder_type="mae",
        encoder_hidden_size=64,
        encoder_patch_size=8,
        encoder_num_hidden_layers=1,
        encoder_input_size=32,
        patch_size=8,
        decoder_hidden_size=48,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=96,
        encoder_norm_mean=[0.5, 0.5, 0.5],
        encoder_norm_std=[0.5, 0.5, 0.5],
        reshape_to_2d=False,
    ).eval()
    randomised(theirs.decoder, seed=3)
    theirs.save_pretrained(tmp_path / "diffusers")
    rae = Rae(
        encoder=SMALL.encoder,
        image_size=32,
        pretrained=False,
        encoder_args=SMALL.encoder_args,
        decoder=str(tmp_path / "diffusers"),
    )
    latents = rae.encode(images)
    with torch.no_grad():
        # diffusers scales latents by 1 + 1e-5 when it has no statistics of them.
        expected = theirs.decode(latents / (1 + 1e-5)).sample
    assert expected.std() > 0.1
    torch.testing.assert_close(rae.decode(latents).float(), expected.clamp(0, 1) * 255, atol=0.51, rtol=0)


def test_pictures_larger_than_the_encoder_sees(images: Tensor) -> None:
    """A grid of 4x4 tokens seen at 16 pixels is drawn at 32."""
    config = replace(SMALL, encoder_input_size=16, encoder_args={**SMALL.encoder_args, "patch_size": 4})
    network = RaeNetwork(config).eval()
    with torch.no_grad():
        assert network.decode(network.encode(images)).shape == images.shape


def test_frozen_whatever_is_asked(folder: Path, images: Tensor) -> None:
    rae = Rae(str(folder))
    before = rae.encode(images)
    model = torch.nn.ModuleDict({"vision": rae, "other": torch.nn.Dropout()})
    model.train()
    assert model["other"].training
    assert not any(module.training for module in rae.modules())
    assert not any(parameter.requires_grad for parameter in rae.parameters())
    assert not rae.encode(images).requires_grad
    assert torch.equal(rae.encode(images), before)


def test_fingerprint_names_the_latents(folder: Path, network: RaeNetwork, tmp_path: Path) -> None:
    name = Rae(str(folder)).fingerprint()
    assert name.startswith(f"rae:{SMALL.encoder}:")
    assert Rae(str(folder)).to(torch.bfloat16).fingerprint() == name
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    assert Rae(str(moved)).fingerprint() == name
    with torch.no_grad():
        network.decoder.decoder_pred.weight.add_(1)
    assert Rae(str(save_folder(network, tmp_path / "decoder", compact=True))).fingerprint() == name
    with torch.no_grad():
        network.encoder.vit.blocks[1].mlp.fc2.bias[3] += 1e-4
    assert Rae(str(save_folder(network, tmp_path / "encoder", compact=True))).fingerprint() != name


def test_fingerprint_depends_on_every_setting_of_the_encoder(images: Tensor) -> None:
    """Settings that no weight shows: of equal weights, only those with the same latents have the same name."""
    alike = {"encoder_layers": [1], "encoder_norm_eps": None}
    settings: list[dict[str, Any]] = [
        {},
        {"image_size": 64, "encoder_input_size": 32},
        {"encoder_args": {**SMALL.encoder_args, "act_layer": "gelu_tanh"}},
        {"encoder_args": {**SMALL.encoder_args, "pretrained_cfg_overlay": {"mean": [0.4, 0.4, 0.4]}}},
        {"encoder_layers": [0]},
        {"encoder_layers": [0, 1]},
        {"encoder_norm_eps": 1e-3},
    ]
    names, latents = [], []
    for changed in (*settings, alike):
        torch.manual_seed(0)
        arguments = {
            "encoder": SMALL.encoder,
            "image_size": 32,
            "encoder_args": SMALL.encoder_args,
            "pretrained": False,
        }
        rae = Rae(**{**arguments, **changed})
        names.append(rae.fingerprint())
        latents.append(rae.encode(F.interpolate(images, size=(rae.image_size, rae.image_size))))
    assert len(set(names)) == len(settings)
    assert names[0] == names[-1]
    assert torch.equal(latents[0], latents[-1])
    assert all(not torch.equal(latents[0], other) for other in latents[2:-1])


def test_without_a_decoder_it_reads_but_does_not_draw(images: Tensor) -> None:
    rae = Rae(encoder=SMALL.encoder, image_size=32, pretrained=False, encoder_args=SMALL.encoder_args)
    latents = rae.encode(images)
    with pytest.raises(Mistake, match=r"no decoder; set vision\.decoder"):
        rae.decode(latents)


def test_needs_a_folder_or_an_encoder(folder: Path) -> None:
    for arguments in ({}, {"folder": str(folder), "encoder": SMALL.encoder}):
        with pytest.raises(Mistake, match="either folder or encoder"):
            Rae(**arguments)


def test_pictures_it_cannot_take_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"\(2, 3, 64, 64\).*takes \(frames, 3, 32, 32\) uint8"):
        Rae(str(folder)).encode(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))


def test_image_size_that_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(Mistake, match=r"30 pixels cannot be drawn from 16 tokens.*grid side 4"):
        RaeNetwork(replace(SMALL, image_size=30, encoder_input_size=32))


def test_missing_folders_and_files_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"'no_such_rae' does not exist.*come with the package: .*rae_tiny"):
        Rae("no_such_rae")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingFile, match=r"empty/config\.json' does not exist"):
        Rae(str(tmp_path / "empty"))
    (folder / "model.safetensors").unlink()
    with pytest.raises(MissingFile, match=r"small/model\.safetensors' does not exist"):
        Rae(str(folder))


def test_broken_configs_are_named(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    for content, sentence in (
        ("{", "is not valid JSON"),
        ("[1]", "holds a list; a JSON object"),
        (json.dumps({**config, "colour": 1}), "has the unexpected colour"),
        (json.dumps({k: v for k, v in config.items() if k != "image_size"}), "lacks image_size"),
    ):
        (folder / "config.json").write_text(content)
        with pytest.raises(Mistake, match=rf"config\.json' {sentence}") as error:
            Rae(str(folder))
        assert "\n" not in str(error.value)


def test_broken_weights_are_named(folder: Path) -> None:
    file = folder / "model.safetensors"
    whole = {name: tensor.clone() for name, tensor in load_file(file).items()}  # of a file that is written over
    key = "decoder.decoder_pred.bias"
    for tensors, sentence in (
        ({k: v for k, v in whole.items() if k != key}, f"lacks {key}"),
        ({**whole, "decoder.more": torch.ones(1)}, "has the unexpected decoder.more"),
        ({**whole, key: torch.full((192,), torch.nan)}, f"holds '{key}' with values that are not finite"),
        ({**whole, "statistics.std": torch.ones(16, 64).half()}, "holds 'std' in float16; statistics"),
        ({**whole, key: torch.ones(3)}, rf"holds '{key}' of shape \(3,\); the configured network needs \(192,\)"),
    ):
        save_file(tensors, file)
        with pytest.raises(Mistake, match=rf"model\.safetensors' {sentence}"):
            Rae(str(folder))
    file.write_bytes(b"\x10" + bytes(20))
    with pytest.raises(Mistake, match="is not a whole safetensors file"):
        Rae(str(folder))


def test_a_decoder_for_other_tokens_is_refused(folder: Path) -> None:
    with pytest.raises(Mistake, match=r"'decoder\.decoder_embed\.weight' of shape \(48, 64\).*\(48, 32\)"):
        Rae(
            encoder=SMALL.encoder,
            image_size=32,
            pretrained=False,
            encoder_args={**SMALL.encoder_args, "embed_dim": 32},
            decoder=str(folder),
        )
