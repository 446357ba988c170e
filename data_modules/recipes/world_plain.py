"""Plain scenes: one ground, the player, and a few things around it, so that a caption says most of what there is.

Where a side or a number is a small part of what a picture shows, learning to draw it takes many pictures; here it takes
few, and is kept in the full pictures of a map.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_modules.recipes.world import compose
from data_modules.recipes.world_cuts import Cut
from data_modules.recipes.world_pictures import DENSE, Row, save_picture
from lit_mm.lab.chance import one_of
from lit_mm.lab.facts import SIDES, side_of_places
from lit_mm.lab.grammar import caption
from lit_mm.lab.scene import FACINGS, PLAYER, Scene, Tile, WorldFile

KINDS = (1, 3, 3, 3)  # how often there are none, one, two and three kinds of things
MANY = 8  # tiles of a kind at most
HEAPS = 0.4  # share of kinds whose tiles lie together
ASIDE = 0.85  # share of kinds that are on one side only
AHEAD = 0.3  # share of scenes with something right before the player
TRIES = 40  # scenes to make for each that is asked for


def write_plain(folder: Path, rules: WorldFile, name: str, cut: Cut, count: int, seed: list[int]) -> list[Row]:
    """Write plain scenes by day as PNG files, and return their rows of metadata.jsonl.

    Args:
        folder: gets the pictures.
        rules: the world that they are of.
        name: begins the names of the files.
        cut: what no picture shows.
        count: how many; fewer where the cut leaves too few.
        seed: decides all of it.
    """
    templates = rules.templates["day"].permute(0, 2, 3, 1).numpy()
    rows: list[Row] = []
    for number in range(count * TRIES):
        if len(rows) == count:
            break
        random = np.random.default_rng([*seed, number])
        scene = plain_scene(rules, random)
        if not cut.allows(scene):
            continue
        file = f"{name}-{len(rows):03d}.png"
        save_picture(folder / file, compose(templates, scene.tiles))
        said = caption(rules, scene, random, dense=bool(random.random() < DENSE["drawing"]))
        rows.append({"file_name": file, "caption": said, "tiles": scene.tiles.tolist(), "night": False})
    return rows


def plain_scene(world: WorldFile, random: np.random.Generator) -> Scene:
    """A player on one ground, with a few kinds of things."""
    ground = one_of([name for name, kind in world.kinds.items() if kind.walkable], random)
    others = [name for name in world.kinds if name != ground]
    tiles = np.full((world.rows, world.columns), world.index[Tile(ground)], np.uint8)
    for _ in range(one_of(range(len(KINDS)), random, KINDS) if others else 0):
        kind = one_of(others, random)
        for row, column in _spots(world, random):
            tiles[row, column] = _tile(world, kind, ground, random)
    way = one_of(list(FACINGS), random)
    row, column = world.player
    tiles[row, column] = world.index[Tile(ground, PLAYER, way)]
    row, column = row + FACINGS[way][0], column + FACINGS[way][1]
    if others and random.random() < AHEAD and 0 <= row < world.rows and 0 <= column < world.columns:
        tiles[row, column] = _tile(world, one_of(others, random), ground, random)
    return Scene(tiles)


def _spots(world: WorldFile, random: np.random.Generator) -> np.ndarray:
    """Rows and columns (n, 2) of the tiles that one kind takes."""
    aside = side_of_places(world) == random.integers(len(SIDES))
    spots = np.argwhere(aside if random.random() < ASIDE else np.ones_like(aside))
    if random.random() < HEAPS:
        away = np.abs(spots - spots[random.integers(len(spots))]).sum(1) + random.random(len(spots))
        return spots[np.argsort(away)][: int(random.integers(2, MANY + 1))]
    return random.permutation(spots)[: min(1 + int(random.geometric(0.5)), MANY)]


def _tile(world: WorldFile, kind: str, ground: str, random: np.random.Generator) -> int:
    """One that shows a kind: the kind as ground, or as a thing, on the scene's ground where there is such a tile."""
    shown = [tile for tile in world.tiles if kind == (tile.thing or tile.ground)]
    return world.index[one_of([tile for tile in shown if tile.ground == ground] or shown, random)]
