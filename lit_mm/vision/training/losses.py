"""How far a drawn picture is from the true one, and how a term that pulls elsewhere is balanced against that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_mm.frozen import freeze
from lit_mm.mistake import Mistake
from lit_mm.vision.metrics.features import FeatureNetwork

MAX_ADAPTIVE_WEIGHT = 1e4  # RAE, arXiv 2510.11690


@dataclass(frozen=True)
class ReconstructionTerms:
    """Weights of the reconstruction loss. A term of weight 0 is left out, and its network is never made.

    RAE (arXiv 2510.11690) has l1 1 and perceptual 1, Scale-RAE (arXiv 2601.16208) gram 100 besides.

    Args:
        l1: mean absolute error of pixels in [0, 1].
        mse: mean squared error of pixels in [0, 1].
        perceptual: distance in the features of `network`.
        gram: squared distance of the Gram matrices of the features of `network` (style).
        network: `lit_mm.vision.metrics.lpips.Lpips`, or another feature network.
    """

    l1: float = 1.0
    mse: float = 0.0
    perceptual: float = 0.0
    gram: float = 0.0
    network: Callable[[], FeatureNetwork] | None = None


class ReconstructionLoss(nn.Module):
    """The weighted terms of `ReconstructionTerms`.

    Raises:
        Mistake: all weights are 0, or a term needs features and no network is given.
    """

    def __init__(self, terms: ReconstructionTerms) -> None:
        super().__init__()
        if not (terms.l1 or terms.mse or terms.perceptual or terms.gram):
            raise Mistake("model.loss has only weights of 0, so there is nothing to learn: set l1 to 1")
        self.terms = terms
        self.network: FeatureNetwork | None = None
        if terms.perceptual or terms.gram:
            if terms.network is None:
                raise Mistake("model.loss.perceptual and model.loss.gram need model.loss.network: features to compare")
            self.network = freeze(terms.network())

    def forward(self, drawn: Tensor, images: Tensor) -> dict[str, Tensor]:
        """Weighted losses by name, each a scalar; their sum is the reconstruction loss.

        Args:
            drawn: (F, 3, height, width), about [0, 1].
            images: (F, 3, height, width) in [0, 1].
        """
        terms, losses = self.terms, {}
        error = drawn.float() - images
        if terms.l1:
            losses["l1"] = terms.l1 * error.abs().mean()
        if terms.mse:
            losses["mse"] = terms.mse * error.square().mean()
        if self.network is not None:
            with torch.no_grad():
                wanted = self.network(images)
            features = self.network(drawn)
            if terms.perceptual:
                losses[self.network.name] = terms.perceptual * self.network.distance(features, wanted).mean()
            if terms.gram:
                losses[f"{self.network.name}_gram"] = terms.gram * gram_distance(features, wanted).mean()
        return losses


def gram_distance(one: list[Tensor], other: list[Tensor]) -> Tensor:
    """Squared distance (F,) of Gram matrices, summed over layers (Gatys et al.; Scale-RAE, arXiv 2601.16208).

    The matrix of a map (C, h, w) is `f fᵀ / (C h w)` with f its (C, h w) features, as in Johnson et al. (arXiv
    1603.08155, eq. 3); Scale-RAE does not say how it scales its own.
    """
    layers = [(_gram(a) - _gram(b)).square().sum((1, 2)) for a, b in zip(one, other, strict=True)]
    return torch.stack(layers).sum(0)


def _gram(features: Tensor) -> Tensor:
    flat = features.float().flatten(2)
    with torch.autocast(flat.device.type, enabled=False):
        return flat @ flat.transpose(1, 2) / flat[0].numel()


def hinge_loss(true_logits: Tensor, drawn_logits: Tensor) -> Tensor:
    """The discriminator's loss: `(mean max(0, 1 - true) + mean max(0, 1 + drawn)) / 2`."""
    return 0.5 * (F.relu(1 - true_logits.float()).mean() + F.relu(1 + drawn_logits.float()).mean())


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last_layer: nn.Parameter) -> Tensor:
    """What makes both losses pull equally at the decoder's last layer (VQGAN, arXiv 2012.09841, eq. 7).

    `|∇ reconstruction| / (|∇ adversarial| + 1e-6)`, at most 1e4, with gradients by the weight of `last_layer`.
    """
    gradients = [torch.autograd.grad(loss, last_layer, retain_graph=True)[0] for loss in (reconstruction, adversarial)]
    norms = [cast(Tensor, torch.linalg.vector_norm(gradient.float())) for gradient in gradients]
    return (norms[0] / (norms[1] + 1e-6)).clamp(max=MAX_ADAPTIVE_WEIGHT)
