"""Every tile that can be seen in Crafter, as names and as pictures made by Crafter's own renderer."""

from __future__ import annotations

from functools import cache

import numpy as np
from crafter import constants, engine, objects

PICTURE = 64  # pixels on a side
DAY, NIGHT = 1.0, 0.35  # Crafter's daylight; below 0.5 it adds noise, at 0 nothing can be told apart
EDGE = "edge"  # what lies outside the map
CREATURES = {"cow": objects.Cow, "zombie": objects.Zombie, "skeleton": objects.Skeleton}
CLASSES = CREATURES | {"arrow": objects.Arrow, "sapling": objects.Plant, "player": objects.Player}
FACINGS = {(-1, 0): "left", (1, 0): "right", (0, -1): "up", (0, 1): "down"}  # x to the right, y down
WALKABLE = tuple(constants.walkable)


@cache
def tile_table() -> list[dict[str, str]]:
    """All tiles: grounds in Crafter's order, what lies outside the map, then what stands on grounds."""
    grounds = [{"ground": name} for name in (*constants.materials, EDGE)]
    creatures = [{"ground": ground, "thing": thing} for thing in CREATURES for ground in WALKABLE]
    facing = [
        {"ground": ground, "thing": thing, "facing": facing}
        for thing, below in (("arrow", (*WALKABLE, "water", "lava")), ("player", WALKABLE))
        for facing in FACINGS.values()
        for ground in below
    ]
    return [*grounds, *creatures, {"ground": "grass", "thing": "sapling"}, *facing]


@cache
def tile_numbers() -> dict[tuple[str, str, str], int]:
    """Number of each tile by ground, thing and facing."""
    return {(tile["ground"], tile.get("thing", ""), tile.get("facing", "")): n for n, tile in enumerate(tile_table())}


@cache
def textures() -> engine.Textures:
    """Crafter's pictures of materials and objects."""
    return engine.Textures(constants.root / "assets")


def rendered(view: engine.LocalView, player: objects.Player, tiles: int) -> np.ndarray:
    """What Crafter's renderer shows around a player, (height, width, 3) uint8, of `tiles` tiles on a side."""
    side = PICTURE // tiles
    return view(player, (side, side)).astype(np.uint8).transpose(1, 0, 2)


@cache
def templates(tiles: int, daylight: float) -> np.ndarray:
    """Mean look of each tile in pictures of `tiles` tiles on a side: (tiles of the table, side, side, 3) uint8.

    At night a picture is darker and noisier away from its middle; the mean is over all places.
    """
    side = PICTURE // tiles
    looks = []
    for tile in tile_table():
        view, player = _filled_with(tile, tiles, daylight)
        cells = rendered(view, player, tiles).reshape(tiles, side, tiles, side, 3)
        looks.append(cells.mean(axis=(0, 2)).round().astype(np.uint8))
    return np.stack(looks)


def _filled_with(tile: dict[str, str], tiles: int, daylight: float) -> tuple[engine.LocalView, objects.Player]:
    """A view of nothing but one kind of tile."""
    world = engine.World((tiles, tiles), constants.materials, (tiles, tiles))
    world.reset(seed=0)
    world.daylight = daylight
    player = objects.Player(world, (tiles // 2, tiles // 2) if tile["ground"] != EDGE else (-tiles, -tiles))
    for x, y in np.ndindex(tiles, tiles):
        if tile["ground"] != EDGE:
            world[x, y] = tile["ground"]
        if "thing" in tile:
            facing = next((way for way, name in FACINGS.items() if name == tile.get("facing")), (0, 1))
            world.add(make(tile["thing"], world, (x, y), facing, player))
    return engine.LocalView(world, textures(), (tiles, tiles)), player


def make(
    thing: str, world: engine.World, spot: tuple[int, int], facing: tuple[int, int], player: objects.Player
) -> objects.Object:
    """A thing to put into a world; arrows and players face somewhere, zombies and skeletons hunt a player."""
    if thing == "arrow":
        return objects.Arrow(world, spot, facing)
    if thing in ("zombie", "skeleton"):
        return CLASSES[thing](world, spot, player)
    made = CLASSES[thing](world, spot)
    if thing == "player":
        made.facing = facing
    return made
