"""LPIPS as a feature network: torchmetrics' learned weights on torchvision's AlexNet or VGG-16."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.error import URLError

import torch
from filelock import FileLock
from torch import Tensor

from lit_mm.frozen import freeze
from lit_mm.mistake import MissingFile
from lit_mm.vision.metrics.features import EfficientNetLite0, FeatureNetwork, unit_length


class Lpips(FeatureNetwork):
    """The learned perceptual distance of Zhang et al. (arXiv 1801.03924), and the feature maps it compares.

    Args:
        net: `vgg` is what RAE, Scale-RAE and VQGAN train with, `alex` what is usually reported.

    Raises:
        MissingFile: the weights of the body cannot be downloaded.
    """

    def __init__(self, net: Literal["alex", "vgg"] = "vgg") -> None:
        super().__init__()
        self.name = f"lpips_{net}"
        self.lpips = _create(net)
        self.channels = tuple(self.lpips.chns)
        freeze(self)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(F, 3, height, width) in [0, 1] to the five feature maps that LPIPS compares."""
        return list(self.lpips.net(self.lpips.scaling_layer(2 * images - 1)))

    def distance(self, one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
        """LPIPS (F,) of two lists of feature maps."""
        layers = []
        for weights, a, b in zip(self.lpips.lins, one, other, strict=True):
            difference = unit_length(a) - unit_length(b)
            layers.append(weights(difference.square()).mean((1, 2, 3)))
        return torch.stack(layers).sum(0)


def _create(net: Literal["alex", "vgg"]) -> Any:
    from torchmetrics.image import LearnedPerceptualImagePatchSimilarity
    from torchvision.models import AlexNet_Weights, VGG16_Weights

    url = {"alex": AlexNet_Weights.DEFAULT.url, "vgg": VGG16_Weights.DEFAULT.url}[net]
    folder, name = Path(torch.hub.get_dir(), "checkpoints"), url.rpartition("/")[2]
    try:
        if (folder / name).is_file():
            return LearnedPerceptualImagePatchSimilarity(net).net
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{name}.lock"):  # one process downloads, the others wait and find it
            return LearnedPerceptualImagePatchSimilarity(net).net
    except (URLError, OSError) as error:
        raise MissingFile(
            f"LPIPS ({net}) needs {name}, which could not be downloaded ({error}): put {url} into "
            f"{folder}, or use {EfficientNetLite0.__module__}.EfficientNetLite0, whose weights are a package"
        ) from error
