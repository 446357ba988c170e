"""Puts what the laboratory's model answered into one picture, and marks what is wrong in it.

lit-mm predict --ckpt_path lab --data.prompts configs/prompts/lab.yaml --trainer.logger.name played
python docs/lab_picture.py runs/played/version_0/predictions docs/lab.png
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from PIL import Image
from torchvision.io import ImageReadMode, read_image

from callbacks.evaluation.lab.draws import shown_facts
from callbacks.pages.prediction_writer import read_records
from lit_mm.lab.facts import Fact, facts
from lit_mm.lab.grammar import parse, parse_leniently
from lit_mm.lab.scene import Scene, WorldFile
from lit_mm.lab.tiles import read_picture

COLUMNS = 18
DRAWN, WALK = 6, "walk"  # drawings; the name of the prompt that is a walk
Record = dict[str, Any]


def main(folder: str, out: str, world: str = "data/crafter/world.json") -> None:
    """Drawings; a description and answers; a walk beside the truth."""
    rules, place = WorldFile.load(world), Path(folder)
    records = read_records(place)
    drawn = [record for record in records if record["wanted"] == "image"][:DRAWN]
    texts = [record for record in records if record["wanted"] == "text" and "picture" in record["shown"][0]]
    described = next(record for record in texts if len(record["shown"]) == 1)
    asked = [record for record in texts if len(record["shown"]) > 1]
    same = [record for record in asked if record["settings"]["describe"] == asked[0]["settings"]["describe"]]
    figure = plt.figure(figsize=(13.5, 10), dpi=110)
    margins = {"left": 0.01, "right": 0.99, "top": 0.98, "bottom": 0.01, "hspace": 0.08, "wspace": 0.12}
    grid = figure.add_gridspec(5, COLUMNS, height_ratios=[2.2, 1.2, 1.4, 1.4, 1.4], **margins)
    for i, record in enumerate(drawn):
        columns = slice(i * COLUMNS // DRAWN, (i + 1) * COLUMNS // DRAWN)
        _drawing(figure.add_subplot(grid[0, columns]), figure.add_subplot(grid[1, columns]), place, record, rules)
    _show(figure.add_subplot(grid[2, :2]), place / described["shown"][0]["picture"])
    _write(figure.add_subplot(grid[2, 2:9]), _description(place, described, rules))
    _show(figure.add_subplot(grid[2, 9:11]), place / asked[0]["shown"][0]["picture"])
    _write(figure.add_subplot(grid[2, 11:]), [f"{r['shown'][1]['text'].strip()}  {r['answer'].strip()}." for r in same])
    (walk,) = [record for record in records if record["name"] == WALK]
    _walk(figure, grid, place, walk)
    figure.savefig(out)


def _drawing(above: Axes, below: Axes, folder: Path, record: Record, rules: WorldFile) -> None:
    picture, caption = folder / record["answer"][0], record["shown"][0]["text"]
    said = parse(rules, caption)
    wrong = said - facts(rules, _scene(rules, picture))
    _show(above, picture, f"{len(said) - len(wrong)} of {len(said)} facts true", "tab:red" if wrong else "tab:green")
    lines = textwrap.wrap(caption, 42)
    _write(below, lines + (["", *textwrap.wrap(f"not true: {shown_facts(wrong)}", 42)] if wrong else []), size=6.5)


def _show(axes: Axes, picture: Path, title: str = "", colour: str = "black") -> None:
    axes.imshow(Image.open(picture).convert("RGB"), interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title, fontsize=7, color=colour, loc="left", pad=2)


def _description(folder: Path, record: Record, rules: WorldFile) -> list[str]:
    truth = facts(rules, _scene(rules, folder / record["shown"][0]["picture"]))
    stated: frozenset[Fact] = parse_leniently(rules, record["answer"])[0]
    wrong = stated - truth
    verdict = f"{len(stated) - len(wrong)} of {len(stated)} facts true" + (
        f"; not: {shown_facts(wrong)}" if wrong else ""
    )
    return [*textwrap.wrap(record["answer"].strip(), 76), "", verdict]


def _write(axes: Axes, lines: Sequence[str], size: float = 8) -> None:
    axes.set_axis_off()
    axes.text(0.02, 0.98, "\n".join(lines), fontsize=size, va="top", linespacing=1.3, transform=axes.transAxes)


def _walk(figure: plt.Figure, grid: Any, folder: Path, walk: Record) -> None:
    seen = walk["shown"][-1]["picture"]
    truth = [seen, *(part["picture"] for part in walk["truth"])]
    imagined = [seen, *walk["answer"][:-1]]
    parts = [part.partition("*") for part in walk["settings"]["actions"].split()]
    keys = ["seen", *(key for key, _, times in parts for _ in range(int(times or 1)))]
    for row, (name, files) in enumerate((("truth", truth), ("imagined", imagined)), start=3):
        for column, (file, key) in enumerate(zip(files, keys, strict=True)):
            columns = slice(column * COLUMNS // len(files), (column + 1) * COLUMNS // len(files))
            _show(figure.add_subplot(grid[row, columns]), folder / file, f"{name}, {key}")


def _scene(rules: WorldFile, picture: Path) -> Scene:
    return read_picture(rules, read_image(str(picture), ImageReadMode.RGB)[None])[0]


if __name__ == "__main__":
    main(*sys.argv[1:])
