from __future__ import annotations

import numpy as np
import pytest

from lit_mm.lab.concepts import Concept
from lit_mm.lab.facts import facts
from lit_mm.lab.scene import Scene, Tile, WorldFile
from lit_mm.mistake import Mistake


@pytest.fixture
def scene(world: WorldFile) -> Scene:
    """Three trees, the nearest above; a diamond to the left, which the player faces."""
    tiles = np.full((8, 8), world.index[Tile("sand")], np.uint8)
    tiles[world.player] = world.index[Tile("sand", "player", "left")]
    tiles[4, 3] = world.index[Tile("diamond")]
    tiles[2, 4] = tiles[7, 7] = tiles[0, 0] = world.index[Tile("tree")]
    return Scene(tiles)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("diamond", True),
        ("water", False),
        ("tree:above", True),
        ("tree:left", False),
        ("trees:3", True),
        ("trees:2", False),
        ("trees:many", False),
        ("diamonds:1", True),
        ("facing:left", True),
        ("facing:up", False),
    ],
)
def test_a_concept_is_shown_or_not(world: WorldFile, scene: Scene, text: str, shown: bool) -> None:
    assert Concept.parse(world, text).shown(facts(world, scene)) == shown


@pytest.mark.parametrize(("text", "near"), [("dimond", "diamond"), ("water:lft", "water:left"), ("tree:3", "trees:3")])
def test_an_unknown_concept_is_refused_with_the_nearest(world: WorldFile, text: str, near: str) -> None:
    with pytest.raises(Mistake, match=f"concept '{text}': .*did you mean '{near}'"):
        Concept.parse(world, text)
