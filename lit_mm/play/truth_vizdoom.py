"""ViZDoom beside a model of first-person play: the same steps on maps that the recipe holds out."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np

from data_modules.game.episode import pressed
from data_modules.game.simulator import Simulator, View
from data_modules.game.wad import starting_places
from data_modules.prompting.steering import Move
from data_modules.recipes.gameplay import GAMMA, VAL_MAPS
from lit_mm.play.trained_on import Walks
from lit_mm.play.truth import GRID, blocks_that_differ

MOST_STEPS = 200  # that are played again to go back by one
STILL: Move = (0.0, 0.0, 0.0)


class ViZDoomTruth:
    """See `Truth`. The player is pushed to where each step says that it ends, as far as walls allow.

    Args:
        image_size: side of the model's pictures in pixels.
        walks: that the model was trained on.
    """

    name = "ViZDoom"
    rows = columns = GRID

    def __init__(self, image_size: int, walks: Walks) -> None:
        view = View(image_size, walks.unit, walks.context, walks.frame_step, walks.horizon)
        self.simulators = [Simulator(level, view, GAMMA) for level in VAL_MAPS]
        self._open = ExitStack()
        self._number, self._frames = 0, 1
        self._steps: list[Move] = []
        self._ended = False

    def begin(self, number: int, frames: int) -> list[np.ndarray]:
        """See `Truth`; the player comes to rest first, and waits where more frames are wanted."""
        self._number, self._frames, self._steps = number, frames, []
        return self._begin()

    def step(self, move: Move | None, words: str) -> tuple[np.ndarray, bool]:
        """See `Truth`; sentences are not understood."""
        self._steps.append(move or STILL)
        return self._step(move or STILL), move is not None

    def back(self) -> bool:
        """See `Truth`; all steps but the last are played again."""
        if not 0 < len(self._steps) <= MOST_STEPS:
            return False
        self._steps.pop()
        self._begin()
        for move in self._steps:
            self._step(move)
        return True

    def differ(self, imagined: np.ndarray, true: np.ndarray) -> list[int]:
        """See `Truth`."""
        return blocks_that_differ(imagined, true)

    def close(self) -> None:
        """See `Truth`."""
        self._open.close()

    @property
    def _simulator(self) -> Simulator:
        return self.simulators[self._number % len(self.simulators)]

    def _begin(self) -> list[np.ndarray]:
        simulator, random = self._simulator, np.random.default_rng(self._number)
        places = starting_places(simulator.episode.wad_file, simulator.level)
        place, turn = places[int(random.integers(len(places)))], int(random.integers(1, 100))
        self._open.close()
        self._game: Any = self._open.enter_context(simulator.game(place, turn))
        self._speed, self._ended = np.zeros(2), False
        seen = [simulator.seen(self._game)[0]]
        for _ in range((self._frames - 1) * simulator.view.frame_step):
            self._game.make_action(pressed(()), simulator.episode.tics)
            seen.append(simulator.seen(self._game)[0])
        self._last = seen[-1]
        return seen[:: simulator.view.frame_step]

    def _step(self, move: Move) -> np.ndarray:
        """What is seen after a step; where the level has ended or a teleporter was met, what was seen last."""
        if not self._ended:
            self._ended, self._speed = self._simulator.pushed(self._game, move, self._speed)
            if not self._ended:
                self._last = self._simulator.seen(self._game)[0]
        return self._last
