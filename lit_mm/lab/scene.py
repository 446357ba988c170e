"""The description of a world of tiles, as it lies beside its data, and one view of that world."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lit_mm.mistake import MissingFile, Mistake

UNREADABLE = 255  # in place of a tile's index: a tile of a picture that looks like none of the world's
LIGHTS = ("day", "night")
# Offsets are (rows down, columns right).
FACINGS = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
PLAYER = "player"


@dataclass(frozen=True)
class Tile:
    """What one tile shows: the ground, and the thing that stands on it, if there is one."""

    ground: str
    thing: str | None = None
    facing: str | None = None


@dataclass(frozen=True)
class Kind:
    """What a caption can name.

    Attributes:
        plural: of its name; None of what is not counted, such as water.
        walkable: the player can step onto it.
        creature: it moves of its own accord.
        article: put before its name, such as "the" edge; None for "a" or "an" of what is counted, and none of the rest.
    """

    plural: str | None = None
    walkable: bool = False
    creature: bool = False
    article: str | None = None


@dataclass(frozen=True, eq=False)
class WorldFile:
    """A world of tiles: what `world.json` and the templates beside it say.

    Attributes:
        name: of the world.
        rows: of a view, in tiles.
        columns: of a view, in tiles.
        tile: side of a tile in pixels.
        player: row and column of the player in every view, from 0.
        tiles: all there are; a scene holds their indices.
        kinds: all that a caption can name, by name; the player is not among them.
        moves: offset in rows (down) and columns (right) that each key asks for.
        templates: (tiles, 3, tile, tile) uint8 pictures of the tiles by "day" and by "night".
    """

    name: str
    rows: int
    columns: int
    tile: int
    player: tuple[int, int]
    tiles: tuple[Tile, ...]
    kinds: dict[str, Kind]
    moves: dict[str, tuple[int, int]]
    templates: dict[str, Tensor]

    @classmethod
    def load(cls, path: str | Path) -> WorldFile:
        """Read a world.

        Args:
            path: of `world.json`; `templates_day.png` and `templates_night.png` lie beside it.

        Raises:
            Mistake: a file is missing or does not describe a world.
        """
        path = Path(path)
        if not path.is_file():
            raise MissingFile(f"{path}: there is no such file; `python -m data_modules.recipes crafter` writes one")
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            world = cls(
                name=found["name"],
                rows=int(found["rows"]),
                columns=int(found["columns"]),
                tile=int(found["tile"]),
                player=_pair(found["player"]),
                tiles=tuple(Tile(**tile) for tile in found["tiles"]),
                kinds={name: Kind(**kind) for name, kind in found["kinds"].items()},
                moves={key: _pair(offset) for key, offset in found["moves"].items()},
                templates={},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Mistake(f"{path}: it does not describe a world of tiles ({error!r})") from error
        _check(path, world)
        for light in LIGHTS:
            world.templates[light] = _templates(path.with_name(f"templates_{light}.png"), world)
        return world

    @cached_property
    def index(self) -> dict[Tile, int]:
        """Where each tile stands in `tiles`."""
        return {tile: index for index, tile in enumerate(self.tiles)}


@dataclass(frozen=True, eq=False)
class Scene:
    """One view of a world.

    Attributes:
        tiles: (rows, columns) uint8, indices into the world's tiles, or `UNREADABLE`.
        night: it is night.
    """

    tiles: np.ndarray
    night: bool = False


def walkable(world: WorldFile, scene: Scene, row: int, column: int) -> bool:
    """Whether somebody could step onto a tile: it is in view, its ground can be walked on, and nothing stands there."""
    inside = 0 <= row < world.rows and 0 <= column < world.columns
    if not inside or scene.tiles[row, column] == UNREADABLE:
        return False
    tile = world.tiles[scene.tiles[row, column]]
    return tile.thing is None and world.kinds.get(tile.ground, Kind()).walkable


def _check(path: Path, world: WorldFile) -> None:
    """Raise a Mistake where the parts of a world do not fit each other."""
    row, column = world.player
    if not (0 <= row < world.rows and 0 <= column < world.columns):
        raise Mistake(f"{path}: player {[row, column]} is outside the view of {world.rows} x {world.columns} tiles")
    if not 0 < len(world.tiles) <= UNREADABLE:
        raise Mistake(f"{path}: {len(world.tiles)} tiles were found; a world has 1 to {UNREADABLE}")
    for name in world.kinds:
        if not re.fullmatch(r"[a-z]+( (?!and )[a-z]+)*", name):
            raise Mistake(
                f"{path}: kind '{name}' cannot be told in captions; use words of small letters, without 'and'"
            )
    for key, offset in world.moves.items():
        if offset not in FACINGS.values():
            raise Mistake(f"{path}: moves.{key} is {list(offset)}; a move goes to one of the four next tiles")
    grounds = {tile.ground for tile in world.tiles if world.kinds.get(tile.ground, Kind()).walkable}
    for ground, facing in product(sorted(grounds), FACINGS):
        if Tile(ground, PLAYER, facing) not in world.index:
            raise Mistake(f"{path}: '{ground}' is walkable, but no tile shows the player on it facing {facing}")


def _pair(values: Any) -> tuple[int, int]:
    first, second = values
    return int(first), int(second)


def _templates(path: Path, world: WorldFile) -> Tensor:
    """(tiles, 3, tile, tile) uint8 from a picture of them in one row."""
    if not path.is_file():
        raise MissingFile(f"{path}: the templates of world '{world.name}' are missing")
    with Image.open(path) as image:
        pixels = torch.from_numpy(np.array(image.convert("RGB")))
    height, width = world.tile, world.tile * len(world.tiles)
    if pixels.shape[:2] != (height, width):
        found = f"{pixels.shape[1]} x {pixels.shape[0]} pixels"
        raise Mistake(f"{path}: {found} were found; {len(world.tiles)} templates in a row have {width} x {height}")
    return pixels.reshape(height, len(world.tiles), height, 3).permute(1, 3, 0, 2).contiguous()
