"""Plain scenes: their pictures show what their rows say, and what is cut from drawing is in none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_modules.recipes.world_cuts import Cut
from data_modules.recipes.world_plain import Row, write_plain
from lit_mm.lab.concepts import Concept
from lit_mm.lab.facts import SIDES, facts, side_of_places
from lit_mm.lab.grammar import parse
from lit_mm.lab.scene import Scene, WorldFile
from lit_mm.lab.tiles import read_picture
from tests.helpers.program import ROOT

WORLD = WorldFile.load(ROOT / "tests" / "lab" / "crafter" / "world.json")
COUNT = 200


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row]]:
    folder = tmp_path_factory.mktemp("plain")
    return folder, write_plain(folder, WORLD, "train-map000", Cut(WORLD, []), COUNT, [0])


def scene_of(row: Row) -> Scene:
    return Scene(np.array(row["tiles"], np.uint8), row["night"])


def test_captions_are_true_of_what_the_pictures_show(made: tuple[Path, list[Row]]) -> None:
    folder, rows = made
    assert len(rows) == len({row["file_name"] for row in rows}) == COUNT
    for row in rows:
        with Image.open(folder / row["file_name"]) as image:
            picture = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        (seen,) = read_picture(WORLD, picture[None])
        assert seen.tiles.tolist() == row["tiles"]
        assert parse(WORLD, row["caption"]) <= facts(WORLD, seen)


def test_most_of_a_scene_is_one_ground_and_all_is_there_to_draw(made: tuple[Path, list[Row]]) -> None:
    scenes = [scene_of(row) for row in made[1]]
    most = [np.bincount(scene.tiles.ravel()).max() / scene.tiles.size for scene in scenes]
    assert float(np.mean(most)) > 0.7
    true = [fact for scene in scenes for fact in facts(WORLD, scene)]
    assert {fact.value for fact in true if fact.kind == "side"} == set(SIDES)
    assert {fact.thing for fact in true if fact.kind == "there" and fact.value} == set(WORLD.kinds)
    assert {fact.value for fact in true if fact.kind == "count"} >= {1, 2, 3, 4, 5}


def test_sides_of_places_are_those_of_offsets() -> None:
    sides = side_of_places(WORLD)
    for (row, column), side in np.ndenumerate(sides):
        down, right = row - WORLD.player[0], column - WORLD.player[1]
        if abs(down) == abs(right):
            assert side == len(SIDES)
        else:
            along = ("above" if down < 0 else "below") if abs(down) > abs(right) else ("left" if right < 0 else "right")
            assert SIDES[side] == along


@pytest.mark.parametrize("name", ["diamond", "tree:left", "cows:2", "facing:up"])
def test_what_is_cut_is_in_no_scene(tmp_path: Path, name: str) -> None:
    concept = Concept.parse(WORLD, name)
    rows = write_plain(tmp_path, WORLD, "train-map000", Cut(WORLD, [name]), 60, [0])
    assert len(rows) == 60
    assert not any(concept.fact in facts(WORLD, scene_of(row)) for row in rows)
