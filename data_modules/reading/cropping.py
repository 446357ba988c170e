"""How pictures of any shape become the squares that a model takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lit_mm.mistake import Mistake


def planes(image: Image.Image) -> Tensor:
    """An RGB picture as (3, height, width) uint8. PIL takes its colours apart three times as fast as a tensor is."""
    pixels = b"".join(image.tobytes("raw", colour) for colour in "RGB")
    return torch.frombuffer(bytearray(pixels), dtype=torch.uint8).view(3, image.height, image.width)


@dataclass(frozen=True)
class RandomCut:
    """A square cut out of a picture at a place that a seed chooses, after its short side was resized.

    Args:
        short_side: to which the short side is resized (bicubic, antialiased), in pixels.
        seed: of the place; several numbers make one seed.
    """

    short_side: int
    seed: tuple[int, ...]

    def resized(self, size: int) -> int:
        """The short side that is needed for a square of `size` pixels, as far as it is known."""
        return self.short_side

    def __call__(self, image: Image.Image, size: int) -> Tensor:
        """An RGB picture to (3, size, size) uint8; `size` is at most `short_side`."""
        width, height = (self.short_side * side // min(image.size) for side in image.size)
        places = np.random.default_rng(self.seed)
        top, left = (int(places.integers(side - size + 1)) for side in (height, width))
        across, down = image.width / width, image.height / height
        # Only what is kept is resized; the filter looks beyond the box, as if all of the picture were.
        box = (left * across, top * down, (left + size) * across, (top + size) * down)
        return planes(image.resize((size, size), Image.Resampling.BICUBIC, box))


@dataclass(frozen=True)
class Squash:
    """A picture, or its centre of one shape, resized to a square whatever its shape is.

    Args:
        aspect: width over height of the centre that is kept; all of the picture by default.
    """

    aspect: float | None = None

    def resized(self, size: int) -> int:
        """See `RandomCut.resized`."""
        return size

    def __call__(self, image: Image.Image, size: int) -> Tensor:
        """An RGB picture to (3, size, size) uint8."""
        width, height = float(image.width), float(image.height)
        if self.aspect is not None:
            width, height = min(width, height * self.aspect), min(height, width / self.aspect)
        left, top = (image.width - width) / 2, (image.height - height) / 2
        box = (left, top, left + width, top + height)
        return planes(image.resize((size, size), Image.Resampling.BICUBIC, box))


Cut = RandomCut | Squash


@dataclass(frozen=True)
class Cropping:
    """How pictures become squares.

    Args:
        rule: `centre` resizes the short side to that of the square and cuts out the centre. `random`, for training
            pictures, resizes the short side to `short_side` and cuts the square out anywhere, at another place each
            time the picture is drawn (RAE, arXiv 2510.11690: 256 pixels out of 384); held-out pictures are cut at
            the centre. `squash` resizes all of the picture to the square, `four_thirds` the centre that is 4 wide and 3
            high (as NWM does, arXiv 2412.03572); both hold for held-out pictures too.
        short_side: in pixels, for `random`.

    Raises:
        Mistake: `short_side` is missing, or is given for another rule.
    """

    rule: Literal["centre", "random", "squash", "four_thirds"] = "centre"
    short_side: int | None = None

    def __post_init__(self) -> None:
        if (self.rule == "random") != (self.short_side is not None):
            found = "missing" if self.short_side is None else self.short_side
            raise Mistake(
                f"crop.short_side is {found} and crop.rule is {self.rule}: random needs a short_side, such as 384 for "
                "pictures of 256 pixels, and the others take none"
            )

    def check(self, key: str, size: int) -> None:
        """Refuse what leaves no square to cut out.

        Args:
            key: the YAML key, for messages.
            size: side of the square in pixels.

        Raises:
            Mistake: the resized picture is smaller.
        """
        if self.short_side is not None and self.short_side < size:
            raise Mistake(
                f"{key}.short_side is {self.short_side}, but must be at least {size}, the side of the pictures that "
                "the model takes"
            )

    def cut(self, *seed: int) -> Cut | None:
        """What cuts one picture; None for the centre."""
        return self.still if self.short_side is None else RandomCut(self.short_side, seed)

    def fixed(self) -> Cropping:
        """The same rule, if it cuts every picture at the same place.

        Raises:
            Mistake: the rule is `random`.
        """
        if self.rule == "random":
            raise Mistake("crop.rule is random, which is for pairs; give centre, squash or four_thirds")
        return self

    @property
    def still(self) -> Squash | None:
        """What cuts a picture without chance, as held-out pictures are cut; None for the centre."""
        return {"squash": Squash(), "four_thirds": Squash(4 / 3)}.get(self.rule)

    @property
    def named(self) -> tuple[str, ...]:
        """What tells pictures apart that are cut without chance; nothing for the centre."""
        return (self.rule,) if self.still else ()

    @property
    def held_out(self) -> Cropping:
        """That of held-out pictures."""
        return CENTRE if self.rule == "random" else self


CENTRE = Cropping()
