from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lit_mm.lab.phrases import sentences
from lit_mm.lab.scene import UNREADABLE, Scene, Tile, WorldFile, walkable
from lit_mm.mistake import Mistake

CRAFTER = Path(__file__).parent / "crafter"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(CRAFTER, tmp_path / "crafter")
    return tmp_path / "crafter"


def change(folder: Path, **changes: Any) -> None:
    file = folder / "world.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_world_is_what_its_files_say(world: WorldFile) -> None:
    assert (world.name, world.rows, world.columns, world.tile, world.player) == ("crafter", 8, 8, 8, (4, 4))
    assert world.moves == {"W": (-1, 0), "A": (0, -1), "S": (1, 0), "D": (0, 1)}
    strip = np.array(Image.open(CRAFTER / "templates_night.png").convert("RGB"))
    cow = world.index[Tile("sand", "cow")]
    np.testing.assert_array_equal(
        world.templates["night"][cow].permute(1, 2, 0).numpy(), strip[:, 8 * cow : 8 * cow + 8]
    )


def test_one_walks_on_free_ground_in_view(world: WorldFile) -> None:
    scene = Scene(np.full((8, 8), world.index[Tile("grass")], np.uint8))
    scene.tiles[0, :4] = (
        world.index[Tile("water")],
        world.index[Tile("sand", "cow")],
        world.index[Tile("path")],
        UNREADABLE,
    )
    assert [walkable(world, scene, 0, column) for column in range(-1, 5)] == [False, False, False, True, False, True]
    assert not walkable(world, scene, 8, 0)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"player": [4, 8]}, r"player \[4, 8\] is outside the view of 8 x 8 tiles"),
        ({"rows": None}, "does not describe a world of tiles"),
        ({"kinds": {"cat and dog": {}}}, "kind 'cat and dog' cannot be told in captions"),
        ({"kinds": {"lava": {"walkable": True}}}, "'lava' is walkable, but no tile shows the player on it facing left"),
        ({"moves": {"W": [-2, 0]}}, r"moves.W is \[-2, 0\]; a move goes to one of the four next tiles"),
        ({"tile": 4}, "templates_day.png: 440 x 8 pixels were found; 55 templates in a row have 220 x 4"),
    ],
)
def test_a_world_that_does_not_fit_together_is_refused(folder: Path, changes: dict[str, Any], sentence: str) -> None:
    change(folder, **changes)
    with pytest.raises(Mistake, match=sentence):
        WorldFile.load(folder / "world.json")


def test_missing_files_are_named(folder: Path) -> None:
    (folder / "templates_night.png").unlink()
    with pytest.raises(Mistake, match=r"templates_night.png: the templates of world 'crafter' are missing"):
        WorldFile.load(folder / "world.json")
    with pytest.raises(Mistake, match=r"elsewhere/world.json: there is no such file; `python -m data_modules"):
        WorldFile.load(folder / "elsewhere" / "world.json")


def test_words_that_two_kinds_share_are_refused(folder: Path) -> None:
    change(folder, kinds={"goose": {"plural": "birds"}, "duck": {"plural": "birds"}})
    with pytest.raises(Mistake, match="could mean two things"):
        sentences(WorldFile.load(folder / "world.json"))
