"""The last norm with and without its weight and bias: which published decoder draws the tokens of which."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn

from lit_mm.mistake import Mistake
from lit_mm.vision import Rae
from lit_mm.vision.encoder import TimmEncoder
from lit_mm.vision.formats.folder import load_folder, save_folder
from lit_mm.vision.rae_network import RaeConfig, RaeNetwork, draw
from tests.vision.conftest import randomised
from tests.vision.formats import autoencoder_rae
from tests.vision.formats.test_pretrained import FOLDERS
from tests.vision.formats.test_published import CONFIG, decoder_of, published_names

ARGS: dict[str, Any] = {"embed_dim": 64, "depth": 2, "num_heads": 4, "patch_size": 8, "mlp_ratio": 2}
WEBSSL = "vit_large_patch14_dinov2"


def save_webssl(folder: Path) -> nn.Module:
    """A small model in the format of facebook/webssl-dino300m-full2b-224: transformers' `Dinov2Model`."""
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "patch_size": 8, "mlp_ratio": 2}
    model = transformers.Dinov2Model(transformers.Dinov2Config(**sizes, image_size=32)).eval()
    randomised(model)
    model.save_pretrained(folder)
    return model


def save_decoder(folder: Path, config: bool = True) -> nn.Module:
    """As Scale-RAE publishes decoders; without `config.json` as RAE does."""
    folder.mkdir()
    decoder = decoder_of(4) if config else decoder_of(4, 768, 12)
    torch.save(published_names(decoder), folder / "model.pt")
    if config:
        (folder / "config.json").write_text(json.dumps(CONFIG))
    return decoder


def webssl(tmp_path: Path, **arguments: Any) -> Rae:
    settings = {"pretrained": str(tmp_path / "webssl"), "encoder_args": ARGS, "encoder_norm_affine": True}
    return Rae(encoder=WEBSSL, image_size=32, **{**settings, **arguments})


@torch.no_grad()
def test_webssl_is_encoded_and_drawn_as_scale_rae_does(tmp_path: Path, images: Tensor) -> None:
    """Its tower takes `last_hidden_state[:, 1:]` of transformers, and its decoder ends with the pixels of ImageNet."""
    model, decoder = save_webssl(tmp_path / "webssl"), save_decoder(tmp_path / "decoder")
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    expected = model((images / 255 - mean) / std).last_hidden_state[:, 1:]
    rae = webssl(tmp_path, decoder=str(tmp_path / "decoder"))
    tokens = rae.encode(images)
    torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=1e-5)
    pixels = decoder.unpatchify(decoder(expected).logits) * std + mean
    assert pixels.std() > 0.05
    torch.testing.assert_close(draw(rae.decoder, rae.encoder, tokens), pixels, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rae.decode(tokens).float(), pixels.clamp(0, 1) * 255, atol=0.51, rtol=0)
    dropped = webssl(tmp_path, encoder_norm_affine=False)
    assert (dropped.encode(images) - expected).abs().max() > 0.5
    assert dropped.fingerprint() != rae.fingerprint()


@pytest.mark.parametrize("case", FOLDERS)
def test_every_family_of_transformers_keeps_it(case: str, tmp_path: Path) -> None:
    make, name, args, settings, prefix_tokens = FOLDERS[case]
    whole, vision = make()
    randomised(whole)
    whole.eval().save_pretrained(tmp_path)
    encoder = TimmEncoder(name, 48, str(tmp_path), args, **settings, norm_affine=True).eval()
    pixels = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    arguments = {"noise": torch.arange(36).expand(2, -1).float()} if "mae" in case else {}
    with torch.no_grad():
        expected = vision(encoder.pixels(pixels), **arguments).last_hidden_state[:, prefix_tokens:]
        torch.testing.assert_close(encoder(pixels), expected, atol=1e-5, rtol=1e-5)


