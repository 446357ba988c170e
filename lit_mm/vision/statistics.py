"""Normalisation by fixed means and deviations, in float32 whatever the precision of the network around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lit_mm.mistake import Mistake
from lit_mm.vision.formats.checkpoint import read_tensors

VARIANCE_EPS = 1e-5  # added to a variance before its root is taken (RAE, arXiv 2510.11690)


class Standardisation(nn.Module):
    """`(x - mean) / std` and back.

    Both stay float32 when the module is cast to another precision: rounding them to bfloat16 would shift every value
    by up to 0.4 %.

    Args:
        mean: of any shape that broadcasts against what is standardised.
        std: of the same shape, all above 0.
        persistent: whether they are a part of the state dict.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor, persistent: bool = True) -> None:
        super().__init__()
        self.register_buffer("mean", mean.float(), persistent=persistent)
        self.register_buffer("std", std.float(), persistent=persistent)

    def forward(self, values: Tensor) -> Tensor:
        """Standardised values, float32, or float64 of such."""
        return (_at_least_float32(values) - self.mean) / self.std

    def inverse(self, values: Tensor) -> Tensor:
        """What `forward` standardised, float32, or float64 of such."""
        return _at_least_float32(values) * self.std + self.mean

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Standardisation:
        """Follow to another device, not to another precision."""

        def moved(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            return result if result.dtype == tensor.dtype else tensor.to(result.device)

        super()._apply(moved, recurse)
        return self


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def pixel_statistics(settings: Mapping[str, Any]) -> Standardisation:
    """Of the pixels, in [0, 1], that a network of timm was trained with, by its `pretrained_cfg`.

    They are a part of what the network's name means, so they are not stored with its weights.
    """
    mean, std = (torch.tensor(settings[key]).view(3, 1, 1) for key in ("mean", "std"))
    return Standardisation(mean, std, persistent=False)


class LatentStatistics(Standardisation):
    """Mean and deviation of every channel at every position over a data set (RAE, arXiv 2510.11690, section 3).

    They come on top of the norm over a token's channels, which every encoder ends with. Without any (mean 0, deviation
    1, as at the start) latents are those tokens (Scale-RAE, arXiv 2601.16208).

    Args:
        num_tokens: N.
        channels: C.

    Attributes:
        mean: (N, C) float32.
        std: (N, C) float32, what latents are divided by.
    """

    def __init__(self, num_tokens: int, channels: int) -> None:
        super().__init__(torch.zeros(num_tokens, channels), torch.ones(num_tokens, channels))

    def set(self, mean: Tensor, variance: Tensor) -> None:
        """Take mean and variance of a data set, both (N, C), as `(z - mean) / sqrt(variance + 1e-5)`.

        Raises:
            Mistake: they are of another shape, in half precision, not finite, or a variance is negative.
        """
        self.check({"mean": mean, "variance": variance}, "the statistics of latents")
        self.set_divisor(mean, (variance.double() + VARIANCE_EPS).sqrt())

    def check(self, values: dict[str, Tensor], found_in: str) -> None:
        """Refuse `values` that are no statistics of these latents; see `check_statistics`."""
        check_statistics(values, tuple(self.mean.shape), found_in)

    def set_divisor(self, mean: Tensor, std: Tensor) -> None:
        """Take mean and divisor of latents, both of a shape that broadcasts to (N, C)."""
        self.mean.copy_(mean.expand_as(self.mean))
        self.std.copy_(std.expand_as(self.std))


def check_statistics(values: dict[str, Tensor], shape: tuple[int, ...], found_in: str) -> None:
    """Refuse statistics that would spoil latents; the names of `values` are used in the sentence.

    Raises:
        Mistake: another shape, a half-precision format, NaN or infinity, or a variance or deviation below 0.
    """
    for name, value in values.items():
        if value.dtype not in (torch.float32, torch.float64):
            dtype = str(value.dtype).removeprefix("torch.")
            raise Mistake(
                f"{found_in} holds '{name}' in {dtype}; statistics of latents must be float32, as a rounded one would "
                "shift every latent: compute and store them in float32"
            )
        if tuple(value.shape) != shape:
            raise Mistake(f"{found_in} holds '{name}' of shape {tuple(value.shape)}; this encoder needs {shape}")
        if not bool(value.isfinite().all()):
            raise Mistake(f"{found_in} holds '{name}' with values that are not finite")
        if not name.endswith("mean") and bool((value < 0).any()):
            raise Mistake(f"{found_in} holds '{name}' with values below 0")


def read_statistics(file: Path, channels: int, grid: int) -> tuple[Tensor, Tensor]:
    """Mean and variance (N, C) from a `stat.pt` of the RAE collection: `{"mean": (C, h, w), "var": (C, h, w)}`.

    Args:
        file: what `torch.save` wrote.
        channels: C of the encoder.
        grid: h = w, side of its grid of tokens.

    Raises:
        Mistake: the file cannot be read, a key is missing or not known, or `check_statistics` refuses its content.
    """
    content = read_tensors(file)
    wanted = {"mean", "var"}
    if wrong := content.keys() ^ wanted:
        found = ", ".join(sorted(map(str, content))) or "nothing"
        missing = ", ".join(sorted(wrong & wanted))
        said = f"lacks {missing}" if missing else "has more"
        raise Mistake(f"'{file}' {said}: it holds {found}; statistics of latents are 'mean' and 'var', nothing else")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise Mistake(f"'{file}' holds a {type(value).__name__} as '{name}'; a tensor is expected")
    check_statistics(content, (channels, grid, grid), f"'{file}'")
    return content["mean"].flatten(1).T, content["var"].flatten(1).T
