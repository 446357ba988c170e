"""How close imagined frames are to what is true."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lit_mm.frozen import freeze
from lit_mm.generation.decoding import Decoder
from lit_mm.vision.metrics.features import FeatureNetwork
from lit_mm.vision.metrics.quality import picture_quality

LATENT, PSNR, SSIM = "latent", "psnr", "ssim"
BATCH = 256  # frames that are judged at a time


class Judge:
    """Compares frames in the tokenizer's space, in pixels, and in a network's features.

    Args:
        decoder: whose visual tokenizer is used.
        network: of the perceptual distance.
        name: the network's, which the measure carries.
    """

    def __init__(self, decoder: Decoder, network: FeatureNetwork, name: str) -> None:
        self.decoder, self.network, self.name = decoder, freeze(network).to(decoder.device), name

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of all measures."""
        return LATENT, PSNR, SSIM, self.name

    @torch.no_grad()
    def __call__(self, latents: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """Every measure (F,) of imagined frames.

        `latent` is the mean squared difference of visual tokens; `psnr` (dB) and `ssim` are of pixels; the last one is
        the network's `distance`. For all but the first the imagined frames are decoded; the true ones stay as they are.

        Args:
            latents: (F, N, C), imagined.
            truth: (F, 3, image_size, image_size) uint8.
        """
        parts = [self._compare(a, b) for a, b in zip(latents.split(BATCH), truth.split(BATCH), strict=True)]
        return {name: torch.cat([part[name] for part in parts]) for name in self.measures}

    def _compare(self, latents: Tensor, truth: Tensor) -> dict[str, Tensor]:
        vision = self.decoder.vision
        truth = truth.to(self.decoder.device)
        drawn, true = vision.decode(latents) / 255, truth / 255
        psnr, ssim = picture_quality(drawn, true)
        distance = self.network.distance(self.network(drawn), self.network(true))
        values = {
            LATENT: (latents - vision.encode(truth)).square().mean((1, 2)),
            PSNR: psnr,
            SSIM: ssim,
            self.name: distance,
        }
        return {name: value.float().cpu() for name, value in values.items()}

    def better(self, measure: str, one: Tensor, other: Tensor) -> Tensor:
        """Where `one` is closer to the truth than `other`, in a measure of both; bool."""
        return one > other if measure in (PSNR, SSIM) else one < other


def action_fidelity(
    distances: Tensor, differ: Callable[[int, int, int], bool], classes: Sequence[Sequence[int]]
) -> list[tuple[int, int]]:
    """How often the frame imagined under the true action is closer to the truth than under another.

    Args:
        distances: (cases, K, K), from what was imagined under key i to the truth under key j, smaller being closer.
        differ: whether keys i and j lead to different frames in a case; pairs that do not cannot be told apart by
            anything that is imagined, and are left out.
        classes: keys of which the truth is taken, for each class; the other key may be any.

    Returns:
        Pairs told apart and pairs compared, for each class.
    """
    counts = []
    for keys in classes:
        right = total = 0
        for case in range(len(distances)):
            for truth in keys:
                for other in range(distances.shape[1]):
                    if other != truth and differ(case, truth, other):
                        right += int(distances[case, truth, truth] < distances[case, other, truth])
                        total += 1
        counts.append((right, total))
    return counts