def test_a_file_of_timm_keeps_it(tmp_path: Path, images: Tensor) -> None:
    model = timm.create_model(WEBSSL, num_classes=0, img_size=32, **ARGS).eval()
    randomised(model)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    encoder = TimmEncoder(WEBSSL, 32, str(tmp_path / "model.safetensors"), ARGS, norm_affine=True).eval()
    with torch.no_grad():
        expected = model.forward_features(encoder.pixels(images / 255))[:, 1:]
        torch.testing.assert_close(encoder(images / 255), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("encoder", "affine", "of_scale_rae"),
    [
        (WEBSSL, True, True),
        (WEBSSL, False, False),
        ("vit_large_patch14_reg4_dinov2", False, True),
        ("vit_base_patch16_siglip_256", False, True),
        ("vit_base_patch16_siglip_256", False, False),
    ],
)
def test_a_published_decoder_refuses_tokens_of_another_kind(
    encoder: str, affine: bool, of_scale_rae: bool, tmp_path: Path
) -> None:
    save_decoder(tmp_path / "decoder", config=of_scale_rae)
    arguments: dict[str, Any] = {"encoder": encoder, "image_size": 32, "encoder_args": ARGS, "pretrained": False}
    arguments["decoder"] = str(tmp_path / "decoder")
    Rae(**arguments, encoder_norm_affine=affine)
    kinds = ("without", "with")
    with pytest.raises(Mistake) as error:
        Rae(**arguments, encoder_norm_affine=not affine)
    assert str(error.value) == (
        f"'{tmp_path / 'decoder/model.pt'}' draws tokens that come from a last norm {kinds[affine]} weight and bias, but "
        f"vision.encoder has one {kinds[not affine]} weight and bias: set vision.encoder_norm_affine to "
        f"{str(affine).lower()}"
    )


def test_folders_say_which_kind_they_are_of(tmp_path: Path, images: Tensor) -> None:
    config = RaeConfig(
        encoder=WEBSSL,
        image_size=32,
        encoder_args=ARGS,
        encoder_norm_affine=True,
        decoder_hidden_size=48,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=4,
        decoder_intermediate_size=96,
    )
    network = RaeNetwork(config).eval()
    randomised(network)
    with pytest.warns(UserWarning, match="it leaves out weight and bias of the encoder's last norm, which this one"):
        save_folder(network, tmp_path / "ours")
    again = load_folder(tmp_path / "ours")
    assert again.config == config
    assert torch.equal(Rae(str(tmp_path / "ours")).encode(images), network.encode(images))
    arguments: dict[str, Any] = {"encoder": WEBSSL, "image_size": 32, "encoder_args": ARGS, "pretrained": False}
    with pytest.raises(
        Mistake, match=r"ours' draws tokens .* norm with weight and bias, .*encoder_norm_affine to true"
    ):
        Rae(**arguments, decoder=str(tmp_path / "ours"))
    theirs = autoencoder_rae.build("mae", 8, 32)
    theirs.save_pretrained(tmp_path / "theirs")
    arguments = {**arguments, "encoder": "vit_base_patch16_224.mae", "encoder_args": {**ARGS, "embed_dim": 128}}
    Rae(**arguments, decoder=str(tmp_path / "theirs"))
    with pytest.raises(Mistake, match=r"theirs' draws tokens .* norm without weight and bias, .*to false"):
        Rae(**arguments, decoder=str(tmp_path / "theirs"), encoder_norm_affine=True)


def test_where_it_cannot_be_kept_is_said() -> None:
    args = {"embed_dim": 64, "depth": 2, "num_heads": 4}
    with pytest.raises(Mistake, match="norm_affine is true, but the last norm of 'vit_base_patch16_224' has no weight"):
        TimmEncoder("vit_base_patch16_224", 32, model_args={**args, "global_pool": "avg"}, norm_affine=True)
    with pytest.raises(Mistake, match=r"norm_affine is true, but the mean of several vision\.encoder_layers"):
        TimmEncoder("vit_base_patch16_224", 32, model_args=args, layers=[0, 1], norm_affine=True)
