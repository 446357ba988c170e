"""Puts what `make play` drew and imagined into one picture: captions with two seeds each, then one row per walk.

python docs/played.py runs/played/version_0/predictions docs/played.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torchvision.io import read_image, write_png

from callbacks.pages.contact_sheet import SheetRow, contact_sheet

SEEDS = 2
WALKS = ("what-if", "what-is-expected", "told")


def main(folder: str, out: str) -> None:
    """Rows of the answers that are pictures or frames, in their order."""
    answers = [json.loads(line) for line in (Path(folder) / "answers.jsonl").read_text().splitlines()]
    drawn: dict[str, list[dict[str, Any]]] = {}
    for answer in answers:
        if answer["wanted"] == "image":
            drawn.setdefault(answer["group"], []).append(answer)
    chosen = [answer for group in drawn.values() for answer in group[:SEEDS]]
    pictures = torch.stack([read_image(f"{folder}/{answer['answer'][0]}") for answer in chosen])
    names = [f"{answer['shown'][0]['text']}, seed {answer['seed']}" for answer in chosen]
    half = len(chosen) // 2 + len(chosen) // 2 % SEEDS
    rows = [SheetRow(pictures[:half], names[:half], ""), SheetRow(pictures[half:], names[half:], "")]
    for answer in answers:
        if answer["group"] in WALKS:
            seen = [part["picture"] for part in answer["shown"][-1:]]
            frames = [name for name in answer["answer"] if name.endswith(".png")]
            steps = ["last seen", *(f"step {i + 1}" for i in range(len(frames)))]
            shown = torch.stack([read_image(f"{folder}/{name}") for name in [*seen, *frames]])
            rows.append(SheetRow(shown, steps, f"{answer['group']}: {answer['actions'][0]}"))
    write_png(contact_sheet(rows), out)


if __name__ == "__main__":
    main(*sys.argv[1:])
