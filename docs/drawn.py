"""Draws the picture at the head of the README with the model that comes with the package, every caption with seed 0.

python docs/drawn.py docs/drawn.png
"""

from __future__ import annotations

import sys

import torch
from torchvision.io import write_png
from torchvision.transforms.functional import InterpolationMode, pil_to_tensor, resize

import lit_mm
from callbacks.pages.contact_sheet import SheetRow, contact_sheet

CAPTIONS = [
    ["red heart", "orange heart", "green heart", "black heart", "smiling face", "grinning face"],
    ["cat face", "grinning cat", "crescent moon", "orange circle", "blue square", "woman"],
]


def main(out: str) -> None:
    """Two rows, smoothly enlarged."""
    model = lit_mm.load("play")
    rows = []
    for captions in CAPTIONS:
        pictures = torch.stack([pil_to_tensor(picture) for picture in model.draw(captions, seed=0)])
        rows.append(SheetRow(resize(pictures, [128, 128], InterpolationMode.BICUBIC), captions, ""))
    write_png(contact_sheet(rows), out)


if __name__ == "__main__":
    main(*sys.argv[1:])
