"""What the laboratory's data are made of: a small world of tiles, seen from above, whose truth is known.

Another world takes Crafter's place with one file like `crafter_world.py`: a `WorldKind` that starts a `World`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from lit_mm.lab.scene import Scene, WorldFile


class World(Protocol):
    """One map with a player on it. Equal seeds and equal calls give equal scenes and pictures."""

    @property
    def position(self) -> tuple[int, int]:
        """The player's place: x to the right, y upwards, in tiles."""

    def copy(self) -> World:
        """The same map, which goes its own way from here."""

    def place(self, random: np.random.Generator, night: bool = False) -> None:
        """Put the player somewhere, facing any way, so that many calls show everything that the world holds.

        Args:
            random: the only thing the new place depends on, beside the map and what stands on it.
            night: whether pictures are night pictures until the next call.
        """

    def step(self, key: str) -> None:
        """Let time go on by one step.

        Args:
            key: one of the description's "moves", or "" to stand still. A blocked player turns and stays.
        """

    def scene(self) -> Scene:
        """What is in view."""

    def picture(self) -> np.ndarray:
        """What is in view as a picture (height, width, 3) uint8."""


class WorldKind(Protocol):
    """The rules that all maps of a world share: a frozen dataclass, which processes hand to each other."""

    def description(self) -> dict[str, Any]:
        """What `lit_mm.lab.scene.WorldFile` reads from world.json."""

    def templates(self) -> dict[str, np.ndarray]:
        """How each tile of the description looks, by "day" and "night": (tiles, tile, tile, 3) uint8."""

    def start(self, seed: int) -> World:
        """A new map.

        Raises:
            Mistake: there is no room for the player.
        """


@dataclass(frozen=True)
class Map:
    """One map and what belongs to it.

    Args:
        name: begins the names of its files.
        world: the map itself.
        rules: the description of its world.
        night: share of its pictures, episodes and texts at night.
    """

    name: str
    world: World
    rules: WorldFile
    night: float


def compose(templates: np.ndarray, tiles: np.ndarray) -> np.ndarray:
    """The picture (rows · tile, columns · tile, 3) of tiles (rows, columns) by their templates."""
    rows, columns = tiles.shape
    tile = templates.shape[1]
    return templates[tiles].transpose(0, 2, 1, 3, 4).reshape(rows * tile, columns * tile, 3)
