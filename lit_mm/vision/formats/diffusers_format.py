"""An autoencoder in the format of diffusers' `AutoencoderRAE`, read with its encoder.

`AutoencoderRAE` builds its encoder from three numbers and fixes the rest: heads of 64 channels, MLPs of 3072 units
(SigLIP 2, MAE) or four times the width (DINOv2), a position table for 256, 518 or 224 pixels that is resized to the
picture, one GELU and one eps per family.

Latents are `(z - mean) / (std + 1e-5) * scaling_factor` there, and `(z - mean) / std` here: one is turned into the
other, in float64.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from lit_mm.mistake import Mistake
from lit_mm.vision.formats.checkpoint import copy_tensors, find_weights, named, read_json, read_tensors
from lit_mm.vision.formats.transformers_names import Family, to_timm
from lit_mm.vision.rae_network import RaeConfig, RaeNetwork
from lit_mm.vision.statistics import LatentStatistics, check_statistics

DIFFUSERS_WEIGHTS = "diffusion_pytorch_model.safetensors"
STD_EPS = 1e-5  # what AutoencoderRAE adds to a deviation
CLASS_NAME = "AutoencoderRAE"
HEAD_CHANNELS = 64
MLP_UNITS = 3072
GRID_PIXELS: dict[Family, int] = {"siglip2": 256, "dinov2": 518, "mae": 224}  # its position table is for such pictures
_NAMES: dict[Family, str] = {
    "siglip2": "vit_base_patch16_siglip_256.v2_webli",
    "dinov2": "vit_base_patch14_reg4_dinov2.lvd142m",
    "mae": "vit_base_patch16_224.mae",
}
ACTIVATIONS: dict[Family, str] = {"siglip2": "gelu_tanh", "dinov2": "gelu", "mae": "gelu"}
NORM_EPS: dict[Family, float] = {"siglip2": 1e-6, "dinov2": 1e-6, "mae": 1e-12}


def is_diffusers(settings: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is one of diffusers' `AutoencoderRAE`."""
    return settings.get("_class_name") == CLASS_NAME


def read_settings(file: Path) -> dict[str, Any]:
    """Arguments of `AutoencoderRAE` from its `config.json`, with its defaults for those that are not there.

    Raises:
        Mistake: an argument is not known, or no autoencoder can have it.
    """
    from diffusers import AutoencoderRAE

    parameters = inspect.signature(AutoencoderRAE.__init__).parameters
    defaults = {name: p.default for name, p in parameters.items() if p.default is not inspect.Parameter.empty}
    given = {name: value for name, value in read_json(file).items() if not name.startswith("_")}
    if unknown := given.keys() - defaults.keys():
        raise Mistake(f"'{file}' {named(set(), unknown)}, which this version of diffusers does not know")
    settings = defaults | given
    if settings["encoder_type"] not in _NAMES:
        raise Mistake(f"'{file}' says encoder_type is '{settings['encoder_type']}'; known are {', '.join(_NAMES)}")
    if settings["num_channels"] != 3:
        raise Mistake(f"'{file}' says num_channels is {settings['num_channels']}; pictures have 3")
    settings["encoder_norm_mean"] = settings["encoder_norm_mean"] or [0.485, 0.456, 0.406]
    settings["encoder_norm_std"] = settings["encoder_norm_std"] or [0.229, 0.224, 0.225]
    return settings


