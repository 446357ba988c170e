"""A scripted player of worlds of tiles: straight runs, some towards what is in view, and now and then into a wall."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from lit_mm.lab.scene import PLAYER, Scene, WorldFile, walkable

TOWARDS = 0.35  # share of runs that lead to something in view
WAITS = 0.06  # share of runs in which the player stands still
STUBBORN = 0.12  # share of blocked steps that are told all the same
RUN = (2, 7)  # steps of a run
WAIT = (1, 3)


class Stroller:
    """Chooses a key from what is in view.

    Args:
        world: whose moves there are.
        random: where all choices come from.
        without: keys never chosen.
        bumps: share of runs, in [0, 1], that are one step into what blocks the way, where anything does.
    """

    def __init__(
        self, world: WorldFile, random: np.random.Generator, without: Collection[str] = (), bumps: float = 0
    ) -> None:
        self.world = world
        self.random = random
        self.bumps = bumps
        self.keys = [key for key in world.moves if key not in without]
        self.plan: list[str] = []

    def key(self, scene: Scene) -> str:
        """The key to press in a scene; "" to stand still."""
        if not self.plan:
            blocked = [key for key in self.keys if not self._open(scene, key)] if self.bumps else []
            if blocked and self.random.random() < self.bumps:
                return blocked[self.random.integers(len(blocked))]
            self.plan = self._run(scene)
        if self.plan[0] and not self._open(scene, self.plan[0]) and self.random.random() >= STUBBORN:
            self.plan = self._run(scene)
        return self.plan.pop(0)

    def _run(self, scene: Scene) -> list[str]:
        """Keys of a new run, the first of which is not blocked where that can be helped."""
        chance = self.random.random()
        if chance < WAITS or not self.keys:
            return [""] * int(self.random.integers(WAIT[0], WAIT[1] + 1))
        if chance < WAITS + TOWARDS and (path := self._towards(scene)):
            return path
        ways = [key for key in self.keys if self._open(scene, key)] or self.keys
        return [ways[self.random.integers(len(ways))]] * int(self.random.integers(RUN[0], RUN[1] + 1))

    def _towards(self, scene: Scene) -> list[str]:
        """Keys that lead to one of the kinds in view, the longer way first, and one more step that bumps into it."""
        names = [tile.thing or tile.ground for tile in self.world.tiles]
        shown = sorted({names[number] for number in np.unique(scene.tiles)} - {PLAYER})
        name = shown[self.random.integers(len(shown))]
        spots = np.argwhere(np.isin(scene.tiles, [n for n, other in enumerate(names) if other == name]))
        offset = spots[self.random.integers(len(spots))] - np.array(self.world.player)
        legs = [
            [key] * abs(int(offset[axis]))
            for axis in np.argsort(-np.abs(offset), kind="stable")
            for key in self.keys
            if offset[axis] and np.sign(offset[axis]) == self.world.moves[key][axis]
        ]
        return [key for leg in legs for key in leg]

    def _open(self, scene: Scene, key: str) -> bool:
        down, right = self.world.moves[key]
        row, column = self.world.player
        return walkable(self.world, scene, row + down, column + right)
