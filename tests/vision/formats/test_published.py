"""Decoders in the files of the RAE collection and of Scale-RAE, against diffusers' decoder with the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_rae import RAEDecoder
from torch import Tensor

from lit_mm.mistake import Mistake
from lit_mm.vision import Rae
from lit_mm.vision.rae_network import draw
from tests.vision.conftest import randomised

ENCODER_ARGS = {"embed_dim": 64, "depth": 1, "num_heads": 4, "patch_size": 8}
# `AutoConfig` of a ViT-MAE, of which the decoder's class reads what starts with decoder_ (both projects' config.json).
CONFIG = {
    "model_type": "vit_mae",
    "hidden_size": 768,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "qkv_bias": True,
    "num_channels": 3,
    "patch_size": 16,
    "image_size": 224,
    "decoder_hidden_size": 48,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 4,
    "decoder_intermediate_size": 96,
}


def sin_cos(width: int, grid: int) -> Tensor:
    """Position table of ViT-MAE with a zero row for the class token: a half for columns, a half for rows."""
    frequencies = 1 / 10000 ** (np.arange(width // 4) / (width // 4))

    def halves(positions: np.ndarray) -> np.ndarray:
        angles = positions[:, None] * frequencies
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

    rows, columns = (axis.flatten() for axis in np.meshgrid(np.arange(grid), np.arange(grid), indexing="ij"))
    table = np.concatenate([halves(columns), halves(rows)], axis=1)
    return torch.from_numpy(np.concatenate([np.zeros((1, width)), table])).float()[None]


def decoder_of(grid: int, width: int = 48, heads: int = 4) -> RAEDecoder:
    """Diffusers' decoder with random weights and the position table that both projects store."""
    decoder = RAEDecoder(
        hidden_size=64,
        decoder_hidden_size=width,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=heads,
        decoder_intermediate_size=96,
        num_patches=grid**2,
        patch_size=8,
        image_size=8 * grid,
    ).eval()
    randomised(decoder, seed=2)
    decoder.decoder_pos_embed.copy_(sin_cos(width, grid))
    return decoder


def published_names(decoder: RAEDecoder) -> dict[str, Tensor]:
    """State dict under the names of `GeneralDecoder`, the class of both projects."""
    tensors = {"decoder_pos_embed": decoder.decoder_pos_embed.clone()}
    for name, tensor in decoder.state_dict().items():
        for letter, word in (("q", "query"), ("k", "key"), ("v", "value")):
            name = name.replace(f"attention.to_{letter}.", f"attention.attention.{word}.")
        tensors[name.replace("attention.to_out.0.", "attention.output.dense.")] = tensor
    return tensors


def read(path: Path, image_size: int = 32, **arguments: Any) -> Rae:
    encoder = "vit_base_patch16_siglip_256"
    settings = {"encoder_args": ENCODER_ARGS, "pretrained": False, **arguments}
    return Rae(encoder=encoder, image_size=image_size, decoder=str(path), **settings)


def latents(grid: int) -> Tensor:
    return torch.randn(2, grid**2, 64, generator=torch.Generator().manual_seed(4))


@torch.no_grad()
def assert_draws_alike(rae: Rae, decoder: RAEDecoder, grid: int) -> None:
    tokens = latents(grid)
    # Scale-RAE puts a zero token in front, which its decoder drops: that is diffusers' decoder told to do the same.
    with_class = torch.cat([torch.zeros(2, 1, 64), tokens], dim=1)
    expected = decoder.unpatchify(decoder(with_class, drop_cls_token=True).logits) * 0.5 + 0.5
    torch.testing.assert_close(expected, decoder.unpatchify(decoder(tokens).logits) * 0.5 + 0.5)
    assert expected.std() > 0.05
    torch.testing.assert_close(draw(rae.decoder, rae.encoder, tokens), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rae.decode(tokens).float(), expected.clamp(0, 1) * 255, atol=0.51, rtol=0)


@pytest.mark.parametrize("grid", [4, 16])
def test_scale_rae_folder(grid: int, tmp_path: Path) -> None:
    decoder = decoder_of(grid)
    torch.save(published_names(decoder), tmp_path / "model.pt")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert_draws_alike(read(tmp_path, 8 * grid), decoder, grid)


