"""A world of a dozen tiles with random textures, and data of it in the layout of the recipe `crafter`."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from data_modules.encoding import write_video
from lit_mm.lab.grammar import caption
from lit_mm.lab.questions import document_of, questions
from lit_mm.lab.scene import Scene, WorldFile

SIDE, TILE, PLAYER = 8, 8, (4, 4)
GROUNDS = ("grass", "sand", "water", "stone", "tree")
FACINGS = {"W": "up", "A": "left", "S": "down", "D": "right"}
MOVES = {"W": (-1, 0), "A": (0, -1), "S": (1, 0), "D": (0, 1)}
TOLD = {"W": (1, 0), "A": (0, 1), "S": (-1, 0), "D": (0, -1), "": (0, 0)}  # dx forward, dy to the left
TILES = [
    *({"ground": ground} for ground in (*GROUNDS, "edge")),
    *({"ground": ground, "thing": "cow"} for ground in ("grass", "sand")),
    *({"ground": g, "thing": "player", "facing": f} for g in ("grass", "sand") for f in FACINGS.values()),
]  # fmt: skip
KINDS = {
    "grass": {"walkable": True},
    "sand": {"walkable": True},
    "water": {},
    "stone": {},
    "tree": {"plural": "trees"},
    "cow": {"plural": "cows", "creature": True},
}


class SmallWorld:
    """A random map with cows that stroll and a player that is told where to go."""

    def __init__(self, seed: int, size: int = 24) -> None:
        self.random = np.random.default_rng(seed)
        coarse = self.random.choice(len(GROUNDS), (size // 2, size // 2), p=(0.5, 0.15, 0.1, 0.1, 0.15))
        self.ground = coarse.repeat(2, 0).repeat(2, 1)
        free = np.argwhere(self.ground < 2)
        self.random.shuffle(free)
        self.player, *cows = [tuple(place) for place in free[:16].tolist()]
        self.cows, self.facing = cows, "down"

    def free(self, place: tuple[int, int]) -> bool:
        inside = all(0 <= p < len(self.ground) for p in place)
        return inside and self.ground[place] < 2 and place not in (*self.cows, self.player)

    def step(self, key: str) -> None:
        if key:
            self.facing = FACINGS[key]
            target = (self.player[0] + MOVES[key][0], self.player[1] + MOVES[key][1])
            self.player = target if self.free(target) else self.player
        for number, (row, column) in enumerate(self.cows):
            down, right = list(MOVES.values())[self.random.integers(4)]
            if self.random.random() < 0.6 and self.free((row + down, column + right)):
                self.cows[number] = (row + down, column + right)

    def scene(self) -> Scene:
        tiles = np.full((SIDE, SIDE), TILES.index({"ground": "edge"}), np.uint8)
        for row in range(SIDE):
            for column in range(SIDE):
                place = (self.player[0] + row - PLAYER[0], self.player[1] + column - PLAYER[1])
                if all(0 <= p < len(self.ground) for p in place):
                    tile = {"ground": GROUNDS[self.ground[place]]}
                    tile |= {"thing": "cow"} if place in self.cows else {}
                    tile |= {"thing": "player", "facing": self.facing} if place == self.player else {}
                    tiles[row, column] = TILES.index(tile)
        return Scene(tiles, night=False)


def write_small_world(folder: Path, pictures: int = 24, walks: int = 2, steps: int = 16) -> WorldFile:
    """All files that judges read, of test worlds."""
    folder.mkdir(parents=True)
    textures = small_textures()
    for light, of_light in zip(("day", "night"), textures, strict=True):
        Image.fromarray(np.concatenate(list(of_light), 1)).save(folder / f"templates_{light}.png")
    description = {
        "name": "small", "rows": SIDE, "columns": SIDE, "tile": TILE, "player": PLAYER,
        "tiles": TILES, "kinds": KINDS, "moves": MOVES,
    }  # fmt: skip
    (folder / "world.json").write_text(json.dumps(description))
    world = WorldFile.load(folder / "world.json")
    for number, stream in enumerate(("drawing", "reading", "questions")):
        _write_pictures(folder / stream / "test", world, textures[0], pictures, 100 * number)
    for number in range(walks):
        _write_walk(folder / "action_video" / "test", number, textures[0], steps)
    return world


@cache
def small_textures() -> np.ndarray:
    """(2, tiles, 8, 8, 3) uint8 of the day and of the night, of squares of two pixels."""
    coarse = np.random.default_rng(0).integers(0, 256, (2, len(TILES), TILE // 2, TILE // 2, 3), dtype=np.uint8)
    return coarse.repeat(2, 2).repeat(2, 3)


def small_picture(textures: np.ndarray, scene: Scene) -> np.ndarray:
    rows = [np.concatenate([textures[tile] for tile in row], 1) for row in scene.tiles]
    return np.concatenate(rows, 0)


def _scenes(seed: int, count: int) -> Iterator[Scene]:
    for number in range(count):
        world = SmallWorld(seed + number)
        for _ in range(number % 7):
            world.step(list(MOVES)[world.random.integers(4)])
        yield world.scene()


def _write_pictures(folder: Path, world: WorldFile, textures: np.ndarray, count: int, seed: int) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    lines = []
    for number, scene in enumerate(_scenes(seed, count)):
        Image.fromarray(small_picture(textures, scene)).save(folder / f"{number:05d}.png")
        row = {"file_name": f"{number:05d}.png", "world": str(seed), "tiles": scene.tiles.tolist(), "night": False}
        if folder.parent.name == "questions":
            asked = questions(world, scene, random, 4)
            row |= {"caption": document_of(asked), "questions": asked}
        else:
            row |= {"caption": caption(world, scene, random, dense=number % 2 == 0)}
        lines.append(json.dumps(row))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def _write_walk(folder: Path, number: int, textures: np.ndarray, steps: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    world = SmallWorld(2000 + number)
    random = np.random.default_rng(number)
    frames, rows = [], []
    for frame in range(steps):
        key = ("", "W", "A", "S", "D")[random.integers(5)]
        dx, dy = TOLD[key]
        row, column = world.player
        rows.append([frame, key, column, -row, 90, dx, dy, 0, f"move {key}"])
        frames.append(small_picture(textures, world.scene()))
        world.step(key)
    write_video(folder / f"{number:03d}.mp4", frames, Fraction(4), crf=8)
    with (folder / f"{number:03d}.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["frame", "keys", "x", "y", "angle", "dx", "dy", "dyaw", "words"], *rows])
