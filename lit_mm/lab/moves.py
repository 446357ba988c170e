"""What a step of the player does to a scene, and a walk in words."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from lit_mm.lab.chance import one_of
from lit_mm.lab.facts import MANY
from lit_mm.lab.grammar import sparse, text_of
from lit_mm.lab.phrases import NUMBERS, singular
from lit_mm.lab.scene import FACINGS, PLAYER, UNREADABLE, Kind, Scene, Tile, WorldFile, walkable

LEAST_EXPLAINED = 0.5  # share of the tiles seen before and after that a move must explain
LEAST_COMPARED = 1 / 8  # of a view must be seen before and after
STAY = (0, 0)


def step(world: WorldFile, scene: Scene, key: str) -> tuple[int, int]:
    """The offset (rows, columns) by which the player moves: (0, 0) for no key, or where the way is blocked."""
    down, right = world.moves[key] if key else STAY
    row, column = world.player
    return (down, right) if key and walkable(world, scene, row + down, column + right) else STAY


def after(world: WorldFile, scene: Scene, key: str) -> tuple[np.ndarray, np.ndarray]:
    """What is seen after a step.

    Args:
        world: that the scene is of.
        scene: before the step, with a player in its place.
        key: one of the world's moves, or "" to stand still.

    Returns:
        The expected tiles (rows, columns) uint8, and a mask of those that are known, bool. Not known are tiles that
        come into view, those with a thing on them, the four around each creature, unreadable ones, and those at the rim
        of the view before the step, where a creature may have come in.
    """
    row, column = world.player
    tiles, sure = scene.tiles.copy(), _sure(world, scene)
    player = world.tiles[tiles[row, column]]
    tiles[row, column] = world.index[Tile(player.ground)]
    offset = step(world, scene, key)
    expected, known = shifted(tiles, offset, UNREADABLE), shifted(sure, offset, False)
    ground = world.tiles[expected[row, column]].ground
    turned = next(name for name, move in FACINGS.items() if move == world.moves[key]) if key else player.facing
    expected[row, column], known[row, column] = world.index[Tile(ground, PLAYER, turned)], True
    return expected, known


def moved(world: WorldFile, before: Scene, after: Scene) -> tuple[int, int] | None:
    """The offset (rows, columns) of the player that explains best what is seen after a step.

    It is the one of standing still and the world's moves under which the largest share of the tiles in both views
    agree, those of the player and of creatures left out. None where two explain it equally well, as on an empty
    meadow, where none explains half of the tiles, or where hardly any can be compared.
    """
    first, second = _still(world, before), _still(world, after)
    shares: dict[tuple[int, int], float] = {}
    for offset in dict.fromkeys([STAY, *world.moves.values()]):
        seen = shifted(first, offset, UNREADABLE)
        both = (seen != UNREADABLE) & (second != UNREADABLE)
        shares[offset] = float((seen == second)[both].mean()) if both.mean() >= LEAST_COMPARED else 0.0
    best = max(shares.values())
    offsets = [offset for offset, share in shares.items() if share == best]
    return offsets[0] if len(offsets) == 1 and best >= LEAST_EXPLAINED else None


def walk_text(world: WorldFile, scenes: Sequence[Scene], keys: Sequence[str], rng: np.random.Generator) -> str:
    """A short walk in words: what is seen at its start, each stretch of it, and what is seen after some of them.

    Args:
        world: that it is in.
        scenes: before the first step, and after each.
        keys: one for each step, "" to stand still.
        rng: chooses what is said and how.
    """
    said = sparse(world, scenes[0], rng)
    steps = [(key, step(world, scene, key) != STAY) for key, scene in zip(keys, scenes, strict=False)]
    done = 0
    for (key, moves), stretch in groupby(steps):
        number = len(list(stretch))
        said.append(one_of(_stretch(world, scenes[done], key, number if moves or not key else 0), rng))
        done += number
        if done == len(keys) or rng.random() < 0.5:
            said += sparse(world, scenes[done], rng)[:2]
    return text_of(said)


def _stretch(world: WorldFile, scene: Scene, key: str, steps: int) -> tuple[str, ...]:
    """The sentences that tell of some steps with one key, or of none where the way is blocked."""
    count = NUMBERS[steps] if steps < MANY else str(steps)
    count = f"{count} step{'s' if steps > 1 else ''}"
    if not key:
        return ("you wait",) if steps == 1 else (f"you wait for {count}", f"you stay where you are for {count}")
    way = next(name for name, move in FACINGS.items() if move == world.moves[key])
    if steps:
        return f"you walk {count} {way}", f"you move {count} {way}", f"you take {count} {way}"
    row, column = (place + offset for place, offset in zip(world.player, world.moves[key], strict=True))
    tile = world.tiles[scene.tiles[row, column]]
    name = tile.thing or tile.ground
    what = singular(world, name) if name in world.kinds else "something"
    return f"you turn {way}, but {what} is in the way", f"{what} blocks the way {way}"


def shifted(values: np.ndarray, offset: tuple[int, int], new: int | bool) -> np.ndarray:
    """Values of places (rows, columns) as seen after a move by `offset`; `new` where a place comes into view."""
    down, right = offset
    rows, columns = values.shape
    result = np.full_like(values, new)
    kept_rows, kept_columns = slice(max(-down, 0), rows - max(down, 0)), slice(max(-right, 0), columns - max(right, 0))
    old_rows, old_columns = slice(max(down, 0), rows - max(-down, 0)), slice(max(right, 0), columns - max(-right, 0))
    result[kept_rows, kept_columns] = values[old_rows, old_columns]
    return result


def creatures(world: WorldFile, scene: Scene) -> np.ndarray:
    """(rows, columns) bool: where creatures are."""
    table = np.zeros(256, bool)
    table[: len(world.tiles)] = [world.kinds.get(tile.thing or "", Kind()).creature for tile in world.tiles]
    return table[scene.tiles]


def _still(world: WorldFile, scene: Scene) -> np.ndarray:
    """The tiles without what moves: creatures and the player are `UNREADABLE`."""
    tiles = scene.tiles.copy()
    tiles[creatures(world, scene)] = UNREADABLE
    tiles[world.player] = UNREADABLE
    return tiles


def _sure(world: WorldFile, scene: Scene) -> np.ndarray:
    """(rows, columns) bool: which places certainly look the same after a step, the player left out."""
    here = np.pad(creatures(world, scene), 1)
    near = here[:-2, 1:-1] | here[2:, 1:-1] | here[1:-1, :-2] | here[1:-1, 2:]
    plain = np.zeros(256, bool)  # a thing that stays in its place may still be eaten
    plain[: len(world.tiles)] = [tile.thing is None for tile in world.tiles]
    inside = np.zeros_like(near)
    inside[1:-1, 1:-1] = True
    return inside & ~near & plain[scene.tiles]
