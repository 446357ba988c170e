"""A trained autoencoder as a folder that diffusers' `AutoencoderRAE` loads, with equal outputs.

`AutoencoderRAE` fixes most of its encoder (see `diffusers_format`). A smaller encoder is written into that exactly:
MLPs are widened with zeros, which makes no difference as GELU(0) = 0, and the position table is one that resizing turns
into the small one (`transformers_names.enlarged`). What cannot be written is said by `obstacle`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from lit_mm.tensor_files import save_tensors
from lit_mm.vision.formats.diffusers_format import (
    ACTIVATIONS,
    CLASS_NAME,
    DIFFUSERS_WEIGHTS,
    GRID_PIXELS,
    HEAD_CHANNELS,
    MLP_UNITS,
    NORM_EPS,
    STD_EPS,
)
from lit_mm.vision.formats.pretrained import activation
from lit_mm.vision.formats.transformers_names import Family, from_timm, in_memory, to_timm, widened
from lit_mm.vision.rae_network import RaeNetwork


def family_of(network: RaeNetwork) -> Family | None:
    """The encoder of diffusers that has the layers of a timm ViT; None if none has."""
    from timm.models.vision_transformer import Block, VisionTransformer

    vit = network.encoder.vit
    tokens = vit.state_dict()
    if type(vit) is not VisionTransformer or any(type(block) is not Block for block in cast(Any, vit.blocks)):
        return None
    rest = {name for name in tokens if not name.startswith("blocks.")}
    inside = {name.split(".", 2)[2] for name in tokens if name.startswith("blocks.")}
    plain = {f"{p}.{k}" for p in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2") for k in _KINDS}
    patches = {"pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    if (rest, inside) == (patches, plain):
        return "siglip2"
    if (rest, inside) == (patches | {"cls_token"}, plain):
        return "mae"
    scaled = plain | {"ls1.gamma", "ls2.gamma"}
    if (rest, inside) == (patches | {"cls_token", "reg_token"}, scaled) and tokens["reg_token"].shape[1] == 4:
        return "dinov2"
    return None


_KINDS = ("weight", "bias")


def obstacle(network: RaeNetwork) -> str | None:
    """Why `AutoencoderRAE` cannot hold `network`, as the rest of a sentence; None if it can."""
    if find_spec("transformers") is None:
        return (
            "the library transformers, of which it takes its encoders, is not installed: pip install 'lit-mm[formats]'"
        )
    if network.encoder.norm_affine:
        return "it leaves out weight and bias of the encoder's last norm, which this one keeps"
    family = family_of(network)
    if family is None:
        return f"it has no encoder with the layers of '{network.config.encoder}'"
    encoder, vit = network.encoder, cast(Any, network.encoder.vit)
    if encoder.layers != [len(vit.blocks) - 1]:
        return f"it takes tokens from the last layer only, not from {encoder.layers}"
    block = vit.blocks[0]
    if block.attn.num_heads * HEAD_CHANNELS != encoder.channels:
        return f"its heads have {HEAD_CHANNELS} channels, not {encoder.channels // block.attn.num_heads}"
    units, most = block.mlp.fc1.out_features, _mlp_units(family, encoder.channels)
    if units > most:
        return f"its MLPs have {most} units, not {units}"
    if (found := activation(block.mlp.act)) != ACTIVATIONS[family]:
        return f"its activation is {ACTIVATIONS[family]}, not {found}"
    try:
        from_timm(vit.state_dict(), family, _side(network, family))
    except ValueError as error:
        return str(error)
    eps = {module.eps for module in vit.modules() if isinstance(module, nn.LayerNorm)}
    if eps != {NORM_EPS[family]}:
        return f"its norms have eps {NORM_EPS[family]}, not {', '.join(map(str, sorted(eps)))}"
    return None


def _side(network: RaeNetwork, family: Family) -> int:
    """Side of the grid that the family's position table is for."""
    return GRID_PIXELS[family] // int(cast(Any, network.encoder.vit.patch_embed).patch_size[0])


def _mlp_units(family: Family, channels: int) -> int:
    return 4 * channels if family == "dinov2" else MLP_UNITS


