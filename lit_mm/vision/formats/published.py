"""Decoders as the RAE collection and Scale-RAE publish them: `model.pt`, with or without a `config.json` beside it.

Both hold the state dict of one class, a ViT-MAE decoder whose class token is learned (RAE, arXiv 2510.11690, and
Scale-RAE, arXiv 2601.16208, which calls it with a zero token in front that it drops). diffusers' `RAEDecoder` is the
same network with other names for its attention. Sizes are read off the tensors; only the number of heads is not in
them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lit_mm.mistake import Mistake
from lit_mm.vision.encoder import TimmEncoder
from lit_mm.vision.formats.checkpoint import copy_tensors, read_json, read_tensors
from lit_mm.vision.rae_network import RaeConfig, build_decoder

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_rae import RAEDecoder

PUBLISHED_WEIGHTS = "model.pt"
_WRAPPERS = ("ema", "model", "state_dict")  # what a training checkpoint keeps a state dict under; averages first
_PREFIXES = ("module.", "_orig_mod.")  # of data-parallel and of compiled modules
_RENAMED = (
    (".attention.attention.query.", ".attention.to_q."),
    (".attention.attention.key.", ".attention.to_k."),
    (".attention.attention.value.", ".attention.to_v."),
    (".attention.output.dense.", ".attention.to_out.0."),
)
# Heads of the published decoders by width: ViT-XL, ViT-L and ViT-B of the RAE collection, ViT-XL of Scale-RAE.
_HEADS = {1152: 16, 1024: 16, 768: 12}
# What `RAEDecoder` does where a `config.json` could ask for something else.
_FIXED: dict[str, Any] = {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "qkv_bias": True, "num_channels": 3}


@dataclass(frozen=True)
class _Sizes:
    """What a published decoder's tensors say of it."""

    channels: int
    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int
    num_tokens: int
    patch_size: int


def read_published_decoder(file: Path, config: RaeConfig, encoder: TimmEncoder) -> RAEDecoder:
    """The decoder in a `model.pt`, for the tokens of `encoder`.

    Args:
        file: state dict written by `torch.save`.
        config: of the autoencoder; its decoder's sizes are replaced by the file's.
        encoder: what the decoder is to draw the tokens of.

    Raises:
        Mistake: the file cannot be read, a tensor is missing, unknown, of another shape or not finite, the decoder
            is for other tokens or pictures, or its number of heads is not known.
    """
    tensors = _renamed(_unwrapped(read_tensors(file)))
    sizes = _read_sizes(tensors, file)
    _check_tokens(sizes, config, encoder, file)
    check_last_norm(encoder, file, affine=_draws_affine_tokens(sizes, encoder, file))
    config = replace(
        config,
        decoder_hidden_size=sizes.hidden_size,
        decoder_num_hidden_layers=sizes.num_hidden_layers,
        decoder_intermediate_size=sizes.intermediate_size,
        decoder_num_attention_heads=_read_heads(sizes, file),
    )
    decoder = build_decoder(config, encoder.num_tokens, encoder.channels)
    # These files hold their position table: RAEDecoder computes the same for a grid of 16, but another for others.
    wanted = decoder.state_dict() | {"decoder_pos_embed": decoder.decoder_pos_embed}
    copy_tensors(wanted, tensors, file)
    return decoder


def _unwrapped(content: dict[str, Any]) -> dict[str, Any]:
    """The decoder's state dict inside whatever it was saved in."""
    for wrapper in _WRAPPERS:
        if isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    made = {}
    for name, value in content.items():
        while name.startswith(_PREFIXES):
            name = name.split(".", 1)[1]
        made[name] = value
    if any(name.startswith("decoder.decoder_") for name in made):  # a whole autoencoder
        made = {name.removeprefix("decoder."): v for name, v in made.items() if name.startswith("decoder.")}
    return made


def _renamed(tensors: dict[str, Any]) -> dict[str, Any]:
    made = {}
    for name, value in tensors.items():
        for published, ours in _RENAMED:
            name = name.replace(published, ours)
        made[name] = value
    return made


