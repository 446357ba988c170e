"""Pictures in rows, each with its name on top and a sentence below the row."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import interpolate

_TILE = 128  # pixels; smaller pictures are enlarged without smoothing, larger ones stay as they are
_GAP, _LINE = 6, 14


@dataclass(frozen=True)
class SheetRow:
    """`pictures` (n, 3, height, width) uint8 with one `name` each, and a `sentence` for all of them."""

    pictures: Tensor
    names: Sequence[str]
    sentence: str


def contact_sheet(rows: Sequence[SheetRow]) -> Tensor:
    """Lay out rows one below another on white: (3, height, width) uint8."""
    columns = max(len(row.pictures) for row in rows)
    tile = max(_TILE, *(row.pictures.shape[-1] for row in rows))
    width = columns * (tile + _GAP) + _GAP
    wrapped = [textwrap.wrap(row.sentence, max(20, width // 6)) for row in rows]
    heights = [tile + _LINE * (1 + len(lines)) + 2 * _GAP for lines in wrapped]
    sheet = Image.new("RGB", (width, sum(heights)), "white")
    draw = ImageDraw.Draw(sheet)
    top = 0
    for row, lines, height in zip(rows, wrapped, heights, strict=True):
        for i, (picture, name) in enumerate(zip(row.pictures, row.names, strict=True)):
            left = _GAP + i * (tile + _GAP)
            _write(draw, (left, top + _GAP // 2), name, "gray")
            sheet.paste(_enlarged(picture, tile), (left, top + _LINE + _GAP // 2))
        for i, line in enumerate(lines):
            _write(draw, (_GAP, top + _LINE * (1 + i) + tile + _GAP), line, "black")
        top += height
    return torch.from_numpy(np.array(sheet)).permute(2, 0, 1)


@cache
def _font() -> tuple[ImageFont.FreeTypeFont | ImageFont.ImageFont, str]:
    """A font, and what stands between two words in it.

    That of matplotlib, an extra, has Latin, Greek, Cyrillic and more. Pillow's own has Latin letters alone, and spaces
    so narrow at this size that words run together.
    """
    found = find_spec("matplotlib")
    if found is not None and found.origin is not None:
        file = Path(found.origin).with_name("mpl-data") / "fonts/ttf/DejaVuSans.ttf"
        if file.is_file():  # some distributions leave it out
            return ImageFont.truetype(str(file), size=10), " "
    return ImageFont.load_default(size=11), "  "


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, colour: str) -> None:
    font, space = _font()
    draw.text(place, text.replace(" ", space), fill=colour, font=font)


def _enlarged(picture: Tensor, side: int) -> Image.Image:
    resized = interpolate(picture[None].float().cpu(), size=(side, side), mode="nearest")[0]
    return Image.fromarray(resized.to(torch.uint8).permute(1, 2, 0).numpy())
