"""Any timm vision transformer as an encoder of pictures: its patch tokens after the last norm."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_mm.mistake import MissingFile, Mistake
from lit_mm.vision.formats.pretrained import load_transformers, locate_encoder, read_timm_weights, transformers_model
from lit_mm.vision.statistics import pixel_statistics

NORM_EPS = 1e-6


class TimmEncoder(nn.Module):
    """Patch tokens of a timm ViT, each standardised over its channels.

    Class and register tokens are dropped and the last norm loses its weight and bias, so every token has mean 0 and
    variance 1 (RAE, arXiv 2510.11690; eps 1e-6 as in Scale-RAE, arXiv 2601.16208). With `norm_affine` it keeps them and
    tokens are what it gives, as Scale-RAE has it of DINOv2 and Web-SSL, though not of SigLIP 2. Pictures are resized to
    the encoder's input (bicubic) and normalised with the mean and deviation it was trained with.

    Args:
        name: any timm ViT, for instance `vit_so400m_patch14_siglip_224.v2_webli`.
        input_size: side of the encoder's input, in pixels.
        pretrained: true loads timm's published weights from the Hub; a path loads a file, or a folder as it was
            downloaded, of timm or of transformers (SigLIP, SigLIP 2, DINOv2, Web-SSL, MAE), and `owner/name` what is
            on the Hub under that name; false starts from random weights.
        model_args: further arguments of timm's model (`embed_dim`, `depth`, `num_heads`, `act_layer` …).
        layers: which layers' outputs make a token, -1 is the last; of several, each is normalised, then their mean.
        norm_eps: eps of all norms; by default timm's, and 1e-6 in the last one.
        norm_affine: whether the last norm keeps its weight and bias.

    Attributes:
        num_tokens: patches of a picture.
        channels: width of the encoder.

    Raises:
        Mistake: timm has no such model, it is not a ViT, `input_size` is not a multiple of its patch size, it has
            no such layer, the weights do not fit, or there is no affine to keep.
        MissingFile: the pretrained weights cannot be had.
    """

    def __init__(
        self,
        name: str,
        input_size: int,
        pretrained: bool | str = False,
        model_args: dict[str, Any] | None = None,
        layers: Sequence[int] = (-1,),
        norm_eps: float | None = None,
        norm_affine: bool = False,
    ) -> None:
        super().__init__()
        self.input_size, self.norm_affine = input_size, norm_affine
        self.vit = _create_vit(name, input_size, pretrained, model_args or {}, norm_eps, norm_affine)
        patch = cast(Any, self.vit.patch_embed).patch_size[0]
        if input_size % patch:
            raise Mistake(f"an input of {input_size} pixels is not a multiple of the patch size {patch} of '{name}'")
        self.num_tokens = int(cast(Any, self.vit.patch_embed).num_patches)
        self.channels = int(cast(Any, self.vit).embed_dim)
        self.layers = _layer_indices(name, layers, len(cast(Any, self.vit).blocks))
        if norm_affine and len(self.layers) > 1:
            raise Mistake(
                "vision.encoder_norm_affine is true, but the mean of several vision.encoder_layers is standardised "
                "without weight and bias: set it to false, or name one layer"
            )
        self.pixels = pixel_statistics(cast(Any, self.vit).pretrained_cfg)

    def forward(self, images: Tensor) -> Tensor:
        """(F, 3, height, width) in [0, 1] to (F, num_tokens, channels), what the last norm gives."""
        images = images.float()
        if images.shape[-1] != self.input_size:
            images = F.interpolate(images, size=(self.input_size, self.input_size), mode="bicubic")
        images = self.pixels(images).to(next(self.vit.parameters()).dtype)
        vit = cast(Any, self.vit)
        if self.layers == [len(vit.blocks) - 1]:
            tokens: Tensor = vit.forward_features(images)
            return tokens[:, vit.num_prefix_tokens :]
        of_layers = vit.forward_intermediates(
            images, indices=self.layers, norm=True, stop_early=True, output_fmt="NLC", intermediates_only=True
        )
        if len(of_layers) == 1:
            return cast(Tensor, of_layers[0])
        return F.layer_norm(torch.stack(of_layers).mean(0), (self.channels,), eps=NORM_EPS)

    def to_range(self, images: Tensor) -> Tensor:
        """From the encoder's normalised pixels, which a decoder predicts, back to [0, 1]."""
        return self.pixels.inverse(images)


