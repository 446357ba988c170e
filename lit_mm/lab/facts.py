"""All that is true of a scene, as triples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

from lit_mm.lab.scene import FACINGS, PLAYER, UNREADABLE, Scene, WorldFile

MANY = 7  # and more are "many"
SIDES = ("left", "right", "above", "below")
FactKind = Literal["facing", "ahead", "on", "there", "count", "side", "most", "night"]
Value = str | int | bool


class Fact(NamedTuple):
    """One thing that can be said of a scene. `Fact(*json.loads(json.dumps(fact)))` is the same fact.

    Attributes:
        kind: what it is about:
            `facing` (the player looks "left", "right", "up" or "down"),
            `ahead` (`thing` is on the tile that the player faces; the ground, where nothing stands there),
            `on` (`thing` is the ground under the player),
            `there` (whether any `thing` is in view),
            `count` (how many of `thing` are in view, `MANY` for as many or more),
            `side` (the nearest of `thing` is "left", "right", "above" or "below"),
            `most` (`thing` is the ground of more tiles than any other),
            `night` (whether it is night).
        thing: name of a kind of the world; "player" for `facing`, "" for `night`.
        value: as above; True for `ahead`, `on` and `most`.
    """

    kind: FactKind
    thing: str
    value: Value

    @property
    def aspect(self) -> str:
        """Its kind, but "absent" where it says that something is not there: true of most scenes without looking."""
        return "absent" if self.kind == "there" and not self.value else self.kind


def facts(world: WorldFile, scene: Scene) -> frozenset[Fact]:
    """All facts of a scene, those of what is absent among them.

    - A kind is in view where it is a tile's thing or a tile's ground, under a thing as well.
    - The nearest of a kind is nearest to the player by steps (rows plus columns). Its side is where the larger part of
      the offset points; there is none on a diagonal, or where several are equally near on different sides, or for what
      the player stands on.
    - Without a player at its place nothing is said of facing, ahead, on and sides.
    - An unreadable tile shows nothing, and its ground is like no other. In a scene with one, nothing counts as absent.
    """
    table = _table(world)
    tiles = scene.tiles.ravel()
    shown = table.shows[tiles]
    counts = shown.sum(0).tolist()
    unreadable = int((tiles == UNREADABLE).sum())
    found: list[Fact] = []
    if unreadable < tiles.size:
        found.append(Fact("night", "", scene.night))
    for (name, kind), count in zip(world.kinds.items(), counts, strict=True):
        if count or not unreadable:
            found.append(Fact("there", name, count > 0))
        if count and kind.plural:
            found.append(Fact("count", name, min(count, MANY)))
    grounds = np.bincount(table.ground[tiles], minlength=len(table.names))
    first, second = np.sort(grounds)[[-1, -2]]
    if first > second and (most := table.names[int(grounds.argmax())]) in world.kinds:
        found.append(Fact("most", most, True))
    return frozenset(found + _of_the_player(world, scene, table, shown))


def side_of_places(world: WorldFile) -> np.ndarray:
    """(rows, columns) int: which of `SIDES` of the player each place of a view is on; `len(SIDES)` for none."""
    return _table(world).side.argmax(1).reshape(world.rows, world.columns)


def _of_the_player(world: WorldFile, scene: Scene, table: _Table, shown: np.ndarray) -> list[Fact]:
    row, column = world.player
    if scene.tiles[row, column] == UNREADABLE or world.tiles[scene.tiles[row, column]].thing != PLAYER:
        return []
    found: list[Fact] = []
    tile = world.tiles[scene.tiles[row, column]]
    if tile.ground in world.kinds:
        found.append(Fact("on", tile.ground, True))
    if tile.facing is not None:
        found.append(Fact("facing", PLAYER, tile.facing))
        down, right = FACINGS[tile.facing]
        row, column = row + down, column + right
        if 0 <= row < world.rows and 0 <= column < world.columns and scene.tiles[row, column] != UNREADABLE:
            front = world.tiles[scene.tiles[row, column]]
            if (name := front.thing or front.ground) in world.kinds:
                found.append(Fact("ahead", name, True))
    nearest = np.where(shown, table.steps, np.inf).min(0)
    sides = table.side.T @ (shown & (table.steps == nearest))  # tiles on each side, and on none
    clear = ((sides > 0).sum(0) == 1) & ~sides[len(SIDES)].astype(bool)
    for name, side, one in zip(world.kinds, sides.argmax(0).tolist(), clear.tolist(), strict=True):
        if one:
            found.append(Fact("side", name, SIDES[side]))
    return found


@dataclass(frozen=True)
class _Table:
    """What a world's tiles and places mean.

    Attributes:
        names: of the grounds; the last is that of an unreadable tile.
        ground: (256,) which of them a tile has.
        shows: (256, kinds) bool, a tile shows a kind.
        steps: (places, 1) from the player.
        side: (places, 5) int, one-hot: the side of the player that a place is on, the last for none.
    """

    names: tuple[str, ...]
    ground: np.ndarray
    shows: np.ndarray
    steps: np.ndarray
    side: np.ndarray


@lru_cache(maxsize=4)
def _table(world: WorldFile) -> _Table:
    names = (*dict.fromkeys(tile.ground for tile in world.tiles), "")
    ground = np.full(256, len(names) - 1)
    shows = np.zeros((256, len(world.kinds)), bool)
    for index, tile in enumerate(world.tiles):
        ground[index] = names.index(tile.ground)
        shows[index] = [name in (tile.ground, tile.thing) for name in world.kinds]
    down, right = np.indices((world.rows, world.columns)).reshape(2, -1) - np.array(world.player)[:, None]
    vertical, horizontal = np.abs(down) > np.abs(right), np.abs(right) > np.abs(down)
    of_side = (horizontal & (right < 0), horizontal & (right > 0), vertical & (down < 0), vertical & (down > 0))
    side = np.stack([*of_side, ~(vertical | horizontal)], axis=1).astype(int)
    return _Table(names, ground, shows, (np.abs(down) + np.abs(right))[:, None].astype(float), side)
