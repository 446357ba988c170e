from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from lit_mm.vision.encoder import TimmEncoder
from tests.vision.conftest import randomised

TINY = {"embed_dim": 64, "depth": 2, "num_heads": 4}


def standardised(tokens: Tensor) -> Tensor:
    """Layer norm without affine, written out."""
    centred = tokens - tokens.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("vit_base_patch16_siglip_256", {"patch_size": 8}),  # no class token
        ("vit_small_patch14_reg4_dinov2", {"patch_size": 8}),  # class token and four registers, ImageNet mean and std
        ("vit_base_patch16_224.mae", {"patch_size": 8}),  # class token only
    ],
)
def test_tokens_are_the_last_layer_of_timm_standardised(name: str, extra: dict[str, Any], images: Tensor) -> None:
    encoder = TimmEncoder(name, 32, model_args={**TINY, **extra}).eval()
    reference = timm.create_model(name, num_classes=0, img_size=32, **TINY, **extra).eval()
    randomised(encoder)
    reference.load_state_dict(encoder.vit.state_dict(), strict=False)
    reference.norm = nn.Identity()
    mean, std = (torch.tensor(reference.pretrained_cfg[k]).view(3, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        hidden = reference.forward_features((images / 255 - mean) / std)
        tokens = encoder(images / 255)
    torch.testing.assert_close(tokens, standardised(hidden[:, -16:]), atol=1e-5, rtol=1e-5)
    assert (encoder.num_tokens, encoder.channels) == (16, 64)


def test_equals_the_siglip_of_transformers(images: Tensor) -> None:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    # The original and transformers approximate GELU by tanh, timm does not unless it is told to.
    args = {**TINY, "patch_size": 8, "act_layer": "gelu_tanh"}
    encoder = TimmEncoder("vit_base_patch16_siglip_256", 32, model_args=args).eval()
    randomised(encoder)
    config = SiglipVisionConfig(
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
    )
    siglip = SiglipVisionModel(config).eval()
    copied = siglip_state(encoder.vit.state_dict(), siglip.state_dict())
    siglip.load_state_dict(copied)
    with torch.no_grad():
        # The norm of transformers has weight 1 and bias 0 here, which is the norm without affine.
        expected = siglip(pixel_values=images / 127.5 - 1).last_hidden_state
        torch.testing.assert_close(encoder(images / 255), expected, atol=1e-5, rtol=1e-5)


def siglip_state(timm_state: dict[str, Tensor], siglip: dict[str, Tensor]) -> dict[str, Tensor]:
    """Timm's weights under the names of transformers; the pooling head and the last norm keep theirs."""
    state = dict(siglip)
    prefix = "vision_model." if any(k.startswith("vision_model.") for k in siglip) else ""
    state[f"{prefix}embeddings.position_embedding.weight"] = timm_state["pos_embed"][0]
    for kind in ("weight", "bias"):
        state[f"{prefix}embeddings.patch_embedding.{kind}"] = timm_state[f"patch_embed.proj.{kind}"]
        for layer in range(2):
            ours, theirs = f"blocks.{layer}.", f"{prefix}encoder.layers.{layer}."
            for a, b in (("norm1", "layer_norm1"), ("norm2", "layer_norm2"), ("mlp.fc1", "mlp.fc1")):
                state[f"{theirs}{b}.{kind}"] = timm_state[f"{ours}{a}.{kind}"]
            state[f"{theirs}mlp.fc2.{kind}"] = timm_state[f"{ours}mlp.fc2.{kind}"]
            state[f"{theirs}self_attn.out_proj.{kind}"] = timm_state[f"{ours}attn.proj.{kind}"]
            for part, name in zip(timm_state[f"{ours}attn.qkv.{kind}"].chunk(3), "qkv", strict=True):
                state[f"{theirs}self_attn.{name}_proj.{kind}"] = part
    assert state.keys() == siglip.keys()
    return state


def test_pictures_are_resized_to_the_encoder(images: Tensor) -> None:
    small = TimmEncoder("vit_base_patch16_siglip_256", 16, model_args={**TINY, "patch_size": 4}).eval()
    resized = F.interpolate(images / 255, size=(16, 16), mode="bicubic")
    with torch.no_grad():
        assert torch.equal(small(images / 255), small(resized))
    assert small.num_tokens == 16


def test_unknown_names_and_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'vit_bass_patch16_siglip_256', which timm does not know.*vit_base_patch16"):
        TimmEncoder("vit_bass_patch16_siglip_256", 32)
    with pytest.raises(ValueError, match=r"'resnet18' is not a timm ViT.*img_size"):
        TimmEncoder("resnet18", 32)
    with pytest.raises(ValueError, match="'swin_tiny_patch4_window7_224' is not a vision transformer"):
        TimmEncoder("swin_tiny_patch4_window7_224", 224, model_args={"embed_dim": 24, "depths": (1, 1, 1, 1)})
    with pytest.raises(ValueError, match="30 pixels is not a multiple of the patch size 8"):
        TimmEncoder("vit_base_patch16_siglip_256", 30, model_args={**TINY, "patch_size": 8})
    with pytest.raises(ValueError, match=r"not a timm ViT with these encoder_args.*wdith"):
        TimmEncoder("vit_base_patch16_siglip_256", 32, model_args={"wdith": 3})


def test_weights_come_from_a_file(tmp_path: Path, images: Tensor) -> None:
    name, args = "vit_base_patch16_siglip_256.v2_webli", {**TINY, "patch_size": 8}
    published = timm.create_model(name, num_classes=0, img_size=32, **args)
    randomised(published)
    save_file(published.state_dict(), tmp_path / "whole.safetensors")
    save_file(dict(list(published.state_dict().items())[5:]), tmp_path / "cut.safetensors")
    published.norm = nn.LayerNorm(64, eps=1e-6, elementwise_affine=False)
    encoder = TimmEncoder(name, 32, str(tmp_path / "whole.safetensors"), args).eval()
    with torch.no_grad():
        expected = published.eval().forward_features(images / 127.5 - 1)
        torch.testing.assert_close(encoder(images / 255), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(FileNotFoundError, match=r"vision\.encoder 'vit_base.*could not be loaded.*pos_embed"):
        TimmEncoder(name, 32, str(tmp_path / "cut.safetensors"), args)
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors', but there is no such file"):
        TimmEncoder(name, 32, str(tmp_path / "none.safetensors"), args)
