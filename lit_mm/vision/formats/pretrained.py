"""Where an encoder's published weights come from: the Hub, a file, or a folder as it was downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_mm.hub import NotFromHub, from_hub, is_repository
from lit_mm.mistake import MissingFile, Mistake, from_extra
from lit_mm.vision.formats.checkpoint import copy_tensors, find_weights, read_json, read_tensors
from lit_mm.vision.formats.transformers_names import Family, to_timm

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")

# Of a config.json of transformers: `model_type`, and what its vision model is.
_FAMILIES: dict[str, Family] = {
    "siglip": "siglip2",
    "siglip_vision_model": "siglip2",
    "dinov2": "dinov2",
    "dinov2_with_registers": "dinov2",
    "vit_mae": "mae",
}
_HEADS = ("head.", "fc_norm.", "attn_pool.")  # what timm's ViTs have behind their tokens


def locate(name: str, pretrained: bool | str) -> Path | None:
    """File or folder with the weights that `vision.pretrained` asks for; None if timm itself must download them.

    Raises:
        MissingFile: the path does not exist; or the weights are not on this machine and cannot be downloaded.
        Mistake: no weights of that name were published.
    """
    if isinstance(pretrained, str):
        path = Path(pretrained)
        if not path.exists():
            raise MissingFile(f"vision.pretrained is '{pretrained}', but there is no such file or folder")
        return path
    import timm

    published = timm.models.get_pretrained_cfg(name)
    if published is None or not (published.hf_hub_id or published.url):
        raise Mistake(
            f"vision.pretrained is true, but no weights of '{name}' were published; "
            "false starts from random weights, a path reads a file"
        )
    if not published.hf_hub_id:
        return None
    names = (published.hf_hub_filename,) if published.hf_hub_filename else WEIGHT_FILES
    try:
        return from_hub(published.hf_hub_id, (names,))[0]
    except NotFromHub as error:
        raise MissingFile(
            f"the pretrained weights of vision.encoder '{name}' are not on this machine and the Hub gives none "
            f"({error}): run 'hf download {published.hf_hub_id} --local-dir weights/{name}' on a connected machine, "
            "copy that folder here and set vision.pretrained to its path; only an explicit false starts from random "
            "weights"
        ) from error


def locate_encoder(name: str, pretrained: bool | str) -> Path | None:
    """As `locate`; a string may also name a repository of the Hub, in the format of timm or of transformers.

    Raises:
        MissingFile, Mistake: as `locate`.
    """
    if not isinstance(pretrained, str) or Path(pretrained).exists() or not is_repository(pretrained):
        return locate(name, pretrained)
    try:
        return from_hub(pretrained, (("config.json",), WEIGHT_FILES))[0].parent
    except NotFromHub as error:
        folder = f"weights/{pretrained.rpartition('/')[2]}"
        raise MissingFile(
            f"vision.pretrained is '{pretrained}', but there is no such file or folder, and the Hub gives none "
            f"({error}): run 'hf download {pretrained} --local-dir {folder}' on a connected machine, copy that folder "
            "here and set vision.pretrained to its path; only an explicit false starts from random weights"
        ) from error


def transformers_model(path: Path) -> str | None:
    """`model_type` of a folder in the format of transformers; None if it is a file, or a folder of another kind.

    Raises:
        Mistake: it is of transformers, but not an encoder that can be read.
    """
    if not (path / "config.json").is_file():
        return None
    kind = read_json(path / "config.json").get("model_type")
    if kind is not None and kind not in _FAMILIES:
        known = ", ".join(sorted(_FAMILIES))
        raise Mistake(f"'{path / 'config.json'}' is of model_type '{kind}'; encoders that can be read are {known}")
    return kind


def read_timm_weights(name: str, path: Path, arguments: dict[str, Any]) -> dict[str, Tensor]:
    """State dict for `timm.create_model(name, **arguments)` from a file or a folder that holds timm's names.

    Heads are never used: those that are missing or of another size are filled in and those that are too many are left
    out, so that timm can insist on all other weights.

    Raises:
        MissingFile: the folder holds no weights.
        Mistake: the file cannot be read, holds values that are not finite, or the folder is of another model.
    """
    import timm

    if path.is_dir():
        if (path / "config.json").is_file():
            architecture = read_json(path / "config.json").get("architecture")
            if architecture is not None and architecture != name.split(".")[0]:
                raise Mistake(f"'{path}' holds weights of '{architecture}', but vision.encoder is '{name}'")
        files = find_weights(path, WEIGHT_FILES)
    else:
        files = [path]
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            tensors |= timm.models.load_state_dict(str(file))
        except Exception as error:  # torch raises what unpickling raises: anything
            raise Mistake(f"'{file}' cannot be read as weights ({' '.join(str(error).split())[:150]})") from error
        for key, tensor in tensors.items():
            if isinstance(tensor, Tensor) and not bool(tensor.isfinite().all()):
                raise Mistake(f"'{file}' holds '{key}' with values that are not finite")
    skeleton = cast(Any, timm.create_model(name, **{**arguments, "depth": 1}))  # for its heads: one layer will do
    whole = skeleton.state_dict()
    skeleton.reset_classifier(0, "")
    heads = whole.keys() - skeleton.state_dict().keys()
    kept = {k: v for k, v in tensors.items() if k in whole or not k.startswith(_HEADS)}
    fitting = {k for k in heads & kept.keys() if kept[k].shape == whole[k].shape}
    return kept | {key: torch.zeros_like(whole[key]) for key in heads - fitting}


def load_transformers(vit: nn.Module, folder: Path, kind: str) -> None:
    """Fill a timm ViT without heads from a folder of transformers; its last norm may have an affine or none.

    Raises:
        MissingFile: the folder holds no weights.
        Mistake: the timm model computes something else than the folder's, a tensor does not fit, or transformers is
            not installed.
    """
    with from_extra("formats", f"vision.pretrained '{folder}', an encoder in the format of transformers,"):
        from transformers import AutoConfig

    model = cast(Any, vit)
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    config = getattr(config, "vision_config", config)
    block = model.blocks[0]
    for setting, found, wanted in (
        ("encoder_args.num_heads", block.attn.num_heads, config.num_attention_heads),
        ("encoder_args.act_layer", activation(block.mlp.act), _ACTIVATIONS.get(config.hidden_act, config.hidden_act)),
        ("encoder_norm_eps", block.norm1.eps, config.layer_norm_eps),
    ):
        if found != wanted:
            raise Mistake(f"'{folder}' was trained with {wanted}, but the encoder has {found}: set vision.{setting}")
    family = _FAMILIES[kind]
    tensors: dict[str, Tensor] = {}
    files = find_weights(folder, WEIGHT_FILES)
    for file in files:
        tensors |= read_tensors(file, ("vision_model.",) if kind == "siglip" else ("",))
    if any(name.startswith("vit.") for name in tensors):  # MAE with the decoder it was trained with
        tensors = {name: tensor for name, tensor in tensors.items() if name.startswith("vit.")}
    wanted_tensors = vit.state_dict()
    converted = to_timm(tensors, family, wanted_tensors, model.patch_embed.grid_size[0])
    copy_tensors(wanted_tensors, converted, files[0])


_ACTIVATIONS = {"gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh"}  # transformers' name to timm's


def activation(module: nn.Module) -> str:
    """Timm's name of a GELU, exact or by tanh, found by what it computes; its class's name if it is neither."""
    values = torch.linspace(-4, 4, 33)
    for name, approximate in (("gelu", "none"), ("gelu_tanh", "tanh")):
        if torch.allclose(module(values), F.gelu(values, approximate=approximate), atol=1e-7, rtol=0):
            return name
    return type(module).__name__
