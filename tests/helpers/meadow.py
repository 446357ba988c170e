"""A world in one file: a player on a meadow with some ponds, for tests of what every world shares."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_modules.recipes.world import compose
from lit_mm.lab.scene import FACINGS, Scene

SIDE, VIEW, TILE = 12, 5, 4  # tiles of the map and of a view, pixels of a tile
PONDS = 0.06  # share of the map
MOVES = {"W": (-1, 0), "A": (0, -1), "S": (1, 0), "D": (0, 1)}
TILES = [{"ground": "grass"}, {"ground": "pond"}] + [
    {"ground": "grass", "thing": "player", "facing": facing} for facing in FACINGS
]


@dataclass(frozen=True)
class Meadow:
    """Its rules."""

    def description(self) -> dict[str, Any]:
        """See `WorldKind`."""
        return {
            "name": "meadow",
            "rows": VIEW,
            "columns": VIEW,
            "tile": TILE,
            "player": [VIEW // 2, VIEW // 2],
            "tiles": TILES,
            "kinds": {"grass": {"walkable": True}, "pond": {"plural": "ponds"}},
            "moves": {key: list(move) for key, move in MOVES.items()},
        }

    def templates(self) -> dict[str, np.ndarray]:
        """See `WorldKind`: one colour for each tile."""
        day = np.zeros((len(TILES), TILE, TILE, 3), np.uint8)
        day[..., 0], day[..., 1] = (np.arange(len(TILES)) * 40)[:, None, None], 200
        return {"day": day, "night": day // 3}

    def start(self, seed: int) -> MeadowWorld:
        """See `WorldKind`."""
        return MeadowWorld(self, seed)


class MeadowWorld:
    """One map."""

    def __init__(self, kind: Meadow, seed: int) -> None:
        self.looks = kind.templates()
        self.map = np.zeros((SIDE, SIDE), np.uint8)
        self.map[np.random.default_rng(seed).random(self.map.shape) < PONDS] = 1
        self.night, self.facing = False, 0
        self.row = self.column = 0

    @property
    def position(self) -> tuple[int, int]:
        """See `World`."""
        return self.column, SIDE - 1 - self.row

    def copy(self) -> MeadowWorld:
        """See `World`."""
        return copy.deepcopy(self)

    def place(self, random: np.random.Generator, night: bool = False) -> None:
        """See `World`."""
        free = np.argwhere(self.map == 0)
        self.row, self.column = map(int, free[random.integers(len(free))])
        self.night, self.facing = night, int(random.integers(4))

    def step(self, key: str) -> None:
        """See `World`."""
        if key:
            self.facing = list(FACINGS.values()).index(MOVES[key])
            row, column = self.row + MOVES[key][0], self.column + MOVES[key][1]
            if 0 <= row < SIDE and 0 <= column < SIDE and not self.map[row, column]:
                self.row, self.column = row, column

    def scene(self) -> Scene:
        """See `World`; ponds lie all around."""
        tiles = np.pad(self.map, VIEW // 2, constant_values=1)[self.row : self.row + VIEW, self.column :][
            :, :VIEW
        ].copy()
        tiles[VIEW // 2, VIEW // 2] = 2 + self.facing
        return Scene(tiles, self.night)

    def picture(self) -> np.ndarray:
        """See `World`."""
        return compose(self.looks["night" if self.night else "day"], self.scene().tiles)
