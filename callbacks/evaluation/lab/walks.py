"""Recorded walks, and places in them to go on from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from callbacks.evaluation.lab.cases import split_folder
from data_modules.action_video import ActionVideoSource
from data_modules.reading.action_documents import COLUMNS, moved, told
from data_modules.reading.decoding import VIDEO_SUFFIXES, VideoReader, index_video
from data_modules.reading.episode_tables import read_table
from data_modules.reading.files import find_files
from data_modules.reading.pictures import square
from lit_mm.lab.scene import Scene, WorldFile
from lit_mm.lab.tiles import read_picture

PLACE = ("x", "y")


@dataclass(frozen=True)
class Walk:
    """An episode.

    Attributes:
        frames: (n, 3, size, size) uint8.
        scenes: what each frame shows.
        places: (n, 2) int, row and column of the player on the map, of any origin.
        write: the action, as the model was trained on it, from one frame to another and a share of the horizon.
    """

    frames: Tensor
    scenes: Sequence[Scene]
    places: np.ndarray
    write: Callable[[int, int, float], str]


@dataclass(frozen=True)
class Start:
    """Where to go on: a walk, and the frames of it that are seen and that then come, by number.

    Attributes:
        seen: oldest first.
        coming: one after each step.
        actions: texts of these steps.
    """

    walk: Walk
    seen: list[int]
    coming: list[int]
    actions: tuple[str, ...]

    @property
    def context(self) -> Tensor:
        """(seen, 3, size, size) uint8."""
        return self.walk.frames[self.seen]

    @property
    def scene(self) -> Scene:
        """The last that is seen."""
        return self.walk.scenes[self.seen[-1]]


def walks(data: str, split: str, world: WorldFile, size: int, settings: ActionVideoSource) -> list[Walk]:
    """Every walk of a split of `action_video`, read from the pictures.

    Raises:
        MissingFile: there is none.
        BrokenFile: a file cannot be read.
    """
    folder = split_folder(data, "action_video", split)
    return [_walk(file, world, size, settings) for file in find_files(str(folder), VIDEO_SUFFIXES, str(folder))]


def _walk(file: Path, world: WorldFile, size: int, settings: ActionVideoSource) -> Walk:
    index = index_video(file)
    pictures = VideoReader().read(str(file), index, range(len(index)))
    frames = torch.stack([square(picture, size) for picture in pictures])
    columns = COLUMNS[settings.actions]
    _, table = read_table(file, (*PLACE, *columns), len(index))
    actions = [_numbers(table, name) for name in columns]
    write = told(actions) if settings.actions == "told" else moved(actions, settings.unit)
    x, y = (np.array(_numbers(table, name)).round().astype(int) for name in PLACE)
    return Walk(frames, read_picture(world, frames), np.stack([-y, x], 1), write)


def _numbers(table: Mapping[str, Sequence[Any]], name: str) -> list[float]:
    numbers = pd.to_numeric(pd.Series(list(table[name])), errors="coerce")
    return numbers.fillna(0.0).tolist()  # the last row may have told nothing


def starts(of: Sequence[Walk], settings: ActionVideoSource, steps: int) -> list[Start]:
    """Every place with a full context and so many steps to come."""
    step, context = settings.frame_step, settings.context
    return [
        _start(walk, anchor, settings, steps)
        for walk in of
        for anchor in range((context - 1) * step, len(walk.frames) - steps * step)
    ]


def _start(walk: Walk, anchor: int, settings: ActionVideoSource, steps: int) -> Start:
    step = settings.frame_step
    seen = [anchor - i * step for i in reversed(range(settings.context))]
    coming = [anchor + (i + 1) * step for i in range(steps)]
    actions = tuple(walk.write(number - step, number, 1 / settings.horizon) for number in coming)
    return Start(walk, seen, coming, actions)
