"""Captions in the layout of COCO: one JSON object with `images` and `annotations`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets

from data_modules.dataset import BrokenFile
from data_modules.reading.cached import generated
from data_modules.reading.damages import damages_of
from data_modules.reading.files import Stamps
from lit_mm.mistake import Mistake

JSON = ".json"


def coco_rows(stamps: Stamps, key: str) -> datasets.Dataset:
    """A row for each caption, with the path of its picture.

    Args:
        stamps: of the files.
        key: the YAML key, for messages.

    Raises:
        BrokenFile: a file cannot be read.
        Mistake: it is in another layout.
    """
    features = datasets.Features({"image": datasets.Value("string"), "caption": datasets.Value("string")})
    return generated(_captions, stamps, {"key": key}, features)


def _captions(items: Stamps, key: str) -> Iterator[dict[str, Any]]:
    for path, _, _ in items:
        yield from _rows_of(path, key)


def _rows_of(path: str, key: str) -> list[dict[str, Any]]:
    found = _read(path, key)
    with damages_of(path):
        names = {one["id"]: one["file_name"] for one in found["images"]}
        rows = [{"image": names.get(one["image_id"]), "caption": one.get("caption")} for one in found["annotations"]]
    wrong = next((value for row in rows for value in row.values() if not isinstance(value, str | None)), None)
    if wrong is not None:
        raise BrokenFile(path, f"it has {wrong!r} where the name of a picture, or a caption, belongs")
    with damages_of(path):  # half a character, as JSON can write one, is none
        "".join(value for row in rows for value in row.values() if value).encode("utf-8")
    return rows


def _read(path: str, key: str) -> dict[str, Any]:
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise BrokenFile(path, error) from error
    if not isinstance(found, dict) or not {"images", "annotations"} <= found.keys():
        raise Mistake(
            f"{key}: '{path}' has no 'images' and 'annotations' as of COCO; rename a file of JSON Lines to .jsonl"
        )
    return found
