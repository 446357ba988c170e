"""From pictures to tiles, by the nearest template."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lit_mm.lab.scene import LIGHTS, UNREADABLE, Scene, WorldFile
from lit_mm.mistake import Mistake

# A tile is unreadable beyond this share of the mean distance between two templates. Measured on pictures of Crafter:
# after JPEG of quality 90 (27 dB) or noise of 20 of 255 by day (23 dB) all tiles are read right and none is beyond it;
# of noise alone all are, of views of a first-person game seven tenths.
FARTHEST = 1 / 6
AT_ONCE = 512  # pictures


class Reading(NamedTuple):
    """What was read from F pictures.

    Attributes:
        tiles: (F, rows, columns) uint8, index of the nearest template, however far it is.
        night: (F,) bool, the templates of the night are nearer than those of the day.
        distance: (F, rows, columns) float32, mean squared distance to the template, of values from 0 to 255.
        readable: (F, rows, columns) bool, that distance is at most `farthest_readable`.
    """

    tiles: np.ndarray
    night: np.ndarray
    distance: np.ndarray
    readable: np.ndarray

    @property
    def scenes(self) -> list[Scene]:
        """The views, with `UNREADABLE` tiles where no template is near."""
        tiles = np.where(self.readable, self.tiles, UNREADABLE).astype(np.uint8)
        return [Scene(view, bool(night)) for view, night in zip(tiles, self.night, strict=True)]


def read_picture(world: WorldFile, pictures: Tensor) -> list[Scene]:
    """Pictures (F, 3, height, width) uint8 as scenes; see `read_tiles`."""
    return read_tiles(world, pictures).scenes


def read_tiles(world: WorldFile, pictures: Tensor) -> Reading:
    """Find the nearest template for every tile of F pictures.

    Args:
        world: of which they are pictures.
        pictures: (F, 3, height, width) uint8.

    Raises:
        Mistake: the pictures have another size than the world's.
    """
    height, width = world.rows * world.tile, world.columns * world.tile
    if pictures.ndim != 4 or tuple(pictures.shape[1:]) != (3, height, width) or pictures.dtype != torch.uint8:
        found = f"{' x '.join(map(str, pictures.shape))} {str(pictures.dtype).removeprefix('torch.')}"
        raise Mistake(f"pictures {found}: world '{world.name}' is seen in pictures 3 x {height} x {width} uint8")
    parts = [_read(world, part) for part in pictures.cpu().split(AT_ONCE)]
    if not parts:
        nothing = np.zeros((0, world.rows, world.columns))
        return Reading(nothing.astype(np.uint8), np.zeros(0, bool), nothing.astype(np.float32), nothing.astype(bool))
    return Reading(*(np.concatenate(of_all) for of_all in zip(*parts, strict=True)))


@lru_cache(maxsize=8)
def farthest_readable(world: WorldFile, light: str) -> float:
    """Mean squared distance beyond which a tile is unreadable, by "day" or "night"."""
    templates = world.templates[light].flatten(1).double()
    pairs = torch.cdist(templates, templates).square() / templates.shape[1]
    return FARTHEST * float(pairs.sum()) / max(len(templates) * (len(templates) - 1), 1)


def _read(world: WorldFile, pictures: Tensor) -> Reading:
    shape = (len(pictures), world.rows, world.columns)
    cut = pictures.reshape(-1, 3, world.rows, world.tile, world.columns, world.tile)
    pixels = cut.permute(0, 2, 4, 1, 3, 5).reshape(-1, 3 * world.tile**2).float()
    lights = []
    for light in LIGHTS:
        templates = world.templates[light].flatten(1).float()
        # |a - b|² = |a|² - 2ab + |b|², exact: whole numbers below 2²⁴ in float32.
        squares = templates.square().sum(1) - 2 * pixels @ templates.T + pixels.square().sum(1, keepdim=True)
        lights.append(squares.min(1))
    night = lights[1].values.view(shape).sum((1, 2)) < lights[0].values.view(shape).sum((1, 2))
    of_night = night.repeat_interleave(world.rows * world.columns)
    distance = torch.where(of_night, lights[1].values, lights[0].values) / pixels.shape[1]
    tiles = torch.where(of_night, lights[1].indices, lights[0].indices).to(torch.uint8)
    day_limit, night_limit = (farthest_readable(world, light) for light in LIGHTS)
    readable = distance <= torch.where(of_night, night_limit, day_limit)
    tiles, distance, readable = tiles.view(shape), distance.view(shape), readable.view(shape)
    return Reading(tiles.numpy(), night.numpy(), distance.numpy(), readable.numpy())
