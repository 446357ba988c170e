"""Mean and variance of latents over a data set, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.distributed as dist
from torch import Tensor

from lit_mm.mistake import Mistake
from lit_mm.sequence import PackedBatch


class Moments:
    """Sums of values and of their squares over pictures, for each position and channel.

    Args:
        like: latents (F, ...) whose shape and device the sums take.
    """

    def __init__(self, like: Tensor) -> None:
        self._sums = torch.zeros(2, *like.shape[1:], dtype=torch.float64, device=like.device)
        self._count = torch.zeros((), dtype=torch.float64, device=like.device)

    def add(self, latents: Tensor) -> None:
        """Count latents (F, ...).

        Raises:
            TypeError: they are in half precision.
            Mistake: they are not finite.
        """
        if latents.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"statistics of latents need float32, not {latents.dtype}")
        if not bool(latents.isfinite().all()):
            raise Mistake("the encoder gave latents that are not finite; check its weights and the pictures")
        values = latents.detach().double()
        self._sums += torch.stack([values.sum(0), values.square().sum(0)])
        self._count += len(values)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Mean and variance (…) over the pictures of all ranks, float64; the variance is the population's."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self._sums)
            dist.all_reduce(self._count)
        mean, square = self._sums / self._count
        return mean, (square - mean.square()).clamp(min=0)


def latent_moments(
    encode: Callable[[Tensor], Tensor], batches: Iterable[PackedBatch], pictures: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Mean and variance of the latents of the first pictures of `batches`, with the encoder in float32.

    Args:
        encode: (F, 3, size, size) uint8 to latents (F, ...).
        batches: of this rank.
        pictures: how many to look at on this rank; fewer if there are fewer.
        device: of the encoder.

    Returns:
        Both (...), float64, over all ranks.

    Raises:
        Mistake: there is no picture.
    """
    moments: Moments | None = None
    left = pictures
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        for batch in batches:
            images = batch.frames[:left].to(device)
            if len(images):
                latents = encode(images)
                moments = moments or Moments(latents)
                moments.add(latents)
                left -= len(images)
            if left <= 0:
                break
    if moments is None:
        raise Mistake("statistics of latents were asked for, but the training data holds no picture")
    return moments.compute()