def _layer_indices(name: str, layers: Sequence[int], depth: int) -> list[int]:
    """Layers counted from the first, in order."""
    wrong = [layer for layer in layers if not -depth <= layer < depth]
    if wrong or not layers:
        found = f"holds {wrong[0]}" if wrong else "is empty"
        raise Mistake(f"vision.encoder_layers {found}, but '{name}' has layers 0 to {depth - 1}, or -{depth} to -1")
    return sorted({layer % depth for layer in layers})


def _check_name(name: str) -> None:
    """Refuse what is no model of timm, or has a tag (behind the dot) that it does not know."""
    import timm

    known = timm.list_models()
    if timm.is_model(name):
        architecture, _, tag = name.partition(".")
        known = timm.list_models(f"{architecture}.*", pretrained=True)
        if not tag or name in known:
            return
    close = ", ".join(difflib.get_close_matches(name, known, cutoff=0.0))
    raise Mistake(f"vision.encoder is '{name}', which timm does not know; close names are {close}")


def _create_vit(
    name: str,
    input_size: int,
    pretrained: bool | str,
    model_args: dict[str, Any],
    norm_eps: float | None,
    norm_affine: bool,
) -> nn.Module:
    """Timm's model without a head, and without affine in its last norm unless that is kept."""
    import timm

    _check_name(name)
    path = locate_encoder(name, pretrained) if pretrained else None
    of_transformers = transformers_model(path) if path is not None else None
    arguments = {"img_size": input_size, **model_args}
    try:
        if not pretrained or of_transformers:
            vit = timm.create_model(name, num_classes=0, **arguments)
        else:
            overlay = dict(arguments.pop("pretrained_cfg_overlay", {}))
            if path is not None:
                overlay["state_dict"] = read_timm_weights(name, path, arguments)
            # With its own number of classes, since timm would otherwise not insist that every weight is in the file.
            vit = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **arguments)
    except TypeError as error:
        raise Mistake(f"vision.encoder '{name}' is not a timm ViT with these encoder_args: {error}") from error
    except RuntimeError as error:
        if not pretrained:
            raise
        reason = " ".join(str(error).split())[:250]
        raise Mistake(f"'{path or pretrained}' does not fit vision.encoder '{name}': {reason}") from error
    except OSError as error:
        reason = " ".join(str(error).split())[:150]
        raise MissingFile(f"the pretrained weights of vision.encoder '{name}' cannot be had: {reason}") from error
    if not all(hasattr(vit, part) for part in ("patch_embed", "norm", "num_prefix_tokens", "blocks")):
        raise Mistake(f"vision.encoder '{name}' is not a vision transformer; only timm ViTs give patch tokens")
    model = cast(Any, vit)
    model.pretrained_cfg.pop("state_dict", None)  # timm keeps a second copy of the weights there
    model.reset_classifier(0, "")
    if not norm_affine:
        model.norm = nn.LayerNorm(model.embed_dim, eps=NORM_EPS, elementwise_affine=False)
    elif getattr(model.norm, "bias", None) is None:
        raise Mistake(
            f"vision.encoder_norm_affine is true, but the last norm of '{name}' has no weight and bias to keep"
        )
    if norm_eps is not None:
        for module in vit.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = norm_eps
    if path is not None and of_transformers is not None:
        load_transformers(vit, path, of_transformers)
    return vit
