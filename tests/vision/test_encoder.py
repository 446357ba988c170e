from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_mm.mistake import Mistake
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
    with pytest.raises(Mistake, match=r"'vit_bass_patch16_siglip_256', which timm does not know.*vit_base_patch16"):
        TimmEncoder("vit_bass_patch16_siglip_256", 32)
    with pytest.raises(Mistake, match=r"'vit_base_patch16_siglip_256\.v3', which timm does not know.*v2_webli"):
        TimmEncoder("vit_base_patch16_siglip_256.v3", 32)
    with pytest.raises(Mistake, match=r"'resnet18' is not a timm ViT.*img_size"):
        TimmEncoder("resnet18", 32)
    with pytest.raises(Mistake, match="'swin_tiny_patch4_window7_224' is not a vision transformer"):
        TimmEncoder("swin_tiny_patch4_window7_224", 224, model_args={"embed_dim": 24, "depths": (1, 1, 1, 1)})
    with pytest.raises(Mistake, match="30 pixels is not a multiple of the patch size 8"):
        TimmEncoder("vit_base_patch16_siglip_256", 30, model_args={**TINY, "patch_size": 8})
    with pytest.raises(Mistake, match=r"not a timm ViT with these encoder_args.*wdith"):
        TimmEncoder("vit_base_patch16_siglip_256", 32, model_args={"wdith": 3})


@pytest.mark.parametrize("name", ["vit_base_patch16_siglip_256", "vit_small_patch14_reg4_dinov2"])
@pytest.mark.parametrize("layers", [[-1], [2], [0], [-2], [0, 2], [-1, -2, 0]])
def test_tokens_of_several_layers_are_normalised_averaged_and_normalised(
    name: str, layers: list[int], images: Tensor
) -> None:
    encoder = TimmEncoder(name, 32, model_args={**TINY, "depth": 3, "patch_size": 8}, layers=layers).eval()
    randomised(encoder)
    outputs: list[Tensor] = []
    for block in encoder.vit.blocks:
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output[:, -16:]))
    with torch.no_grad():
        tokens = encoder(images / 255)
        encoder.vit.forward_features(encoder.pixels(images / 255))
    every = outputs[-3:]  # a full pass: that of the encoder stops at the last layer it needs
    expected = standardised(torch.stack([standardised(every[layer]) for layer in layers]).mean(0))
    torch.testing.assert_close(tokens, expected, atol=2e-5, rtol=1e-5)
    assert len(outputs) == 4 + max(layer % 3 for layer in layers)


@pytest.mark.parametrize(("layers", "sentence"), [([3], "holds 3"), ([-1, -4], "holds -4"), ([], "is empty")])
def test_layers_that_are_not_there_are_refused(layers: list[int], sentence: str) -> None:
    with pytest.raises(Mistake, match=rf"encoder_layers {sentence}, but '.*' has layers 0 to 2, or -3 to -1"):
        TimmEncoder("vit_base_patch16_siglip_256", 32, model_args={**TINY, "depth": 3, "patch_size": 8}, layers=layers)


def test_eps_of_all_norms(images: Tensor) -> None:
    """A large eps shrinks tokens, in the last norm too."""
    args = {**TINY, "patch_size": 8}
    usual, large = (
        TimmEncoder("vit_base_patch16_224.mae", 32, model_args=args, norm_eps=e).eval() for e in (None, 9.0)
    )
    assert {m.eps for m in large.modules() if isinstance(m, nn.LayerNorm)} == {9.0}
    with torch.no_grad():
        assert usual(images / 255).std() > 3 * large(images / 255).std()


def test_pixels_are_normalised_in_float32(images: Tensor) -> None:
    encoder = TimmEncoder("vit_small_patch14_reg4_dinov2", 32, model_args={**TINY, "patch_size": 8}).to(torch.bfloat16)
    seen: list[Tensor] = []
    encoder.vit.patch_embed.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        assert encoder(images / 255).dtype == torch.bfloat16
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    assert torch.equal(seen[0], ((images / 255 - mean) / std).to(torch.bfloat16))
