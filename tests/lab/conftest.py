"""The small world's description, and scenes of it made at random."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lit_mm.lab.scene import Scene, WorldFile

RandomScene = Callable[[np.random.Generator], Scene]


@pytest.fixture(scope="session")
def world() -> WorldFile:
    return WorldFile.load(Path(__file__).parent / "crafter" / "world.json")


@pytest.fixture(scope="session")
def random_scene(world: WorldFile) -> RandomScene:
    """Any few tiles anywhere, some of them often, and the player in its place."""
    players = [index for index, tile in enumerate(world.tiles) if tile.thing == "player"]
    others = [index for index, tile in enumerate(world.tiles) if tile.thing != "player"]

    def make(rng: np.random.Generator) -> Scene:
        kinds = rng.choice(others, rng.integers(1, 13))
        shares = rng.dirichlet(np.full(len(kinds), 0.5))
        tiles = rng.choice(kinds, (world.rows, world.columns), p=shares).astype(np.uint8)
        tiles[world.player] = rng.choice(players)
        return Scene(tiles, bool(rng.random() < 0.3))

    return make
