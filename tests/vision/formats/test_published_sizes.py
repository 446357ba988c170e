"""Encoders of configs/vision at their full size against the sizes that transformers has for the same names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml

from lit_mm.vision.encoder import TimmEncoder
from lit_mm.vision.formats.pretrained import activation
from lit_mm.vision.formats.transformers_names import Family, to_timm

CONFIGS = Path(__file__).parents[3] / "configs/vision"
BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12}
SO400M = {"hidden_size": 1152, "num_hidden_layers": 27, "num_attention_heads": 16, "intermediate_size": 4304}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
# The config.json of google/siglip2-so400m-patch14-224, google/siglip2-base-patch16-256,
# facebook/dinov2-with-registers-base and -large, facebook/webssl-dino300m-full2b-224 and facebook/vit-mae-base, where it
# differs from the defaults.
SIZES: dict[str, tuple[Family, str, dict[str, Any]]] = {
    "rae_siglip2_so400m": ("siglip2", "SiglipVision", {**SO400M, "patch_size": 14, "image_size": 224}),
    "rae_siglip2_base": ("siglip2", "SiglipVision", {**BASE, "patch_size": 16, "image_size": 256}),
    "rae_dinov2_base": ("dinov2", "Dinov2WithRegisters", {**BASE, "patch_size": 14, "image_size": 518}),
    "rae_dinov2_large": ("dinov2", "Dinov2WithRegisters", {**LARGE, "patch_size": 14, "image_size": 518}),
    "rae_webssl_large": ("dinov2", "Dinov2", {**LARGE, "patch_size": 14, "image_size": 224}),
    "rae_mae_base": ("mae", "ViTMAE", {**BASE, "patch_size": 16, "image_size": 224}),
}


@pytest.mark.parametrize("name", SIZES)
def test_every_tensor_of_the_published_encoder_has_its_place(name: str) -> None:
    family, kind, sizes = SIZES[name]
    settings = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["init_args"]
    config = getattr(transformers, f"{kind}Config")(**sizes)
    with torch.device("meta"):
        published = getattr(transformers, f"{kind}Model")(config)
        try:
            encoder = TimmEncoder(
                settings["encoder"],
                settings["encoder_input_size"] or settings["image_size"],
                pretrained=False,
                model_args=settings["encoder_args"],
                norm_eps=settings["encoder_norm_eps"],
                norm_affine=settings["encoder_norm_affine"],
            )
        except RuntimeError as error:
            pytest.skip(f"this version of timm builds nothing without memory: {error}")
    assert (encoder.num_tokens, encoder.channels) == (256, sizes["hidden_size"])
    wanted = encoder.vit.state_dict()
    converted = to_timm(published.state_dict(), family, wanted, 16)
    assert {k: tuple(v.shape) for k, v in converted.items()} == {k: tuple(v.shape) for k, v in wanted.items()}
    block = encoder.vit.blocks[0]
    assert block.attn.num_heads == config.num_attention_heads
    assert block.norm1.eps == config.layer_norm_eps
    assert activation(block.mlp.act) == {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh"}[config.hidden_act]


def test_pixels_are_normalised_as_published() -> None:
    """The preprocessor_config.json of all: SigLIP 2 takes pixels in [-1, 1], the others those of ImageNet."""
    for name in SIZES:
        settings = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["init_args"]
        small = {"embed_dim": 64, "depth": 1, "num_heads": 1}
        pixels = TimmEncoder(settings["encoder"], 224, model_args=small).pixels
        mean, std = ([0.5] * 3, [0.5] * 3) if "siglip2" in name else ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        torch.testing.assert_close(pixels.mean.flatten(), torch.tensor(mean))
        torch.testing.assert_close(pixels.std.flatten(), torch.tensor(std))
