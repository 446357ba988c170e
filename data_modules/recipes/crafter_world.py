"""Crafter (Hafner 2021) as a world of the laboratory: its maps, creatures and textures, without hunger and death."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
from crafter import constants, engine, objects, worldgen

from data_modules.recipes.crafter_tiles import (
    CLASSES,
    CREATURES,
    DAY,
    EDGE,
    FACINGS,
    NIGHT,
    PICTURE,
    WALKABLE,
    make,
    rendered,
    templates,
    textures,
    tile_numbers,
    tile_table,
)
from data_modules.recipes.world import compose
from lit_mm.lab.scene import Scene
from lit_mm.mistake import Mistake

AREA = (48, 48)  # tiles of a map; Crafter takes half a second to make one
REACH = 2  # views; creatures farther from the player wait, as in Crafter
MOVES = {"W": (-1, 0), "A": (0, -1), "S": (1, 0), "D": (0, 1)}  # rows down, columns to the right
ACTIONS = {"W": "move_up", "A": "move_left", "S": "move_down", "D": "move_right", "": "noop"}
COUNTED = ("tree", "table", "furnace", "diamond", "cow", "zombie", "skeleton", "arrow", "sapling")
# What is put into a map: its share of all that is put, and the grounds it stands on.
PUT: dict[str, tuple[float, tuple[str, ...]]] = {
    "cow": (0.3, ("grass",)),
    "zombie": (0.12, ("grass",)),
    "skeleton": (0.14, ("path",)),
    "arrow": (0.08, ("path", "grass")),
    "sapling": (0.16, ("grass",)),
    "table": (0.1, WALKABLE),
    "furnace": (0.1, WALKABLE),
}
ORES = {"iron": 0.01, "diamond": 0.01, "lava": 0.01}  # share of a map's stone that is turned into them
MOST_BUSY = 30.0
LED = 0.6  # share of places that are chosen to have some kind of thing in view, each kind as often as the others
BESIDE = 0.4  # share of those that are next to the thing, facing it

Place = tuple[int, int]  # x, y or steps along them


class Walker(objects.Player):
    """Crafter's player, whom lava stops instead of killing."""

    @property
    def walkable(self) -> list[str]:
        """Grounds that can be entered."""
        return list(WALKABLE)