@pytest.mark.parametrize(("width", "heads"), [(768, 12), (1024, 16), (1152, 16)])
def test_rae_collection_file_and_folder(width: int, heads: int, tmp_path: Path) -> None:
    """Without a config.json: the sizes are those of the tensors, the heads those of the published ViT of that width."""
    decoder = decoder_of(4, width, heads)
    file = tmp_path / "decoders/siglip2/base_p16_i256/ViTXL_n08/model.pt"
    file.parent.mkdir(parents=True)
    torch.save(published_names(decoder), file)
    assert_draws_alike(read(file), decoder, 4)
    assert_draws_alike(read(file.parent), decoder, 4)


def test_table_of_a_16x16_grid_is_that_of_diffusers() -> None:
    ours = RAEDecoder(hidden_size=64, decoder_hidden_size=48, num_patches=256, decoder_num_attention_heads=4)
    torch.testing.assert_close(sin_cos(48, 16), ours.decoder_pos_embed, atol=1e-5, rtol=0)


@pytest.mark.parametrize("wrapped", ["ema of a checkpoint", "data-parallel", "whole autoencoder"])
def test_training_checkpoints_are_unwrapped(wrapped: str, tmp_path: Path) -> None:
    decoder = decoder_of(4)
    names = published_names(decoder)
    if wrapped == "ema of a checkpoint":
        content: dict[str, Any] = {"model": {"wrong": torch.ones(1)}, "ema": names, "step": 3}
    elif wrapped == "data-parallel":
        content = {"state_dict": {f"module._orig_mod.{k}": v for k, v in names.items()}}
    else:
        content = {"model": {f"decoder.{k}": v for k, v in names.items()} | {"encoder.x": torch.ones(1)}}
    torch.save(content, tmp_path / "model.pt")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert_draws_alike(read(tmp_path), decoder, 4)


QUERY = "decoder_layers.1.attention.attention.query.weight"


@pytest.mark.parametrize(
    ("change", "config", "sentence"),
    [
        ({QUERY: None}, {}, r"lacks decoder_layers\.1\.attention\.to_q\.weight"),
        ({"mask_token": torch.ones(1)}, {}, "has the unexpected mask_token"),
        ({"decoder_embed.weight": None}, {}, r"lacks decoder_embed\.weight; it does not hold the decoder of an RAE"),
        ({"decoder_pos_embed": None}, {}, "lacks decoder_pos_embed"),
        ({"decoder_norm.bias": torch.ones(3)}, {}, r"'decoder_norm\.bias' of shape \(3,\).* needs \(48,\)"),
        ({QUERY: torch.full((48, 48), torch.nan)}, {}, r"to_q\.weight' with values that are not finite"),
        ({"decoder_norm.bias": 3}, {}, r"holds a int as 'decoder_norm\.bias'"),
        ({"decoder_pred.weight": torch.ones(191, 48)}, {}, "draws 191 values per token"),
        ({}, {"decoder_hidden_size": 64}, r"config\.json' says decoder_hidden_size is 64, but .* needs 48"),
        ({}, {"hidden_act": "relu"}, "says hidden_act is relu"),
        ({}, {"decoder_num_attention_heads": 5}, "decoder_num_attention_heads is 5, but it must divide the width 48"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_broken_files_are_refused(
    change: dict[str, Any], config: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    tensors = {k: v for k, v in (published_names(decoder_of(4)) | change).items() if v is not None}
    torch.save(tensors, tmp_path / "model.pt")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | config))
    with pytest.raises(Mistake, match=sentence) as error:
        read(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_decoders_for_something_else_are_refused(tmp_path: Path) -> None:
    torch.save(published_names(decoder_of(4)), tmp_path / "model.pt")
    with pytest.raises(Mistake, match="is 48 wide, of which the number of heads is not known: put a config.json"):
        read(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(Mistake, match="draws 16 tokens of 64 channels, but vision.encoder gives 16 of 32"):
        read(tmp_path, encoder_args={**ENCODER_ARGS, "embed_dim": 32})
    with pytest.raises(Mistake, match="draws pictures of 32 pixels, but vision.image_size is 64: set it to 32 and"):
        read(tmp_path, image_size=64, encoder_input_size=32)
    (tmp_path / "model.pt").write_bytes(b"nothing")
    with pytest.raises(Mistake, match="is not a whole file of tensors"):
        read(tmp_path)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"decoder_embed.weight": Trap()}, tmp_path / "model.pt")
    with pytest.raises(Mistake, match="is not a whole file of tensors"):
        read(tmp_path)
    assert not (tmp_path / "ran").exists()
