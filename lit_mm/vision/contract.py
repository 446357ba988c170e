"""What a visual tokenizer says of itself, compared with what it gives.

By shapes and types alone, so that nothing waits for the device.
"""

from __future__ import annotations

from numbers import Integral
from typing import Protocol

import torch
from torch import Tensor

from lit_mm.mistake import Mistake, name_of


class Sized(Protocol):
    """The sizes of a `VisualTokenizer`."""

    image_size: int
    num_tokens: int
    channels: int
    read_channels: int | None


def check_sizes(tokenizer: Sized) -> None:
    """Refuse a tokenizer that does not say how large its pictures and its tokens are.

    Raises:
        Mistake: `image_size`, `num_tokens` or `channels` is missing or no positive whole number.
    """
    for attribute in ("image_size", "num_tokens", "channels"):
        size = getattr(tokenizer, attribute, None)
        if not isinstance(size, Integral) or isinstance(size, bool) or size < 1:
            raise Mistake(
                f"{name_of(tokenizer)}.{attribute} is {'missing' if size is None else repr(size)}; its constructor has "
                "to set it to a positive whole number"
            )


def check_result(tokenizer: Sized, method: str, found: object, given: Tensor) -> None:
    """Refuse what a tokenizer's method returned.

    Args:
        tokenizer: whose method it is.
        method: `encode`, `decode` or `read`.
        found: what it returned.
        given: what it was called with, one frame in each row.

    Raises:
        Mistake: `found` is no tensor of the shape and type that `VisualTokenizer` names.
    """
    frames, side, channels = len(given), tokenizer.image_size, tokenizer.channels
    if method == "read" and tokenizer.read_channels is not None:
        channels = tokenizer.read_channels
    expected = (frames, 3, side, side) if method == "decode" else (frames, tokenizer.num_tokens, channels)
    kind = "uint8" if method == "decode" else "floating-point"
    if isinstance(found, Tensor):
        fits = found.dtype == torch.uint8 if method == "decode" else found.is_floating_point()
        if fits and found.shape == expected:
            return
        what = f"{str(found.dtype).removeprefix('torch.')} of shape {tuple(found.shape)}"
    else:
        what = type(found).__name__
    raise Mistake(f"{name_of(tokenizer)}.{method} returned {what}, expected {kind} of shape {expected}")


def check_fingerprint(tokenizer: object, found: object) -> str:
    """A fingerprint, if it is one.

    Raises:
        Mistake: it is no text.
    """
    if not isinstance(found, str) or not found:
        raise Mistake(f"{name_of(tokenizer)}.fingerprint returned {found!r}, expected a text that is not empty")
    return found
