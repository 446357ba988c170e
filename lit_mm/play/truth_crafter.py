"""Crafter beside a model of the laboratory: the same keys on a map that nobody was trained on."""

from __future__ import annotations

from collections import deque
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from data_modules.prompting.steering import Move, Steering
from data_modules.recipes.crafter_world import Crafter, CrafterWorld
from data_modules.recipes.stroller import Stroller
from data_modules.recipes.world_data import write_world
from data_modules.recipes.world_episodes import WORDS
from lit_mm.lab.scene import FACINGS, WorldFile
from lit_mm.lab.tiles import read_picture
from lit_mm.mistake import Mistake
from lit_mm.play.truth import blocks_that_differ

MAP = (0, 10_000)  # of the seed of maps: no split of the recipe numbers its maps so
PLACES = 64  # on a map, then another map is made
KEPT_EVERY, KEPT = 32, 10  # steps from copy to copy of a map, and how many copies there are for going back


class CrafterTruth:
    """See `Truth`; tiles are Crafter's own.

    Args:
        image_size: side of the model's pictures in pixels.
    """

    name = "Crafter"

    def __init__(self, image_size: int) -> None:
        self.rules, self.image_size = rules(), image_size
        self.rows, self.columns = self.rules.rows, self.rules.columns
        self.world = map_of(0)
        self._kept: deque[tuple[CrafterWorld, list[str]]] = deque(maxlen=KEPT)

    def begin(self, number: int, frames: int) -> list[np.ndarray]:
        """See `Truth`."""
        self.world = map_of(number // PLACES).copy()
        random = np.random.default_rng([*MAP, number])
        self.world.place(random)
        stroller, seen = Stroller(self.rules, random), [self.world.picture()]
        for _ in range(frames - 1):
            self.world.step(stroller.key(self.world.scene()))
            seen.append(self.world.picture())
        self._kept.clear()
        self._kept.append((self.world.copy(), []))
        return seen

    def step(self, move: Move | None, words: str) -> tuple[np.ndarray, bool]:
        """See `Truth`."""
        key = self._key(move) if move else meant(self.rules, words)
        self.world.step(key or "")
        self._kept[-1][1].append(key or "")
        if len(self._kept[-1][1]) == KEPT_EVERY:
            self._kept.append((self.world.copy(), []))
        return self.world.picture(), key is not None

    def back(self) -> bool:
        """See `Truth`."""
        if not self._kept[-1][1] and len(self._kept) > 1:
            self._kept.pop()
        if not self._kept or not self._kept[-1][1]:
            return False
        world, keys = self._kept[-1]
        keys.pop()
        self.world = world.copy()
        for key in keys:
            self.world.step(key)
        return True

    def differ(self, imagined: np.ndarray, true: np.ndarray) -> list[int]:
        """See `Truth`."""
        if imagined.shape != true.shape or len(true) != self.rows * self.rules.tile:
            return blocks_that_differ(imagined, true)
        pictures = torch.from_numpy(np.stack([imagined, true])).permute(0, 3, 1, 2)
        one, other = (scene.tiles for scene in read_picture(self.rules, pictures))
        return np.flatnonzero(one != other).tolist()

    def close(self) -> None:
        """See `Truth`."""

    def _key(self, move: Move) -> str:
        """The key of a step; "" to stand still. Of a step to the side and forward it is the latter."""
        dx, dy, _ = (round(value) for value in move)
        wanted = (-dx, 0) if dx else (0, -dy)
        return next((key for key, offset in self.rules.moves.items() if offset == wanted), "")


def check(steering: Steering) -> None:
    """Whether keys are steps of a tile.

    Raises:
        Mistake: one is not.
    """
    for key, move in steering.keys.items():
        if move[2] or sorted(map(abs, move[:2])) not in ([0, 0], [0, 1]):
            raise Mistake(
                f"data.steering: key '{key}' of '{steering.path}' moves by {', '.join(f'{v:g}' for v in move)}, "
                "but Crafter's player steps to the next tile; give a file such as configs/steering/crafter.yaml"
            )


def meant(world: WorldFile, words: str) -> str | None:
    """The key that a sentence asks for, "" for none; None of one that is understood by nobody here."""
    said = " ".join(words.lower().removeprefix("action:").split()).rstrip(".!")
    said = f"move {said.removeprefix('go ').removeprefix('walk ')}" if said.startswith(("go ", "walk ")) else said
    way = next((way for way, sentences in WORDS.items() if said in sentences), None)
    return way and next(key for key, offset in world.moves.items() if offset == FACINGS[way])


@lru_cache(maxsize=1)
def rules() -> WorldFile:
    """The description of Crafter's world."""
    with TemporaryDirectory() as folder:
        return write_world(Path(folder), Crafter())


@lru_cache(maxsize=4)
def map_of(number: int) -> CrafterWorld:
    """A map that is in no data: whoever walks on it takes a copy."""
    return Crafter().start(int(np.random.SeedSequence([*MAP, number]).generate_state(1)[0]))
