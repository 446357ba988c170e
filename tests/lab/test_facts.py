from __future__ import annotations

import json
from collections import Counter

import numpy as np

from lit_mm.lab.facts import Fact, facts
from lit_mm.lab.scene import UNREADABLE, Scene, Tile, WorldFile
from tests.lab.conftest import RandomScene

AHEAD = {"left": (4, 3), "right": (4, 5), "up": (3, 4), "down": (5, 4)}


def by_hand(world: WorldFile, scene: Scene) -> set[tuple[str, str, object]]:
    """The facts of a scene without unreadable tiles, the slow way."""
    grid = {(r, c): world.tiles[scene.tiles[r, c]] for r in range(8) for c in range(8)}
    me = grid[4, 4]
    found: set[tuple[str, str, object]] = {("night", "", scene.night), ("facing", "player", me.facing)}
    front = grid[AHEAD[str(me.facing)]]
    found.add(("ahead", front.thing if front.thing else front.ground, True))
    found.add(("on", me.ground, True))
    (most, first), *others = Counter(tile.ground for tile in grid.values()).most_common(2)
    if not others or first > others[0][1]:
        found.add(("most", most, True))
    for kind in world.kinds:
        places = [place for place, tile in grid.items() if kind in (tile.ground, tile.thing)]
        found.add(("there", kind, bool(places)))
        if places and world.kinds[kind].plural:
            found.add(("count", kind, len(places) if len(places) < 7 else 7))
        steps = {place: abs(place[0] - 4) + abs(place[1] - 4) for place in places}
        sides = {side_of(*place) for place in places if steps[place] == min(steps.values())}
        if len(sides) == 1 and None not in sides:
            found.add(("side", kind, sides.pop()))
    return found


def side_of(row: int, column: int) -> str | None:
    up, left = 4 - row, 4 - column
    if abs(up) == abs(left):
        return None
    if abs(up) > abs(left):
        return "above" if up > 0 else "below"
    return "left" if left > 0 else "right"


def test_facts_are_those_found_by_hand(world: WorldFile, random_scene: RandomScene) -> None:
    rng = np.random.default_rng(0)
    seen: Counter[str] = Counter()
    for _ in range(400):
        scene = random_scene(rng)
        expected = by_hand(world, scene)
        assert facts(world, scene) == expected
        seen.update(kind for kind, *_ in expected)
    assert set(seen) == {"facing", "ahead", "on", "there", "count", "side", "most", "night"}


def test_a_fact_survives_json_and_is_told_apart_from_its_like(world: WorldFile) -> None:
    scene = meadow(world)
    scene.tiles[4, 2] = world.index[Tile("grass", "cow")]
    for fact in facts(world, scene):
        assert Fact(*json.loads(json.dumps(fact))) == fact
    assert {Fact("side", "cow", "left"), Fact("there", "water", False)} <= facts(world, scene)
    assert not {Fact("there", "cow", False), Fact("count", "cow", 2)} & facts(world, scene)


def test_nothing_is_known_of_what_cannot_be_read(world: WorldFile) -> None:
    nothing = Scene(np.full((8, 8), UNREADABLE, np.uint8))
    assert facts(world, nothing) == frozenset()

    scene = meadow(world)
    all_of_it = facts(world, scene)
    scene.tiles[0, 0] = UNREADABLE
    absent = {fact for fact in all_of_it if fact.aspect == "absent"}
    assert absent, "in a meadow there is no water, for one"
    assert facts(world, scene) == all_of_it - absent

    scene.tiles[world.player] = UNREADABLE
    assert {fact.kind for fact in facts(world, scene)} == {"there", "most", "night"}
    scene.tiles[:4] = UNREADABLE  # 32 of 64, and the player's: grass is not most of what there is
    assert facts(world, scene) == {Fact("there", "grass", True), Fact("night", "", False)}


def meadow(world: WorldFile) -> Scene:
    tiles = np.full((8, 8), world.index[Tile("grass")], np.uint8)
    tiles[world.player] = world.index[Tile("grass", "player", "left")]
    return Scene(tiles)
