"""Puts what the laboratory's model answered into one picture, and marks what is wrong in it.

lit-mm predict --ckpt_path runs/demo/checkpoints/last.ckpt --data.prompts configs/prompts/lab.yaml \\
    --trainer.logger.name played
python docs/lab_picture.py runs/played/version_0/predictions docs/lab.png
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from callbacks.evaluation.lab.draws import shown_facts
from callbacks.pages.prediction_writer import read_records
from lit_mm.lab.facts import Fact, facts
from lit_mm.lab.grammar import parse, parse_leniently
from lit_mm.lab.scene import Scene, WorldFile
from lit_mm.lab.tiles import read_picture

COLUMNS = 9
DRAWN, DESCRIBED, WALK = 6, 1, "walk"
Record = dict[str, Any]


def main(folder: str, out: str, world: str = "data/crafter/world.json") -> None:
    """Drawings; a description and answers; a walk beside the truth."""
    rules, place = WorldFile.load(world), Path(folder)
    records = read_records(place)
    drawn = [r for r in records if r["wanted"] == "image"][:DRAWN]
    texts = [r for r in records if r["wanted"] == "text" and "picture" in r["shown"][0]]
    described = [r for r in texts if len(r["shown"]) == 1][:DESCRIBED]
    asked = [r for r in texts if len(r["shown"]) > 1]
    figure = plt.figure(figsize=(13.5, 8.6), dpi=110)
    grid = figure.add_gridspec(
        4,
        COLUMNS,
        height_ratios=[2.1, 1.35, 1, 1],
        hspace=0.14,
        wspace=0.06,
        left=0.01,
        right=0.99,
        top=0.97,
        bottom=0.01,
    )
    for i, record in enumerate(drawn):
        axes = figure.add_subplot(grid[0, i * COLUMNS // DRAWN : (i + 1) * COLUMNS // DRAWN])
        _drawing(axes, place, record, rules)
    _words(figure.add_subplot(grid[1, 0]), place, described[0], None)
    _write(figure.add_subplot(grid[1, 1:5]), _description(place, described[0], rules))
    _words(figure.add_subplot(grid[1, 5]), place, asked[0], None)
    same = [r for r in asked if r["shown"][0] == asked[0]["shown"][0]] or asked[:1]
    _write(figure.add_subplot(grid[1, 6:]), [f"{r['shown'][1]['text'].strip()}  {r['answer'].strip()}." for r in same])
    (walk,) = [r for r in records if r["name"] == WALK]
    _walk(figure, grid, place, walk)
    figure.savefig(out)


def _drawing(axes: Axes, folder: Path, record: Record, rules: WorldFile) -> None:
    picture, caption = _open(folder / record["answer"][0]), record["shown"][0]["text"]
    said = parse(rules, caption)
    wrong = said - facts(rules, _scene(rules, picture))
    axes.imshow(picture, interpolation="nearest")
    axes.set_axis_off()
    verdict = f"{len(said) - len(wrong)} of {len(said)} facts true" + (f"; not: {shown_facts(wrong)}" if wrong else "")
    lines = textwrap.fill(caption, 38), textwrap.fill(verdict, 38)
    axes.text(0, 67, lines[0], fontsize=6.6, va="top")
    axes.set_title(lines[1], fontsize=7, color="tab:red" if wrong else "tab:green", loc="left")


def _words(axes: Axes, folder: Path, record: Record, title: str | None) -> None:
    axes.imshow(_open(folder / record["shown"][0]["picture"]), interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title or "", fontsize=8, loc="left")


def _description(folder: Path, record: Record, rules: WorldFile) -> list[str]:
    truth = facts(rules, _scene(rules, _open(folder / record["shown"][0]["picture"])))
    stated: frozenset[Fact] = parse_leniently(rules, record["answer"])[0]
    wrong = stated - truth
    verdict = f"{len(stated) - len(wrong)} of {len(stated)} facts true" + (
        f"; not: {shown_facts(wrong)}" if wrong else ""
    )
    return [*textwrap.wrap(record["answer"].strip(), 76), "", verdict]


def _write(axes: Axes, lines: Sequence[str]) -> None:
    axes.set_axis_off()
    axes.text(0.02, 0.98, "\n".join(lines), fontsize=8, va="top", linespacing=1.5, transform=axes.transAxes)


def _walk(figure: plt.Figure, grid: Any, folder: Path, walk: Record) -> None:
    seen = walk["shown"][-1]["picture"]
    truth = [seen, *(part["picture"] for part in walk["truth"])]
    imagined = [seen, *walk["answer"][:-1]]
    parts = [part.partition("*") for part in walk["settings"]["actions"].split()]
    keys = ["seen", *(key for key, _, times in parts for _ in range(int(times or 1)))]
    for row, (name, files) in enumerate((("truth", truth), ("imagined", imagined)), start=2):
        for column, (file, key) in enumerate(zip(files, keys, strict=True)):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(_open(folder / file), interpolation="nearest")
            axes.set_axis_off()
            axes.set_title(f"{name}, {key}", fontsize=7, loc="left", pad=2)


def _open(file: Path) -> Image.Image:
    return Image.open(file).convert("RGB")


def _scene(rules: WorldFile, picture: Image.Image) -> Scene:
    return read_picture(rules, torch.stack([pil_to_tensor(picture)]))[0]


if __name__ == "__main__":
    main(*sys.argv[1:])
