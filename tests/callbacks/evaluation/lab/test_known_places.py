from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from callbacks.evaluation.lab.imagines import known_places
from callbacks.evaluation.lab.walks import Start, Walk
from lit_mm.lab.scene import WorldFile
from tests.helpers.small_world import PLAYER, SIDE, TILES, SmallWorld, write_small_world

COW = [number for number, tile in enumerate(TILES) if tile.get("thing") == "cow"]


@pytest.mark.parametrize("context", [1, 2, 3])
def test_what_is_known_is_what_one_could_write_down_while_walking(tmp_path: Path, context: int) -> None:
    """A player that remembers places of the map as long as they were in one of its last few views."""
    kind = write_small_world(tmp_path / "world", pictures=1, walks=0)
    world, random = SmallWorld(7), np.random.default_rng(1)
    scenes, places = [], []
    for key in random.choice(["W", "A", "S", "D", ""], 12, p=(0.3, 0.3, 0.15, 0.15, 0.1)):
        scenes.append(world.scene())
        places.append(world.player)
        world.step(str(key))
    assert len(set(places)) > 5
    walk = Walk(torch.zeros(0), scenes, np.array(places), lambda *_: "")
    start = Start(walk, list(range(context)), list(range(context, 12)), ())
    for steps in (1, 3, 8):
        found = known_places(kind, start, steps)
        seen, creatures = by_hand(kind, places, scenes, context, steps)
        assert np.array_equal(found.seen, seen)
        assert np.array_equal(found.creatures, creatures)
        assert np.array_equal(found.new, ~(seen | creatures))
    assert creatures.any()
    assert not creatures.all()


def by_hand(
    kind: WorldFile, places: list[tuple[int, int]], scenes: list, context: int, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """In places of the map, one by one."""
    views = [
        {(row - PLAYER[0] + r, column - PLAYER[1] + c) for r in range(SIDE) for c in range(SIDE)}
        for row, column in places
    ]
    remembered = views[:context]
    for number in range(context, context + steps):
        window = set().union(*remembered[number - context : number])
        remembered.append(views[number] & window)
    last, target = context - 1, context + steps - 1
    stood = [
        (on_map(places[number], r, c), target - number)
        for number in range(context)
        for r, c in np.argwhere(np.isin(scenes[number].tiles, COW)).tolist()
        if number == last or on_map(places[number], r, c) not in views[last]
    ]
    seen, creatures = np.zeros((SIDE, SIDE), bool), np.zeros((SIDE, SIDE), bool)
    for r in range(SIDE):
        for c in range(SIDE):
            place = on_map(places[target], r, c)
            reached = any(abs(place[0] - s[0]) + abs(place[1] - s[1]) <= time for s, time in stood)
            moving = reached or scenes[target].tiles[r, c] in COW
            (creatures if moving else seen)[r, c] = place in remembered[target]
    return seen, creatures


def on_map(player: tuple[int, int], row: int, column: int) -> tuple[int, int]:
    return player[0] - PLAYER[0] + row, player[1] - PLAYER[1] + column
