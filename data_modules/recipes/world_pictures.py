"""Captioned pictures of one map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_modules.recipes.world import Map
from data_modules.recipes.world_cuts import Cut
from data_modules.recipes.world_turns import conversation
from lit_mm.lab.grammar import caption
from lit_mm.lab.questions import Asked, document_of, questions
from lit_mm.lab.scene import Scene

DENSE = {"drawing": 0.5, "reading": 0.8}  # share of dense captions; the others state one to three facts
QUESTIONS = 5  # about each picture
TRIES = 40  # places to look at for each picture that is asked for

Row = dict[str, Any]


def write_pictures(folder: Path, of: Map, stream: str, cut: Cut, count: int, seed: list[int]) -> list[Row]:
    """Write pictures of one map as PNG files, and return their rows of metadata.jsonl; with questions, "turns" too.

    Args:
        folder: gets the pictures.
        of: the map; the player is moved about on it.
        stream: "drawing", "reading" or "questions".
        cut: what no picture shows.
        count: how many; fewer where the map has too few places left.
        seed: decides places and words. Pictures that a cut leaves in are those that would be there without it.
    """
    rows: list[Row] = []
    asked: Asked = Counter()
    for scene, random in _scenes(of, cut, count * TRIES, seed):
        if len(rows) == count:
            break
        row: Row = {"file_name": f"{of.name}-{len(rows):03d}.png"}
        save_picture(folder / row["file_name"], of.world.picture())
        if stream == "questions":
            said = questions(of.rules, scene, random, QUESTIONS, asked)
            row |= {"caption": document_of(said), "questions": [list(one) for one in said]}
            row["turns"] = conversation(of.rules, scene, said, random)
        else:
            row["caption"] = caption(of.rules, scene, random, dense=bool(random.random() < DENSE[stream]))
        rows.append(row | {"world": of.name, "tiles": scene.tiles.tolist(), "night": scene.night})
    return rows


def _scenes(of: Map, cut: Cut, tries: int, seed: list[int]) -> Iterator[tuple[Scene, np.random.Generator]]:
    """Places at which the player is put, each with random numbers of its own."""
    for number in range(tries):
        random = np.random.default_rng([*seed, number])
        of.world.place(random, night=bool(random.random() < of.night))
        scene = of.world.scene()
        if cut.allows(scene):
            yield scene, random


def save_picture(path: Path, picture: np.ndarray) -> None:
    """Write a picture (height, width, 3) uint8 as PNG, with a palette where it has few colours: half the bytes."""
    numbers, places = np.unique(picture @ np.array([1 << 16, 1 << 8, 1], np.int32), return_inverse=True)
    if len(numbers) > 256:
        Image.fromarray(picture).save(path)
        return
    image = Image.fromarray(places.reshape(picture.shape[:2]).astype(np.uint8), "P")
    image.putpalette((numbers[:, None] >> np.array([16, 8, 0]) & 255).astype(np.uint8).tobytes())
    image.save(path)