def _arguments(network: RaeNetwork, family: Family) -> dict[str, Any]:
    """Arguments with which `AutoencoderRAE` builds `network`, statistics apart."""
    encoder, vit, config = network.encoder, cast(Any, network.encoder.vit), network.config
    return {
        "encoder_type": family,
        "encoder_hidden_size": encoder.channels,
        "encoder_patch_size": vit.patch_embed.patch_size[0],
        "encoder_num_hidden_layers": len(vit.blocks),
        "decoder_hidden_size": config.decoder_hidden_size,
        "decoder_num_hidden_layers": config.decoder_num_hidden_layers,
        "decoder_num_attention_heads": config.decoder_num_attention_heads,
        "decoder_intermediate_size": config.decoder_intermediate_size,
        "patch_size": config.image_size // vit.patch_embed.grid_size[0],
        "encoder_input_size": encoder.input_size,
        "image_size": config.image_size,
        "num_channels": 3,
        "encoder_norm_mean": _listed(encoder.pixels.mean.flatten()),
        "encoder_norm_std": _listed(encoder.pixels.std.flatten()),
        "reshape_to_2d": True,
        "scaling_factor": 1.0,
    }


def _listed(tensor: Tensor) -> Any:
    """Nested lists of the shortest decimals that are these float32 values."""
    import numpy as np

    values = tensor.detach().cpu().numpy().astype(np.float32)
    return np.array([float(str(value)) for value in values.flatten()]).reshape(values.shape).tolist()


def write_diffusers(network: RaeNetwork, folder: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """Write `config.json` and `diffusion_pytorch_model.safetensors`; only for a network that has no `obstacle`.

    Weights are stored in `dtype`. Position tables and statistics stay float32: rounding the table of a larger grid is
    not rounding the smaller one.

    Returns:
        Tensors of the encoder, under timm's names, that cannot be read back from these files bit for bit.
    """
    import diffusers

    family = family_of(network)
    assert family is not None
    grid = cast(Any, network.encoder.vit.patch_embed).grid_size[0]
    arguments = _arguments(network, family)
    vit = stored(network.encoder.vit, dtype)
    published = from_timm(widened(vit, _mlp_units(family, network.encoder.channels)), family, _side(network, family))
    back = to_timm(published, family, vit, grid)
    tensors = _named_for_installed(published, family, arguments)
    tensors |= {f"decoder.{name}": tensor for name, tensor in stored(network.decoder, dtype).items()}
    mean, std = (value.detach().cpu() for value in (network.statistics.mean, network.statistics.std))
    for name, value in (("latents_mean", mean), ("latents_std", (std.double() - STD_EPS).float())):
        uniform = bool((value == value[0, 0]).all())
        tensors[f"_{name}"] = value[0, :1] if uniform else value.T.unflatten(1, (grid, grid))
        arguments[name] = _listed(tensors[f"_{name}"])
    tensors["encoder_mean"] = network.encoder.pixels.mean.cpu()[None]
    tensors["encoder_std"] = network.encoder.pixels.std.cpu()[None]
    save_tensors({k: v.contiguous() for k, v in tensors.items()}, folder / DIFFUSERS_WEIGHTS, metadata={"format": "pt"})
    settings = {"_class_name": CLASS_NAME, "_diffusers_version": diffusers.__version__, **arguments}
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf8")
    return {name: tensor for name, tensor in vit.items() if not torch.equal(back[name], tensor)}


def stored(module: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """A module's tensors in `dtype`, position tables in float32."""
    return {
        name: tensor.detach().to("cpu", torch.float32 if name == "pos_embed" else dtype).contiguous()
        for name, tensor in module.state_dict().items()
    }


def _named_for_installed(
    tensors: Mapping[str, Tensor], family: Family, arguments: Mapping[str, Any]
) -> dict[str, Tensor]:
    """The encoder as published files name it, or as `AutoencoderRAE` does with the transformers that is installed."""
    from diffusers import AutoencoderRAE

    if family == "siglip2":
        tensors = dict(tensors) | _unused_head(arguments, tensors)
    prefix = "encoder.vision_model." if family == "siglip2" else "encoder."
    published = {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
    try:
        with torch.device("meta"):
            wanted = cast(Any, AutoencoderRAE(**arguments)).state_dict().keys()
    except AttributeError:  # diffusers 0.42 cannot build SigLIP with transformers 5
        return published
    if published.keys() <= wanted:
        return published
    return {f"encoder.{in_memory(name, family)}": tensor for name, tensor in tensors.items()}


def _unused_head(arguments: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Zeros for SigLIP's pooling, which `AutoencoderRAE` computes and drops."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    width = arguments["encoder_hidden_size"]
    config = SiglipVisionConfig(hidden_size=width, num_attention_heads=width // HEAD_CHANNELS, num_hidden_layers=1)
    with torch.device("meta"):
        names = SiglipVisionModel(config).state_dict()
    dtype = tensors["embeddings.patch_embedding.weight"].dtype
    heads = {name.removeprefix("vision_model."): tensor.shape for name, tensor in names.items()}
    return {name: torch.zeros(shape, dtype=dtype) for name, shape in heads.items() if name.startswith("head.")}
