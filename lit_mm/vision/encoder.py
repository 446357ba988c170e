"""Any timm vision transformer as an encoder of pictures: its patch tokens after a last norm without affine."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORM_EPS = 1e-6


class TimmEncoder(nn.Module):
    """Patch tokens of a timm ViT, each standardised over its channels.

    Class and register tokens are dropped and the last norm loses its weight and bias, so every token has mean 0 and
    variance 1 (RAE, arXiv 2510.11690; eps 1e-6 as in Scale-RAE, arXiv 2601.16208). Pictures are resized to the
    encoder's input (bicubic) and normalised with the mean and deviation it was trained with.

    Args:
        name: any timm ViT, for instance `vit_so400m_patch14_siglip_224.v2_webli`.
        input_size: side of the encoder's input, in pixels.
        pretrained: true loads the published weights from the Hub, a path loads them from a file, false starts from
            random weights.
        model_args: further arguments of timm's model (`embed_dim`, `depth`, `num_heads` …).

    Attributes:
        num_tokens: patches of a picture.
        channels: width of the encoder.

    Raises:
        ValueError: timm has no such model, it is not a ViT, or `input_size` is not a multiple of its patch size.
        FileNotFoundError: the pretrained weights cannot be had.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        input_size: int,
        pretrained: bool | str = False,
        model_args: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.vit = _create_vit(name, input_size, pretrained, model_args or {})
        patch = cast(Any, self.vit.patch_embed).patch_size[0]
        if input_size % patch:
            raise ValueError(f"an input of {input_size} pixels is not a multiple of the patch size {patch} of '{name}'")
        self.num_tokens = int(cast(Any, self.vit.patch_embed).num_patches)
        self.channels = int(cast(Any, self.vit).embed_dim)
        self.vit.norm = nn.LayerNorm(self.channels, eps=NORM_EPS, elementwise_affine=False)
        # The mean and deviation are part of what the name means: they are not stored with the weights.
        normalisation = cast(Any, self.vit).pretrained_cfg
        self.register_buffer("mean", torch.tensor(normalisation["mean"]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(normalisation["std"]).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(F, 3, height, width) in [0, 1] to (F, num_tokens, channels) of zero mean and unit variance per token."""
        if images.shape[-1] != self.input_size:
            images = F.interpolate(images, size=(self.input_size, self.input_size), mode="bicubic")
        images = (images - self.mean) / self.std
        tokens: Tensor = cast(Any, self.vit).forward_features(images)
        return tokens[:, cast(int, self.vit.num_prefix_tokens) :]

    def to_range(self, images: Tensor) -> Tensor:
        """From the encoder's normalised pixels, which a decoder predicts, back to [0, 1]."""
        return images * self.std + self.mean


def _create_vit(name: str, input_size: int, pretrained: bool | str, model_args: dict[str, Any]) -> nn.Module:
    import timm

    if not timm.is_model(name):
        close = ", ".join(difflib.get_close_matches(name, timm.list_models(), cutoff=0.0))
        raise ValueError(f"vision.encoder is '{name}', which timm does not know; close names are {close}")
    arguments = {"num_classes": 0, "img_size": input_size, **model_args}
    if isinstance(pretrained, str):
        if not Path(pretrained).is_file():
            raise FileNotFoundError(f"vision.pretrained is '{pretrained}', but there is no such file")
        arguments["pretrained_cfg_overlay"] = {"file": pretrained}
    try:
        vit = timm.create_model(name, pretrained=bool(pretrained), **arguments)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise FileNotFoundError(
            f"the pretrained weights of vision.encoder '{name}' could not be loaded ({reason}); download them on a "
            "connected machine and give their path as vision.pretrained, or set it to false for random weights"
        ) from error
    except TypeError as error:
        raise ValueError(f"vision.encoder '{name}' is not a timm ViT with these encoder_args: {error}") from error
    if not (hasattr(vit, "patch_embed") and hasattr(vit, "norm") and hasattr(vit, "num_prefix_tokens")):
        raise ValueError(f"vision.encoder '{name}' is not a vision transformer; only timm ViTs give patch tokens")
    # Pooling goes after loading: without it timm would not insist that every weight is in the file.
    cast(Any, vit).reset_classifier(0, "")  # type: ignore[operator]
    return vit
