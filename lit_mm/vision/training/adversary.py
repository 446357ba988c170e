"""The adversarial term: small heads on frozen features learn to tell drawn pictures from true ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from lit_mm.frozen import freeze
from lit_mm.mistake import Mistake
from lit_mm.vision.metrics.features import FeatureNetwork
from lit_mm.vision.training.diff_augment import diff_augment
from lit_mm.vision.training.losses import hinge_loss


@dataclass(frozen=True)
class AdversarialTerm:
    """Settings of the adversarial term. With weight 0 there is no discriminator at all.

    RAE (arXiv 2510.11690) has weight 0.75 and DINO ViT-S/8; its discriminator starts to learn after 6 of 16 epochs and
    is listened to after 8. Scale-RAE (arXiv 2601.16208) has weight 10 and DINO ViT-S/16.

    Args:
        weight: of the term, on top of the adaptive weight.
        network: frozen features the discriminator looks at.
        discriminator_start: optimizer step at which the discriminator starts to learn.
        adversarial_start: optimizer step at which the decoder starts to listen to it.
        learning_rate: of the discriminator (AdamW, betas 0.9 and 0.95, no decay), with the decoder's kind of schedule.
    """

    weight: float = 0.0
    network: Callable[[], FeatureNetwork] | None = None
    discriminator_start: int = 0
    adversarial_start: int = 0
    learning_rate: float = 2e-4


class Discriminator(nn.Module):
    """One small convolutional head on every layer of a frozen network; only the heads learn.

    After VAR's and StyleGAN-T's (arXiv 2301.09515, section 3.2): spectral normalisation, a residual 3x3 convolution,
    a score at every position. Groups are normalised within a picture, so a score depends on no other picture.
    """

    def __init__(self, network: FeatureNetwork) -> None:
        super().__init__()
        self.network = freeze(network)
        self.heads = nn.ModuleList(_Head(channels) for channels in network.channels)

    def forward(self, images: Tensor) -> Tensor:
        """(F, 3, height, width) in [0, 1] to (F, scores): the scores of all positions of all layers."""
        maps = self.network(images)
        return torch.cat([head(features) for head, features in zip(self.heads, maps, strict=True)], dim=1)


class Adversary(nn.Module):
    """A discriminator, and the two losses it is part of.

    Raises:
        Mistake: there is no network for the features.
    """

    def __init__(self, term: AdversarialTerm) -> None:
        super().__init__()
        if term.network is None:
            raise Mistake("model.adversarial.weight is not 0, but model.adversarial.network is missing")
        if term.adversarial_start < term.discriminator_start:
            raise Mistake(
                f"model.adversarial.adversarial_start is {term.adversarial_start}, before the discriminator starts to "
                f"learn at {term.discriminator_start}"
            )
        self.term = term
        self.discriminator = Discriminator(term.network())

    def decoder_loss(self, drawn: Tensor, generator: torch.Generator) -> Tensor:
        """What the decoder minimises: minus the mean score of augmented drawn pictures (F, 3, height, width)."""
        # Its heads do not learn from this, nor do their power iterations advance.
        self.discriminator.heads.requires_grad_(False).eval()
        loss = -self.discriminator(diff_augment(drawn, generator)).float().mean()
        self.discriminator.heads.requires_grad_(True).train()
        return loss

    def discriminator_loss(self, drawn: Tensor, images: Tensor, generator: torch.Generator) -> Tensor:
        """Hinge loss on augmented pictures (F, 3, height, width); drawn ones are rounded to 8 bits as true ones are."""
        rounded = (drawn.detach().float().clamp(0, 1) * 255).round() / 255
        both = torch.cat([diff_augment(images, generator), diff_augment(rounded, generator)])
        true_logits, drawn_logits = self.discriminator(both).chunk(2)
        return hinge_loss(true_logits, drawn_logits)

    def loss_without_pictures(self) -> Tensor:
        """Zero, through all heads, whose power iterations advance as if there were pictures."""
        heads = self.discriminator.heads
        weights = [module.weight for module in heads.modules() if isinstance(module, nn.Conv2d)]
        return zero_loss([*weights, *heads.parameters()])


def zero_loss(tensors: Iterable[Tensor]) -> Tensor:
    """A loss of zero that has a gradient, also zero, by each of the tensors."""
    return torch.stack([tensor.float().sum() for tensor in tensors]).sum() * 0


class _Head(nn.Module):
    """(F, channels, h, w) to scores (F, h w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = _block(channels, kernel_size=1)
        self.mix = _block(channels, kernel_size=3)
        self.score = spectral_norm(nn.Conv2d(channels, 1, kernel_size=1))

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.enter(features)
        hidden = (hidden + self.mix(hidden)) / math.sqrt(2)
        return self.score(hidden).flatten(1)


def _block(channels: int, kernel_size: int) -> nn.Sequential:
    return nn.Sequential(
        spectral_norm(nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2)),
        nn.GroupNorm(math.gcd(8, channels), channels),
        nn.LeakyReLU(0.2),
    )