def _read_sizes(tensors: dict[str, Any], file: Path) -> _Sizes:
    def shape(name: str, dims: int) -> tuple[int, ...]:
        tensor = tensors.get(name)
        if not isinstance(tensor, Tensor):
            raise Mistake(f"'{file}' lacks {name}; it does not hold the decoder of an RAE")
        if tensor.ndim != dims:
            raise Mistake(f"'{file}' holds '{name}' of shape {tuple(tensor.shape)}; {dims} dimensions are expected")
        return tuple(tensor.shape)

    hidden_size, channels = shape("decoder_embed.weight", 2)
    pixels, _ = shape("decoder_pred.weight", 2)
    patch_size = round((pixels / 3) ** 0.5)
    if pixels != 3 * patch_size**2:
        raise Mistake(f"'{file}' draws {pixels} values per token; that is not three channels of a square patch")
    layers = {int(name.split(".")[1]) for name in tensors if name.startswith("decoder_layers.")}
    return _Sizes(
        channels=channels,
        hidden_size=hidden_size,
        num_hidden_layers=1 + max(layers, default=0),
        intermediate_size=shape("decoder_layers.0.intermediate.dense.weight", 2)[0],
        num_tokens=shape("decoder_pos_embed", 3)[1] - 1,
        patch_size=patch_size,
    )


def _check_tokens(sizes: _Sizes, config: RaeConfig, encoder: TimmEncoder, file: Path) -> None:
    if (sizes.num_tokens, sizes.channels) != (encoder.num_tokens, encoder.channels):
        raise Mistake(
            f"'{file}' draws {sizes.num_tokens} tokens of {sizes.channels} channels, but vision.encoder gives "
            f"{encoder.num_tokens} of {encoder.channels}"
        )
    side = sizes.patch_size * round(sizes.num_tokens**0.5)
    if side != config.image_size:
        raise Mistake(
            f"'{file}' draws pictures of {side} pixels, but vision.image_size is {config.image_size}: set it to {side} "
            f"and vision.encoder_input_size to {encoder.input_size}"
        )


def _draws_affine_tokens(sizes: _Sizes, encoder: TimmEncoder, file: Path) -> bool:
    """Whether a published decoder draws what a last norm with weight and bias gives.

    RAE takes both away from every encoder. Scale-RAE does so with SigLIP 2; from DINOv2 and Web-SSL it takes what the
    last norm gives. Its files have a `config.json` beside them and draw at the size that the encoder sees.
    """
    of_scale_rae = (
        file.with_name("config.json").is_file() and sizes.patch_size**2 * sizes.num_tokens == encoder.input_size**2
    )
    names = encoder.vit.state_dict().keys()
    of_dinov2 = "blocks.0.ls1.gamma" in names and "reg_token" not in names
    return of_scale_rae and of_dinov2


def check_last_norm(encoder: TimmEncoder, source: Path, affine: bool) -> None:
    """Refuse a decoder that was trained on tokens of another kind.

    Args:
        encoder: what the decoder is to draw the tokens of.
        source: file or folder of the decoder.
        affine: whether it draws tokens of a last norm with weight and bias.

    Raises:
        Mistake: the encoder's last norm is of the other kind.
    """
    if affine == encoder.norm_affine:
        return
    kinds = ("without weight and bias", "with weight and bias")
    raise Mistake(
        f"'{source}' draws tokens that come from a last norm {kinds[affine]}, but vision.encoder has one "
        f"{kinds[not affine]}: set vision.encoder_norm_affine to {str(affine).lower()}"
    )


def _read_heads(sizes: _Sizes, file: Path) -> int:
    """Heads from the `config.json` beside `file`, which must agree with it; by width if there is none."""
    beside = file.with_name("config.json")
    if not beside.is_file():
        if sizes.hidden_size not in _HEADS:
            raise Mistake(
                f"'{file}' is {sizes.hidden_size} wide, of which the number of heads is not known: put a config.json "
                "with decoder_num_attention_heads beside it"
            )
        return _HEADS[sizes.hidden_size]
    settings = read_json(beside)
    expected = _FIXED | {
        "decoder_hidden_size": sizes.hidden_size,
        "decoder_num_hidden_layers": sizes.num_hidden_layers,
        "decoder_intermediate_size": sizes.intermediate_size,
    }
    for name, value in expected.items():
        if settings.get(name, value) != value:
            raise Mistake(f"'{beside}' says {name} is {settings[name]}, but '{file}' needs {value}")
    heads = settings.get("decoder_num_attention_heads")
    if not isinstance(heads, int) or heads < 1 or sizes.hidden_size % heads:
        raise Mistake(
            f"'{beside}' says decoder_num_attention_heads is {heads}, but it must divide the width {sizes.hidden_size}"
        )
    return heads
