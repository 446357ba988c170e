"""A scripted player that wanders: keys held for a while, and a way out where it is blocked."""

from __future__ import annotations

import numpy as np

MOVES = frozenset("WASD")
BLOCKED = 2.0  # map units a tic; free walking covers nearly seven, sliding along a wall anything in between
SETTLED = 8  # tics until a move is at about half of its full speed

# (share, keys, least steps, most steps of four tics)
HABITS: tuple[tuple[float, tuple[str, ...], int, int], ...] = (
    (0.40, ("W",), 5, 16),
    (0.10, ("W", "LEFT"), 2, 6),
    (0.10, ("W", "RIGHT"), 2, 6),
    (0.09, ("LEFT",), 2, 8),
    (0.09, ("RIGHT",), 2, 8),
    (0.07, ("A",), 2, 6),
    (0.07, ("D",), 2, 6),
    (0.05, ("S",), 2, 5),
    (0.03, (), 1, 3),
)


class Wanderer:
    """Sticky random walk. When a move is blocked it turns, then goes forward.

    Args:
        random: where all its choices come from.
        tics: game time of a step, in 1/35 s.
    """

    def __init__(self, random: np.random.Generator, tics: int) -> None:
        self.random = random
        self.tics = tics
        self.keys: tuple[str, ...] = ()
        self.steps_left = 0
        self.steps_held = 0
        self.then_forward = False

    def step(self, moved: float) -> tuple[str, ...]:
        """Keys to hold until the next frame.

        Args:
            moved: distance in map units since the last frame.
        """
        # A step after a turn moves nothing, and the first steps of a move are slow: neither tells of a wall.
        settled = self.steps_held * self.tics >= SETTLED and bool(MOVES & set(self.keys))
        if settled and moved < BLOCKED * self.tics:
            self._hold((("LEFT", "RIGHT")[int(self.random.integers(2))],), 4, 13)
            self.then_forward = True
        elif self.steps_left == 0 and self.then_forward:
            self._hold(("W",), 6, 16)
            self.then_forward = False
        elif self.steps_left == 0:
            shares = [habit[0] for habit in HABITS]
            _, keys, least, most = HABITS[int(self.random.choice(len(HABITS), p=shares))]
            self._hold(keys, least, most)
        self.steps_left -= 1
        self.steps_held += 1
        return self.keys

    def _hold(self, keys: tuple[str, ...], least: int, most: int) -> None:
        self.keys = keys
        self.steps_left = max(1, int(self.random.integers(least, most + 1)) * 4 // self.tics)
        self.steps_held = 0
