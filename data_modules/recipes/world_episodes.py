"""Videos of a player who walks on one map, and tables of what it was told."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from data_modules.encoding import write_video
from data_modules.recipes.stroller import Stroller
from data_modules.recipes.world import Map
from data_modules.recipes.world_cuts import Cut
from lit_mm.lab.scene import FACINGS, Scene, WorldFile

RATE = Fraction(4)  # frames a second
CRF = 8  # every tile can still be told by its nearest template
FORMAT = "yuv444p"  # colours of single pixels are kept
KEYFRAME_EVERY = 16  # frames of these small pictures are decoded in no time, and fewer keyframes save a third
SHORTEST = 8  # frames of an episode that a cut ends early
TRIES = 60  # places to start from for each episode that is asked for
# Never here, so that they can be tried on a trained model: "go …", "walk to the …", "stand still".
WORDS = {
    "up": ("move up", "step up", "one step up", "head up", "up"),
    "left": ("move left", "step left", "step to the left", "one step left", "head left", "left"),
    "down": ("move down", "step down", "one step down", "head down", "down"),
    "right": ("move right", "step right", "step to the right", "one step right", "head right", "right"),
    "": ("wait", "stay here", "do nothing", "no move"),
}
TABLE = ("frame", "keys", "x", "y", "angle", "dx", "dy", "dyaw", "words")


@dataclass(frozen=True)
class Moment:
    """A frame with what is in view, where the player is, and what it is told until the next frame."""

    picture: np.ndarray
    scene: Scene
    position: tuple[int, int]
    key: str


def write_episodes(
    folder: Path, of: Map, cut: Cut, count: int, frames: int, seed: list[int], table: bool, bumps: float
) -> int:
    """Write videos of one map, the tiles of all their frames, and tables.

    Args:
        folder: gets <map>-<episode>.mp4, .npz with "tiles" (frames, rows, columns) and "night", and .csv.
        of: the map.
        cut: what no frame shows. An episode ends before such a frame, and others make up for it.
        count: how many, if nothing is cut.
        frames: of each.
        seed: decides where the player starts and how it walks.
        table: whether to write the tables.
        bumps: see `Stroller`.

    Returns:
        The number of frames; fewer than `count * frames` where a cut leaves too few.
    """
    least = min(SHORTEST, frames)
    made, written = 0, 0
    for attempt in range(count * TRIES):
        left = count * frames - written
        if left < least:
            break
        random = np.random.default_rng([*seed, attempt])
        of.world.place(random, night=bool(random.random() < of.night))
        moments = _walk(of, cut, min(frames, left), random, bumps)
        if len(moments) < least:
            continue
        file = folder / f"{of.name}-{made:02d}"
        write_video(file.with_suffix(".mp4"), (moment.picture for moment in moments), RATE, CRF, FORMAT, KEYFRAME_EVERY)
        tiles = np.stack([moment.scene.tiles for moment in moments])
        np.savez_compressed(file.with_suffix(".npz"), tiles=tiles, night=moments[0].scene.night)
        if table:
            _write_table(file.with_suffix(".csv"), moments, of.rules, random)
        made, written = made + 1, written + len(moments)
    return written


def facings(rules: WorldFile) -> dict[str, str]:
    """Which way each key turns the player."""
    return {key: next(way for way, offset in FACINGS.items() if offset == move) for key, move in rules.moves.items()}


def _walk(of: Map, cut: Cut, frames: int, random: np.random.Generator, bumps: float) -> list[Moment]:
    """As many frames as there are before one that is cut."""
    world = of.world
    stroller = Stroller(of.rules, random, cut.keys(facings(of.rules)), bumps)
    moments: list[Moment] = []
    while len(moments) < frames and cut.allows(scene := world.scene()):
        key = stroller.key(scene)
        moments.append(Moment(world.picture(), scene, world.position, key))
        world.step(key)
    return moments


def _write_table(path: Path, moments: list[Moment], rules: WorldFile, random: np.random.Generator) -> None:
    """One row a frame. The view never turns: angle 90 makes the way up "forward" and the way left "left"."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(TABLE)
        for number, moment in enumerate(moments):
            key = moment.key if number < len(moments) - 1 else ""
            down, right = rules.moves.get(key, (0, 0))
            words = WORDS[facings(rules).get(key, "")]
            told = (-down, -right, 0, words[random.integers(len(words))])
            writer.writerow((number, key, *moment.position, 90, *told))
