"""Puts the pictures that `predict` drew side by side, enlarged, each above its prompt.

python docs/drawings.py runs/tiny/version_1/predictions docs/drawings.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torchvision.io import read_image, write_png

from callbacks.pages.contact_sheet import SheetRow, contact_sheet


def main(folder: str, out: str) -> None:
    """One row of drawn captions, one row per roll-out."""
    answers = [json.loads(line) for line in (Path(folder) / "answers.jsonl").read_text().splitlines()]
    drawn = [a for a in answers if a["wanted"] == "image"]
    pictures = torch.stack([read_image(f"{folder}/{a['answer'][0]}") for a in drawn])
    rows = [SheetRow(pictures, [a["shown"][0]["text"] for a in drawn], "draw: the caption above each picture")]
    for a in answers:
        if a["wanted"] == "frames":
            names = [name for name in a["answer"] if name.endswith(".png")]
            frames = torch.stack([read_image(f"{folder}/{name}") for name in names])
            steps = [f"step {i + 1}" for i in range(len(names))]
            rows.append(SheetRow(frames, steps, f"imagine: {a['name']}, {a['actions'][0]} and on"))
    write_png(contact_sheet(rows), out)


if __name__ == "__main__":
    main(*sys.argv[1:])
