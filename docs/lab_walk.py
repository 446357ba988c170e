"""Makes a GIF of a walk that the laboratory's model imagined, beside what truly came.

lit-mm predict --ckpt_path lab --data.prompts configs/prompts/lab.yaml --trainer.logger.name played
python docs/lab_walk.py runs/played/version_0/predictions docs/lab.gif
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from PIL import Image
from torchvision.io import read_image

from callbacks.pages.contact_sheet import SheetRow, contact_sheet
from callbacks.pages.prediction_writer import read_records

WALK, SIDE, PAUSE = "walk", 256, 700  # name of the prompt; pixels; milliseconds for each step


def main(folder: str, out: str) -> None:
    """The truth on the left, what was imagined on the right; below it what the player is told."""
    (walk,) = [record for record in read_records(Path(folder)) if record["name"] == WALK]
    seen = walk["shown"][-1]["picture"]
    truth = [seen, *(part["picture"] for part in walk["truth"])]
    imagined = [seen, *walk["answer"][:-1]]
    told = ["seen", *_keys(walk["settings"]["actions"])]
    frames = []
    for step, (true, own) in enumerate(zip(truth, imagined, strict=True)):
        pair = torch.stack([read_image(f"{folder}/{name}")[:3] for name in (true, own)])
        larger = pair.repeat_interleave(SIDE // pair.shape[-1], -1).repeat_interleave(SIDE // pair.shape[-1], -2)
        row = SheetRow(larger, ["the truth", "imagined"], f"step {step}: {told[step]}")
        frames.append(Image.fromarray(contact_sheet([row]).permute(1, 2, 0).numpy()))
    frames[0].save(out, save_all=True, append_images=frames[1:], duration=PAUSE, loop=0)


def _keys(actions: str) -> list[str]:
    """One for each step of `W S*3`."""
    parts = [part.partition("*") for part in actions.split()]
    return [key for key, _, times in parts for _ in range(int(times or 1))]


if __name__ == "__main__":
    main(*sys.argv[1:])