def describe(settings: Mapping[str, Any]) -> RaeConfig:
    """The autoencoder that arguments of `AutoencoderRAE` build, its encoder as a model of timm."""
    import timm

    family = cast(Family, settings["encoder_type"])
    width, patch = settings["encoder_hidden_size"], settings["encoder_patch_size"]
    arguments: dict[str, Any] = {
        "patch_size": patch,
        "embed_dim": width,
        "depth": settings["encoder_num_hidden_layers"],
        "num_heads": width // HEAD_CHANNELS,
    }
    if family != "dinov2":
        ratio = MLP_UNITS / width
        arguments["mlp_ratio"] = ratio if int(width * ratio) == MLP_UNITS else math.nextafter(ratio, math.inf)
    if family == "siglip2":
        arguments["act_layer"] = ACTIVATIONS[family]
    published = cast(Any, timm.models.get_pretrained_cfg(_NAMES[family]))
    pixels = {"mean": list(settings["encoder_norm_mean"]), "std": list(settings["encoder_norm_std"])}
    if pixels != {"mean": list(published.mean), "std": list(published.std)}:
        arguments["pretrained_cfg_overlay"] = pixels
    size = settings["encoder_input_size"]
    image_size = settings["patch_size"] * (size // patch)
    return RaeConfig(
        encoder=_NAMES[family],
        image_size=image_size,
        encoder_input_size=None if size == image_size else size,
        encoder_args=arguments,
        encoder_norm_eps=NORM_EPS[family] if family == "mae" else None,
        **{name: value for name, value in settings.items() if name.startswith("decoder_")},
    )


def read_diffusers(folder: Path, config: RaeConfig | None = None) -> RaeNetwork:
    """The whole autoencoder of a folder that `AutoencoderRAE.save_pretrained` or `write_diffusers` wrote.

    Args:
        folder: with `config.json` and `diffusion_pytorch_model.safetensors`, which may be in shards.
        config: the autoencoder as it was before `write_diffusers` widened its encoder; by default as diffusers has it.

    Raises:
        MissingFile: a file is missing.
        Mistake: a setting or a tensor is missing, unknown, of another shape, or not finite.
    """
    settings = read_settings(folder / "config.json")
    tensors, file = read_diffusers_tensors(folder)
    network = RaeNetwork(config or describe(settings))
    own = {name: tensors.pop(f"{name}", None) for name in ("encoder_mean", "encoder_std")}
    _check_pixels(own, settings, file)
    read_diffusers_statistics(settings, tensors, network.statistics, file)
    vit = network.encoder.vit.state_dict()
    encoder = {n.removeprefix("encoder."): tensors.pop(n) for n in list(tensors) if n.startswith("encoder.")}
    grid = cast(Any, network.encoder.vit.patch_embed).grid_size[0]
    encoder = to_timm(encoder, cast(Family, settings["encoder_type"]), vit, grid)
    wanted = {f"encoder.{name}": tensor for name, tensor in vit.items()}
    wanted |= {f"decoder.{name}": tensor for name, tensor in network.decoder.state_dict().items()}
    copy_tensors(wanted, {f"encoder.{name}": t for name, t in encoder.items()} | tensors, file)
    return network


def read_diffusers_tensors(folder: Path, prefixes: tuple[str, ...] = ("",)) -> tuple[dict[str, Tensor], Path]:
    """Tensors of the folder whose names start with one of `prefixes`, and the file they are from."""
    files = find_weights(folder, (DIFFUSERS_WEIGHTS,))
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= read_tensors(file, prefixes)
    tensors.pop("decoder.decoder_pos_embed", None)  # older files hold it; diffusers computes it
    return tensors, files[0]


def _check_pixels(tensors: Mapping[str, Tensor | None], settings: Mapping[str, Any], file: Path) -> None:
    """The pixels' mean and deviation are stored twice; they must be the same."""
    for name, tensor in tensors.items():
        if tensor is None:
            raise Mistake(f"'{file}' lacks {name}")
        values = settings[name.replace("encoder_", "encoder_norm_")]
        if not torch.equal(tensor.flatten(), torch.tensor(values).to(tensor.dtype)):
            found = [round(value, 4) for value in tensor.flatten().tolist()]
            raise Mistake(f"'{file}' holds '{name}' of {found}, but config.json says {values}")


def read_diffusers_statistics(
    settings: Mapping[str, Any], tensors: dict[str, Tensor], statistics: LatentStatistics, file: Path
) -> None:
    """Set `statistics` from `_latents_mean` and `_latents_std`, which are taken out of `tensors`.

    Raises:
        Mistake: one is missing, in half precision, not finite, or of another shape than `config.json` has it.
    """
    found: dict[str, Tensor] = {}
    num_tokens, channels = statistics.mean.shape
    grid = round(num_tokens**0.5)
    for name in ("_latents_mean", "_latents_std"):
        if name not in tensors:
            raise Mistake(f"'{file}' lacks {name}, without which its latents cannot be normalised")
        declared = settings[name[1:]]
        shape = (1,) if declared is None else tuple(torch.tensor(declared).shape)
        check_statistics({name: tensors[name]}, shape, f"'{file}'")
        found[name] = _as_tokens(tensors.pop(name).double(), settings["reshape_to_2d"], channels, grid, name, file)
    if (settings["latents_mean"] is None) != (settings["latents_std"] is None):
        missing = "latents_mean" if settings["latents_mean"] is None else "latents_std"
        raise Mistake(f"'{file.with_name('config.json')}' lacks {missing}; mean and deviation are given together")
    std = (found["_latents_std"] + STD_EPS) / settings["scaling_factor"]
    statistics.set_divisor(found["_latents_mean"], std)


def _as_tokens(value: Tensor, in_2d: bool, channels: int, grid: int, name: str, file: Path) -> Tensor:
    """Statistics as diffusers broadcasts them, to a shape that broadcasts to (tokens, channels)."""
    latents = (channels, grid, grid) if in_2d else (grid * grid, channels)
    try:
        value = value.expand(latents)
    except RuntimeError as error:
        raise Mistake(f"'{file}' holds '{name}' of shape {tuple(value.shape)}; latents are {latents}") from error
    return value.flatten(1).T if in_2d else value
