"""Tensors of three vision transformers of the transformers library under timm's names, and back.

SigLIP and SigLIP 2, DINOv2 with and without registers, and MAE: the encoders that diffusers' `AutoencoderRAE` knows and
that the Hub holds in the format of transformers. Names are those of published weights; transformers 5 uses others in
memory, which are read too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Family = Literal["siglip2", "dinov2", "mae"]  # as `AutoencoderRAE.encoder_type` names them

# Inside a block, in timm's names: where transformers keeps the same weight and bias. Three names make one fused layer.
_ATTENTION = tuple(f"attention.attention.{part}" for part in ("query", "key", "value"))
_BLOCK: dict[Family, dict[str, tuple[str, ...]]] = {
    "siglip2": {
        "norm1": ("layer_norm1",),
        "attn.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "attn.proj": ("self_attn.out_proj",),
        "norm2": ("layer_norm2",),
        "mlp.fc1": ("mlp.fc1",),
        "mlp.fc2": ("mlp.fc2",),
    },
    "dinov2": {
        "norm1": ("norm1",),
        "attn.qkv": _ATTENTION,
        "attn.proj": ("attention.output.dense",),
        "norm2": ("norm2",),
        "mlp.fc1": ("mlp.fc1",),
        "mlp.fc2": ("mlp.fc2",),
    },
    "mae": {
        "norm1": ("layernorm_before",),
        "attn.qkv": _ATTENTION,
        "attn.proj": ("attention.output.dense",),
        "norm2": ("layernorm_after",),
        "mlp.fc1": ("intermediate.dense",),
        "mlp.fc2": ("output.dense",),
    },
}
_LAYERS: dict[Family, str] = {"siglip2": "encoder.layers.", "dinov2": "encoder.layer.", "mae": "encoder.layer."}
_PATCHES: dict[Family, str] = {
    "siglip2": "embeddings.patch_embedding",
    "dinov2": "embeddings.patch_embeddings.projection",
    "mae": "embeddings.patch_embeddings.projection",
}
_POSITIONS: dict[Family, str] = {
    "siglip2": "embeddings.position_embedding.weight",
    "dinov2": "embeddings.position_embeddings",
    "mae": "embeddings.position_embeddings",
}
_LAST_NORM: dict[Family, str] = {"siglip2": "post_layernorm", "dinov2": "layernorm", "mae": "layernorm"}
# The same tensors in a model of transformers 5: (published, in memory), replaced in this order.
_RENAMED: dict[Family, tuple[tuple[str, str], ...]] = {
    "siglip2": (),
    "dinov2": (
        (".attention.attention.query.", ".attention.q_proj."),
        (".attention.attention.key.", ".attention.k_proj."),
        (".attention.attention.value.", ".attention.v_proj."),
        (".attention.output.dense.", ".attention.o_proj."),
    ),
    "mae": (
        ("encoder.layer.", "layers."),
        (".attention.attention.query.", ".attention.q_proj."),
        (".attention.attention.key.", ".attention.k_proj."),
        (".attention.attention.value.", ".attention.v_proj."),
        (".attention.output.dense.", ".attention.o_proj."),
        (".intermediate.dense.", ".mlp.fc1."),
        (".output.dense.", ".mlp.fc2."),
    ),
}
# Parts of the published models that patch tokens do not depend on.
_UNUSED = ("embeddings.mask_token", "embeddings.position_ids", "head.", "pooler.")


def without_prefix(name: str, family: Family) -> str:
    """A name as published, from one with the prefix of a whole model, or from transformers 5."""
    for prefix in ("vision_model.", "vit."):
        name = name.removeprefix(prefix)
    for published, renamed in _RENAMED[family]:
        name = name.replace(renamed, published)
    return name


def in_memory(name: str, family: Family) -> str:
    """A published name as a model of transformers 5 has it."""
    for published, renamed in _RENAMED[family]:
        name = name.replace(published, renamed)
    return name


def to_timm(
    tensors: Mapping[str, Tensor], family: Family, wanted: Mapping[str, Tensor], grid: int
) -> dict[str, Tensor]:
    """Tensors of transformers under timm's names.

    Query, key and value become one tensor; the last norm's weight and bias are left out where `wanted` has none; the
    position table is resized as transformers resizes it; layers of an MLP
    that were widened with zeros lose them again.

    Args:
        tensors: of the vision model, with or without the prefix that a whole model puts before their names.
        family: which model.
        wanted: state dict of the timm model they are for, of which shapes are used.
        grid: side of its grid of patches.

    Returns:
        All that could be converted; whatever is not known keeps its name, so that it can be refused by it.
    """
    left = {without_prefix(name, family): tensor for name, tensor in tensors.items()}
    unused = _UNUSED if "norm.weight" in wanted else (*_UNUSED, f"{_LAST_NORM[family]}.")
    left = {name: tensor for name, tensor in left.items() if not name.startswith(unused)}
    made: dict[str, Tensor] = {}
    for name, parts in _layers(family, wanted):
        if all(part in left for part in parts):
            made[name] = _narrowed(torch.cat([left.pop(part) for part in parts]), name, wanted)
    if _POSITIONS[family] in left:
        made |= _read_positions(left, family, wanted, grid)
    return made | left


def from_timm(tensors: Mapping[str, Tensor], family: Family, side: int) -> dict[str, Tensor]:
    """Timm's tensors under the published names of transformers; the opposite of `to_timm`.

    Args:
        tensors: state dict of a timm model without a head.
        family: which model they become; for DINOv2 with registers.
        side: of the grid that the model of transformers has positions for.

    Raises:
        ValueError: no position table of that grid is resized to the one in `tensors`.
    """
    positions = tensors["pos_embed"].float()
    first = positions[:, :0]
    if family == "mae":
        first, positions = positions[:, :1], positions[:, 1:]
    elif family == "dinov2":
        first = torch.zeros_like(positions[:, :1])
    table = torch.cat([first, enlarged(positions, side, antialias=family == "dinov2")], dim=1)
    made = {_POSITIONS[family]: table[0] if family == "siglip2" else table}
    if family != "siglip2":
        made["embeddings.cls_token"] = tensors["cls_token"]
    if family == "dinov2":
        made["embeddings.mask_token"] = torch.zeros_like(tensors["cls_token"][0])
    for name, parts in _layers(family, tensors):
        made |= dict(zip(parts, tensors[name].chunk(len(parts)), strict=True))
    return made


def _layers(family: Family, timm_tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Timm's name of every tensor but positions and class tokens, and the names in transformers that make it."""
    for kind in ("weight", "bias"):
        yield f"patch_embed.proj.{kind}", (f"{_PATCHES[family]}.{kind}",)
        if f"norm.{kind}" in timm_tensors:
            yield f"norm.{kind}", (f"{_LAST_NORM[family]}.{kind}",)
    if "reg_token" in timm_tensors:
        yield "reg_token", ("embeddings.register_tokens",)
    depth = 1 + max(int(name.split(".")[1]) for name in timm_tensors if name.startswith("blocks."))
    for number in range(depth):
        ours, theirs = f"blocks.{number}.", f"{_LAYERS[family]}{number}."
        for name, parts in _BLOCK[family].items():
            for kind in ("weight", "bias"):
                yield f"{ours}{name}.{kind}", tuple(f"{theirs}{part}.{kind}" for part in parts)
        if family == "dinov2":
            for scale in "12":
                yield f"{ours}ls{scale}.gamma", (f"{theirs}layer_scale{scale}.lambda1",)


