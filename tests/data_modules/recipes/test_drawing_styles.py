"""Four families of drawings, from archives in npm's format that a stand-in for `npm` hands out."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data_modules.recipes.drawing_styles import drawing_styles, icon_name
from data_modules.recipes.drawings import concept, is_held_out, named_drawings
from data_modules.recipes.npm import npm_json
from lit_mm.mistake import MissingFile

EMOJI = [
    {"label": "grapes", "hexcode": "1F347", "tags": ["berry", "fruit", "vine"]},
    {"label": "clown face", "hexcode": "1F921", "tags": ["circus", "face"]},
    {"label": "red heart", "hexcode": "2764-FE0F", "tags": ["love"]},
    {
        "label": "waving hand",
        "hexcode": "1F44B",
        "tags": ["hello"],
        "skins": [{"label": "waving hand: dark skin tone", "hexcode": "1F44B-1F3FF"}],
    },
]
CIRCLE = '<circle cx="{0}" cy="{0}" r="{0}" fill="#00f"/>'
SET: dict[str, Any] = {
    "width": 32,
    "height": 32,
    "icons": {
        "grapes": {"body": CIRCLE.format(16)},
        "clown-face": {"body": CIRCLE.format(16), "hidden": True},
        "red-heart": {"body": CIRCLE.format(8), "width": 16, "height": 16},
        "waving-hand-dark-skin-tone": {"body": CIRCLE.format(16)},
        "no-emoji-of-this-name": {"body": CIRCLE.format(16)},
    },
}
NPM = """#!{python}
import pathlib, shutil, sys
name = sys.argv[2].rsplit("@", 1)[0].replace("/", "-").lstrip("@")
source = pathlib.Path(__file__).parent / (name + ".tgz")
if not source.exists():
    sys.exit("404 Not Found: " + sys.argv[2])
shutil.copy(source, sys.argv[sys.argv.index("--pack-destination") + 1])
"""


def archive(file: Path, inside: str, content: Any) -> None:
    data = json.dumps(content).encode()
    with tarfile.open(file, "w:gz") as tar:
        entry = tarfile.TarInfo(f"package/{inside}")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the stand-in and its archives."""
    folder = tmp_path / "registry"
    folder.mkdir()
    archive(folder / "emojibase-data.tgz", "en/data.json", EMOJI)
    for family in ("noto", "twemoji", "fluent-emoji-flat"):
        archive(folder / f"iconify-json-{family}.tgz", "icons.json", SET)
    program = folder / "npm"
    program.write_text(NPM.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the drawings of OpenMoji that the other families have here, and some more."""
    wanted = {"1F347", "1F921", "2764", "1F44B", "1F44B-1F3FF"}
    found = [(file, caption) for file, caption in named_drawings() if file.stem.replace("-FE0F", "") in wanted]
    assert len(found) == 5
    monkeypatch.setattr("data_modules.recipes.drawing_styles.named_drawings", lambda: iter(found))


def rows(folder: Path, split: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / split / "metadata.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("npm", "few")
def test_every_family_draws_the_same_concepts_and_a_concept_is_on_one_side(tmp_path: Path) -> None:
    out = tmp_path / "styles"
    counts = drawing_styles(out, size=32, val_share=0.5, captions=3)
    train, val = rows(out, "train"), rows(out, "val")
    families = Counter(row["file_name"].partition("_")[0] for row in val) + Counter(
        name.partition("_")[0] for name in {row["file_name"] for row in train}
    )
    # Grapes and heart; the other icons are hidden, have a skin tone or are no emoji.
    assert families == {"openmoji": 5, "noto": 2, "twemoji": 2, "fluent-emoji-flat": 2}
    assert counts["train pictures"] + counts["val pictures"] == 11
    for split, found in (("train", train), ("val", val)):
        for row in found:
            name = max((e["label"] for e in EMOJI if e["label"] in row["caption"]), key=len)
            assert is_held_out(name, 0.5) == (split == "val")
            assert Image.open(out / split / row["file_name"]).size == (32, 32)
    assert next(row["group"] for row in train + val if "grapes" in row["caption"]) == "food-drink"


@pytest.mark.usefixtures("npm", "few")
def test_training_captions_are_the_name_and_names_among_keywords_and_held_out_ones_the_name(tmp_path: Path) -> None:
    out = tmp_path / "styles"
    drawing_styles(out, size=16, val_share=0.5, captions=6)
    keywords = {e["label"]: set(e["tags"]) for e in EMOJI}  # type: ignore[call-overload]
    by_file: dict[str, list[str]] = {}
    for row in rows(out, "train"):
        by_file.setdefault(row["file_name"], []).append(row["caption"])
    assert by_file
    for captions in by_file.values():
        name, *others = captions
        assert len(others) == 5
        for caption in others:
            parts = caption.split(", ")
            assert name in (parts[0], parts[-1])
            assert 1 <= len(set(parts) - {name}) <= 3
            assert set(parts) - {name} <= keywords[concept(name)]
    assert {concept(row["caption"]) for row in rows(out, "val")} <= keywords.keys()


@pytest.mark.usefixtures("npm", "few")
def test_an_icon_fills_its_own_box(tmp_path: Path) -> None:
    out = tmp_path / "styles"
    drawing_styles(out, size=32, val_share=0.5, captions=1)
    for code in ("1F347", "2764"):  # one in the box of the set, one in a box of its own
        (file,) = out.glob(f"*/noto_{code}.png")
        picture = Image.open(file).convert("RGB")
        assert picture.getpixel((16, 16)) == picture.getpixel((1, 16)) == (0, 0, 255)
        assert picture.getpixel((0, 0)) == (255, 255, 255)


def test_names_are_those_of_iconify() -> None:
    assert icon_name("Côte d’Ivoire") == "cote-divoire"
    assert icon_name("woman’s hat") == "womans-hat"
    assert icon_name("waving hand: dark skin tone") == "waving-hand-dark-skin-tone"


def test_what_npm_cannot_do_is_one_sentence(npm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingFile, match=r"^npm could not download 'no-such@1.0.0': 404 Not Found: no-such@1.0"):
        npm_json("no-such", "1.0.0", "a.json")
    with pytest.raises(MissingFile, match=r"^'emojibase-data@1.0.0' has no file 'b.json'$"):
        npm_json("emojibase-data", "1.0.0", "b.json")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingFile, match=r"needs the program 'npm' to download 'emojibase-data': install"):
        npm_json("emojibase-data", "1.0.0", "a.json")
