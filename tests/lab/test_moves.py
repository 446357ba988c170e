from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from lit_mm.lab.moves import after, creatures, moved, step, walk_text
from lit_mm.lab.scene import UNREADABLE, Scene, Tile, WorldFile

engine = pytest.importorskip("crafter.engine")
objects = pytest.importorskip("crafter.objects")
constants = pytest.importorskip("crafter.constants")

SIDE = 20  # tiles of a map
FACINGS = {(-1, 0): "left", (1, 0): "right", (0, -1): "up", (0, 1): "down"}  # x to the right, y down
KEYS = {"W": "move_up", "A": "move_left", "S": "move_down", "D": "move_right", "": "noop"}
NAMES = {
    objects.Cow: "cow", objects.Zombie: "zombie", objects.Skeleton: "skeleton", objects.Arrow: "arrow",
    objects.Plant: "sapling", objects.Player: "player",
}  # fmt: skip


class Step(NamedTuple):
    before: Scene
    key: str
    after: Scene
    offset: tuple[int, int]


@pytest.fixture(scope="module")
def steps(world: WorldFile) -> list[Step]:
    """Crafter itself on small, crowded maps."""
    return [one for seed in range(8) for one in walk(world, seed, 260)]


def walk(world: WorldFile, seed: int, number: int) -> Iterator[Step]:
    rng = np.random.default_rng(seed)
    crafter, player = crowded_map(rng, seed)
    seen = view(world, crafter, player)
    key = ""
    for _ in range(number):
        if rng.random() < 0.4:
            key = str(rng.choice(list(KEYS)))
        down, right = {"": (0, 0), **world.moves}[key]
        if crafter[player.pos + np.array([right, down])][0] == "lava":
            continue  # it would die of it
        x, y = player.pos
        player.action = KEYS[key]
        for thing in crafter.objects:
            thing.update()
        player.inventory = dict.fromkeys(player.inventory, 9)
        before, seen = seen, view(world, crafter, player)
        yield Step(before, key, seen, (int(player.pos[1] - y), int(player.pos[0] - x)))


def crowded_map(rng: np.random.Generator, seed: int) -> tuple[Any, Any]:
    crafter = engine.World((SIDE, SIDE), constants.materials, (12, 12))
    crafter.reset(seed=seed)
    for x, y in np.ndindex(SIDE, SIDE):
        ground = ["grass", "path", "sand"][(x // 5 + y // 4) % 3]
        crafter[x, y] = ground if rng.random() < 0.75 else constants.materials[rng.integers(len(constants.materials))]
    player = objects.Player(crafter, (SIDE // 2, SIDE // 2))
    crafter[player.pos] = "grass"
    crafter.add(player)
    for x, y in np.ndindex(SIDE, SIDE):
        material, thing = crafter[x, y]
        if thing is None and material in constants.walkable and rng.random() < 0.12:
            kinds = [objects.Cow, objects.Zombie, objects.Skeleton, objects.Arrow, objects.Plant]
            make = kinds[rng.integers(5 if material == "grass" else 4)]
            hunts = make in (objects.Zombie, objects.Skeleton)
            more = [player] if hunts else [list(FACINGS)[rng.integers(4)]] if make is objects.Arrow else []
            crafter.add(make(crafter, (x, y), *more))
    return crafter, player


def view(world: WorldFile, crafter: Any, player: Any) -> Scene:
    tiles = np.zeros((8, 8), np.uint8)
    for row, column in np.ndindex(8, 8):
        ground, thing = crafter[player.pos + np.array([column - 4, row - 4])]
        facing = FACINGS[tuple(thing.facing)] if isinstance(thing, objects.Arrow | objects.Player) else None
        tiles[row, column] = world.index[Tile(ground or "edge", NAMES.get(type(thing)), facing)]
    return Scene(tiles)


def test_what_is_known_after_a_step_is_what_crafter_shows(world: WorldFile, steps: list[Step]) -> None:
    known_tiles = 0
    for one in steps:
        expected, known = after(world, one.before, one.key)
        np.testing.assert_array_equal(expected[known], one.after.tiles[known])
        known_tiles += known.sum()
    assert known_tiles > 10 * len(steps), "and much is known even in a crowd"


def test_who_can_step_does_and_who_is_blocked_stays(world: WorldFile, steps: list[Step]) -> None:
    assert [step(world, one.before, one.key) for one in steps] == [one.offset for one in steps]
    asked = [one for one in steps if one.key]
    blocked = sum(one.offset == (0, 0) for one in asked)
    assert 0.1 < blocked / len(asked) < 0.9


def test_moves_are_recognised(world: WorldFile, steps: list[Step]) -> None:
    found = [moved(world, one.before, one.after) for one in steps]
    assert np.mean([offset is not None for offset in found]) > 0.95
    assert all(offset in (None, one.offset) for one, offset in zip(steps, found, strict=True))


def test_a_move_is_not_recognised_where_nothing_tells_it(world: WorldFile, steps: list[Step]) -> None:
    tiles = np.full((8, 8), world.index[Tile("grass")], np.uint8)
    tiles[world.player] = world.index[Tile("grass", "player", "up")]
    meadow = Scene(tiles)
    assert moved(world, meadow, meadow) is None
    cows = [Scene(tiles.copy()), Scene(tiles.copy())]  # one that walks past could look like a player who walks
    cows[0].tiles[2, 2] = cows[1].tiles[2, 3] = world.index[Tile("grass", "cow")]
    assert moved(world, *cows) is None
    hardly = np.full((8, 8), UNREADABLE, np.uint8)
    hardly[0, :3] = steps[0].before.tiles[0, :3]
    assert moved(world, steps[0].before, Scene(hardly)) is None
    other = Scene(np.random.default_rng(0).permutation(steps[0].before.tiles.ravel()).reshape(8, 8))
    assert moved(world, steps[0].before, other) is None


def test_creatures_are_those_that_move(world: WorldFile, steps: list[Step]) -> None:
    moving = {"cow", "zombie", "skeleton", "arrow"}
    for one in steps[::100]:
        expected = np.array([[world.tiles[tile].thing in moving for tile in row] for row in one.before.tiles])
        np.testing.assert_array_equal(creatures(world, one.before), expected)


def test_a_walk_is_told_as_it_was(world: WorldFile) -> None:
    grass, tree = world.index[Tile("grass")], world.index[Tile("tree")]
    tiles = np.full((8, 8), grass, np.uint8)
    tiles[4, 1] = tree
    scenes = []
    for left in range(3):  # two steps to the tree, then one against it
        here = np.roll(tiles, left, axis=1)
        here[world.player] = world.index[Tile("grass", "player", "left")]
        scenes.append(Scene(here))
    scenes.append(scenes[-1])
    rng = np.random.default_rng(0)
    for _ in range(20):
        text = walk_text(world, scenes, ["A", "A", "A"], rng)
        assert any(f"{verb} two steps left" in text for verb in ("walk", "move", "take")), text
        assert any(end in text for end in ("turn left, but a tree is in the way", "A tree blocks the way left")), text