def _narrowed(tensor: Tensor, name: str, wanted: Mapping[str, Tensor]) -> Tensor:
    """`tensor` without the zeros that `widened` put behind an MLP's hidden units."""
    if ".mlp." not in name or name not in wanted or name.endswith("fc2.bias"):
        return tensor
    dim = 1 if name.endswith("fc2.weight") else 0
    width = wanted[name].shape[dim]
    if tensor.shape[dim] > width and not bool(tensor.narrow(dim, width, tensor.shape[dim] - width).any()):
        return tensor.narrow(dim, 0, width)
    return tensor


def widened(tensors: Mapping[str, Tensor], width: int) -> dict[str, Tensor]:
    """Timm's tensors with zeros behind every MLP's hidden units, to `width`: it computes the same, as GELU(0) = 0."""
    made = dict(tensors)
    for name, tensor in tensors.items():
        if ".mlp.fc1." in name:
            made[name] = torch.cat([tensor, tensor.new_zeros(width - len(tensor), *tensor.shape[1:])])
        elif name.endswith(".mlp.fc2.weight"):
            made[name] = torch.cat([tensor, tensor.new_zeros(len(tensor), width - tensor.shape[1])], dim=1)
    return made


def _read_positions(
    left: dict[str, Tensor], family: Family, wanted: Mapping[str, Tensor], grid: int
) -> dict[str, Tensor]:
    """Timm's position table, and the class token with its position where that has none of its own in timm."""
    positions = left.pop(_POSITIONS[family]).float()
    if family == "siglip2":
        return {"pos_embed": resized(positions[None], grid, antialias=False)}
    positions, first = positions[:, 1:], positions[:, :1]
    token = left.pop("embeddings.cls_token", None)
    # Only DINOv2 with registers is resized with a low-pass filter, and only there the class token has no position.
    registers = "reg_token" in wanted
    table = resized(positions, grid, antialias=registers)
    made = {"pos_embed": table if registers else torch.cat([first, table], dim=1)}
    if token is not None:
        made["cls_token"] = token + first if registers else token
    return made


def resized(table: Tensor, grid: int, antialias: bool) -> Tensor:
    """A position table (1, G * G, C) for another grid, (1, grid * grid, C), as transformers resizes it."""
    side = round(table.shape[1] ** 0.5)
    if side == grid:
        return table
    square = table.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    square = F.interpolate(square, size=(grid, grid), mode="bicubic", align_corners=False, antialias=antialias)
    return square.permute(0, 2, 3, 1).flatten(1, 2)


def enlarged(table: Tensor, side: int, antialias: bool) -> Tensor:
    """A position table (1, side * side, C) that `resized` turns into `table`.

    Resizing is linear and the same along rows and columns, so the table of least norm that it turns into `table` is
    found with the pseudo-inverse of one row's weights.

    Raises:
        ValueError: there is none, which is the rule for a grid finer than `side`.
    """
    grid = round(table.shape[1] ** 0.5)
    if grid == side:
        return table
    unit = torch.eye(side, dtype=torch.float64)[None, None]
    size = (grid, side)
    weights = F.interpolate(unit, size=size, mode="bicubic", align_corners=False, antialias=antialias)[0, 0]
    inverse = torch.linalg.pinv(weights)
    square = table[0].double().unflatten(0, (grid, grid))
    found = torch.einsum("ai,bj,ijc->abc", inverse, inverse, square).flatten(0, 1)[None].float()
    error = (resized(found, grid, antialias) - table).abs().max()
    if bool(error > 1e-5 * table.abs().max().clamp(min=1)):
        raise ValueError(f"no position table of {side} x {side} patches is resized to this one of {grid} x {grid}")
    return found