@dataclass(frozen=True)
class Crafter:
    """The rules of all maps; see `WorldKind`.

    Args:
        view: tiles on a side of the picture: 4, 8 or 16.
        busy: creatures and things for each hundred tiles that can be walked on.
    """

    view: int = 8
    busy: float = 4.0

    def __post_init__(self) -> None:
        if self.view not in (4, 8, 16):
            raise Mistake(f"view: {self.view} tiles on a side were asked for; a picture can show 4, 8 or 16")
        if not 0 <= self.busy <= MOST_BUSY:
            raise Mistake(
                f"busy: {self.busy:g} things for each hundred tiles were asked for; "
                f"0 to {MOST_BUSY:g} leave the player room"
            )

    def description(self) -> dict[str, Any]:
        """See `WorldKind`."""
        names = {tile.get("thing", tile["ground"]): None for tile in tile_table()}
        kinds: dict[str, dict[str, Any]] = {name: {} for name in names if name != "player"}
        for key, value, having in (
            ("walkable", True, WALKABLE),
            ("creature", True, (*CREATURES, "arrow")),
        ):
            for name in having:
                kinds[name][key] = value
        for name in COUNTED:
            kinds[name]["plural"] = f"{name}s"
        kinds["path"]["article"], kinds[EDGE]["article"] = "a", "an"
        return {
            "name": "crafter",
            "rows": self.view,
            "columns": self.view,
            "tile": PICTURE // self.view,
            "player": [self.view // 2, self.view // 2],
            "tiles": tile_table(),
            "kinds": kinds,
            "moves": {key: list(move) for key, move in MOVES.items()},
        }

    def templates(self) -> dict[str, np.ndarray]:
        """See `WorldKind`."""
        return {"day": templates(self.view, DAY), "night": templates(self.view, NIGHT)}

    def start(self, seed: int) -> CrafterWorld:
        """See `WorldKind`."""
        return CrafterWorld(self, seed)


class CrafterWorld:
    """One map of Crafter; see `World`.

    Creatures do not come out of nowhere, nor do saplings grow. Arrows kill and break what they hit, and creatures eat
    saplings, as in Crafter.

    Args:
        kind: its rules.
        seed: decides the map and all that happens on it.

    Attributes:
        engine: Crafter's own world.
        player: Crafter's own player.
    """

    def __init__(self, kind: Crafter, seed: int) -> None:
        self.kind = kind
        self.engine = engine.World(AREA, constants.materials, (12, 12))
        self.engine.reset(seed=seed)
        self.engine.daylight = DAY
        self.player = Walker(self.engine, (AREA[0] // 2, AREA[1] // 2))
        self.engine.add(self.player)
        worldgen.generate_world(self.engine, self.player)
        self._furnish()

    @property
    def position(self) -> tuple[int, int]:
        """See `World`."""
        x, y = self.player.pos
        return int(x), AREA[1] - 1 - int(y)

    def copy(self) -> CrafterWorld:
        """See `World`."""
        return pickle.loads(pickle.dumps(self))

    def place(self, random: np.random.Generator, night: bool = False) -> None:
        """See `World`."""
        # Night's noise is drawn from here; creatures keep the random numbers of the map.
        self.engine.random = np.random.RandomState(random.integers(2**32))
        self.engine.daylight = NIGHT if night else DAY
        free = self._free()
        spot, facing = self._led(random, free) if random.random() < LED else (None, None)
        spot = spot or _choose(random, self._inside(free))
        if tuple(self.player.pos) != spot:
            self.engine.move(self.player, spot)
        self.player.facing = facing or list(FACINGS)[random.integers(4)]

    def step(self, key: str) -> None:
        """See `World`; the player moves first, then each creature in reach, by Crafter's own rules."""
        self.player.action = ACTIONS[key]
        for thing in self.engine.objects:
            (x, y), (own_x, own_y) = thing.pos, self.player.pos
            if abs(x - own_x) + abs(y - own_y) < REACH * self.kind.view:
                thing.update()
                if isinstance(thing, objects.Plant):
                    thing.grown = 0  # or it would ripen, which is another look
        for name in ("health", "food", "drink", "energy"):
            self.player.inventory[name] = constants.items[name]["max"]

    def scene(self) -> Scene:
        """See `World`."""
        view, numbers = self.kind.view, tile_numbers()
        left, top = (int(p) - view // 2 for p in self.player.pos)
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + view, AREA[0]), min(top + view, AREA[1])
        tiles = np.full((view, view), numbers[EDGE, "", ""], np.uint8)
        inside = tiles.T[x0 - left : x1 - left, y0 - top : y1 - top]
        for number, material in enumerate(constants.materials):
            inside[self.engine.mask(x0, x1, y0, y1, material)] = number
        for thing in self.engine.objects:
            x, y = thing.pos
            if x0 <= x < x1 and y0 <= y < y1:
                ground = constants.materials[inside[x - x0, y - y0]]
                facing = FACINGS[tuple(thing.facing)] if hasattr(thing, "facing") else ""
                inside[x - x0, y - y0] = numbers[ground, _name(thing), facing]
        return Scene(tiles, self.engine.daylight < DAY)

    def picture(self) -> np.ndarray:
        """See `World`; the same bytes as from Crafter's own renderer, composed from templates by day."""
        if self.engine.daylight < DAY:
            return self.rendered()
        return compose(templates(self.kind.view, DAY), self.scene().tiles)

    def rendered(self) -> np.ndarray:
        """The picture from Crafter's own renderer, (height, width, 3) uint8."""
        view = engine.LocalView(self.engine, textures(), (self.kind.view, self.kind.view))
        return rendered(view, self.player, self.kind.view)

    def _furnish(self) -> None:
        """Put as many creatures and things into the map as it shall have, and more of what is rare."""
        random = self.engine.random
        for thing in self.engine.objects:
            if thing is not self.player:
                self.engine.remove(thing)
        stones = random.permutation(np.argwhere(self._where("stone")))
        for ore, share in ORES.items():
            taken, stones = np.split(stones, [round(share * len(stones))])
            for spot in taken:
                self.engine[tuple(spot)] = ore
        count = self.kind.busy / 100 * self._free().sum()
        for name, (share, grounds) in PUT.items():
            free = self._free(grounds)
            free[tuple(self.player.pos)] = False
            for spot in random.permutation(np.argwhere(free))[: round(share * count)]:
                if name in constants.materials:
                    self.engine[tuple(spot)] = name
                else:
                    facing = list(FACINGS)[random.randint(4)]
                    self.engine.add(make(name, self.engine, spot, facing, self.player))

    def _free(self, grounds: tuple[str, ...] = WALKABLE) -> np.ndarray:
        """Where a player could stand, by x and y; its own place counts as free."""
        free = np.logical_or.reduce([self._where(name) for name in grounds])
        for thing in self.engine.objects:
            if thing is not self.player:
                free[tuple(thing.pos)] = False
        return free

    def _where(self, kind: str) -> np.ndarray:
        """Where a kind of ground or thing is, by x and y."""
        if kind in constants.materials:
            return self.engine.mask(0, AREA[0], 0, AREA[1], kind)
        where = np.zeros(AREA, bool)
        for thing in self.engine.objects:
            if _name(thing) == kind:
                where[tuple(thing.pos)] = True
        return where

    def _inside(self, free: np.ndarray) -> np.ndarray:
        """Those free places from which the map's edge is not seen; all, if there are none."""
        half = self.kind.view // 2
        inside = np.zeros_like(free)
        inside[half:-half, half:-half] = free[half:-half, half:-half]
        return inside if inside.any() else free

    def _led(self, random: np.random.Generator, free: np.ndarray) -> tuple[Place | None, Place | None]:
        """A free place with some kind in view, and the facing where it is next to it; None where there is none."""
        kinds = [*constants.materials, *(name for name in CLASSES if name != "player")]
        where = self._where(kinds[random.integers(len(kinds))])
        if not where.any():
            return None, None
        x, y = _choose(random, where)
        beside = random.random() < BESIDE
        near = np.zeros_like(free)
        if beside:
            for dx, dy in FACINGS:
                near[max(x - dx, 0) : x - dx + 1, max(y - dy, 0) : y - dy + 1] = True
        else:
            low, high = self.kind.view - self.kind.view // 2 - 1, self.kind.view // 2
            near[max(x - low, 0) : x + high + 1, max(y - low, 0) : y + high + 1] = True
        near &= free
        near[x, y] = False
        if not near.any():
            return None, None
        spot = _choose(random, near)
        return spot, (x - spot[0], y - spot[1]) if beside else None


def _choose(random: np.random.Generator, where: np.ndarray) -> Place:
    x, y = random.choice(np.argwhere(where))
    return int(x), int(y)


def _name(thing: objects.Object) -> str:
    """What a thing of the engine is called here."""
    return next(name for name, kind in CLASSES.items() if isinstance(thing, kind))
