"""Tables of video files: the time stamps of every file and, for episodes, poses, commands and words of every frame.

Files are indexed once; the tables are kept in the `datasets` cache and memory-mapped by every process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from torch import Tensor

from data_modules.dataset import BrokenFile
from data_modules.mixing.permutation import key_of, permute
from data_modules.reading.cached import generated
from data_modules.reading.columns import Column
from data_modules.reading.decoding import VideoReader, index_video
from data_modules.reading.episode_tables import read_table, table_of
from data_modules.reading.files import Stamps, stamp, warn
from data_modules.reading.picture_source import PictureSource, identity_of_files
from data_modules.reading.pictures import square
from data_modules.reading.time_stamps import VideoIndex

POSE = ("x", "y", "angle")
COMMAND = ("dx", "dy", "dyaw")
WORDS = "words"
OF_STEPS = (*COMMAND, WORDS)  # said of the step from this frame to the next, so the last frame needs none
FAR = 1000  # frames from one keyframe to the next, from which on decoding takes seconds
FRAME_BITS = 32  # of a picture's key that count frames; those above count videos
MAX_FRAME = 2**FRAME_BITS - 1


class VideoTable:
    """One row per video file.

    Args:
        rows: made by `index_files`.
    """

    def __init__(self, rows: datasets.Dataset) -> None:
        self.rows = rows
        self._columns = {name: Column(rows, name) for name in rows.column_names}

    def __len__(self) -> int:
        return len(self.rows)

    def path(self, row: int) -> str:
        """The video's path."""
        return self._columns["path"][row]

    def broken(self) -> list[BrokenFile]:
        """Every file that cannot be used."""
        reasons = self._columns["broken"]
        return [BrokenFile(*reasons[row].split("\n", 1)) for row in np.flatnonzero(~reasons.missing()).tolist()]

    def usable(self) -> np.ndarray:
        """Rows of the files that can be used, ascending."""
        return np.flatnonzero(self._columns["broken"].missing())

    def with_far_keyframes(self, most: int) -> list[int]:
        """Rows of the files in which more than `most` frames follow a keyframe before the next, which takes long."""
        far = []
        for row in self.usable().tolist():
            index = self.index(row)
            starts = np.searchsorted(index.pts, index.keyframes)
            if np.diff([*starts, len(index)]).max() > most:
                far.append(row)
        return far

    def numbers(self, column: str, row: int) -> np.ndarray:
        """A column of lists as an array, not copied."""
        return self._columns[column].numbers(row)

    def index(self, row: int) -> VideoIndex:
        """Time stamps of one video, not copied."""
        return VideoIndex(self.numbers("pts", row), self.numbers("keyframes", row), self._columns["time_base"][row])


class VideoPictures(PictureSource):
    """Frames of the videos of a table, brought to size; see `frame_keys`.

    Args:
        table: the videos.
        size: side of a picture in pixels.
    """

    def __init__(self, table: VideoTable, size: int) -> None:
        self.table, self.size = table, size
        self.reader = VideoReader()

    def read(self, keys: Sequence[int]) -> list[Tensor]:
        """(3, size, size) uint8 each; neighbouring keys of one file are decoded in one go."""
        pictures: list[Tensor] = []
        for row, group in groupby(keys, lambda key: key >> FRAME_BITS):
            frames = [key & MAX_FRAME for key in group]
            decoded = self.reader.read(self.table.path(row), self.table.index(row), frames)
            pictures += [square(frame, self.size) for frame in decoded]
        return pictures

    def origin(self, key: int) -> str:
        """`path, frame 17`."""
        return f"{self.table.path(key >> FRAME_BITS)}, frame {key & MAX_FRAME}"

    def identity(self) -> str:
        """Of all usable files; their time stamps follow from them."""
        return identity_of_files([Path(self.table.path(int(row))) for row in self.table.usable()], self.size)


def say_far_keyframes(table: VideoTable, key: str) -> None:
    """Warn of videos of which much has to be decoded for every clip."""
    if rows := table.with_far_keyframes(FAR):
        warn(
            "%s: in %d of %d videos more than %d frames follow one keyframe, and every clip is decoded from there on; "
            "encode them with more keyframes, such as ffmpeg's -g 50; the first is '%s'",
            *(key, len(rows), len(table), FAR, table.path(rows[0])),
        )


def frame_keys(rows: int | np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Keys (frames,) of pictures by their video's row in the table and their number in the video."""
    return (np.asarray(rows, np.int64) << FRAME_BITS) | frames.astype(np.int64)


def index_files(files: Sequence[Path], columns: Sequence[str] = ()) -> VideoTable:
    """Read the time stamps of all `files`, and these columns of the table beside each (see `read_columns`).

    Broken files become rows that say why.
    """
    numbers = datasets.List(datasets.Value("int64"))
    features: dict[str, Any] = {"path": datasets.Value("string"), "broken": datasets.Value("string")}
    features |= {"pts": numbers, "keyframes": numbers, "time_base": datasets.Value("float64")}
    features |= {name: datasets.List(datasets.Value("string" if name == WORDS else "float64")) for name in columns}
    tables = [table_of(video) if columns else None for video in files]
    items = [(stamp([video]), stamp([table] if table else [])) for video, table in zip(files, tables, strict=True)]
    return VideoTable(generated(_rows, items, {"columns": tuple(columns)}, datasets.Features(features)))


def _rows(items: Sequence[tuple[Stamps, Stamps]], columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    for ((path, _, _),), _ in items:
        row: dict[str, Any] = {"path": path, "broken": None, "pts": [], "keyframes": [], "time_base": 0.0}
        row |= {name: [] for name in columns}
        try:
            index = index_video(path)
            if columns:
                row |= read_columns(Path(path), len(index), columns)
            row |= {"pts": index.pts, "keyframes": index.keyframes, "time_base": index.time_base}
        except BrokenFile as error:
            row["broken"] = f"{error.path}\n{error.reason}"
        yield row


def shuffled(count: int) -> np.ndarray:
    """Place (count,) of each document in its table, the same in every run: the first so many are from all files."""
    return permute(np.arange(count), count, key_of("documents of videos"))


def read_columns(video: Path, frames: int, columns: Sequence[str]) -> dict[str, list[Any]]:
    """Columns of the table beside a video, `frames` values each: texts of `words`, numbers of all others.

    What is said of steps (`OF_STEPS`) is 0 or empty in the last row if it is missing there.

    Raises:
        BrokenFile: see `read_table`; or a value is missing, or is no finite number or no text.
    """
    import pandas as pd

    table = read_table(video, columns, frames)
    found: dict[str, list[Any]] = {}
    for name in columns:
        if name == WORDS:
            values = [cell.strip() if isinstance(cell, str) else "" for cell in table[name].to_list()]
            there = np.array(values) != ""
        else:
            numbers = pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64)
            there = np.isfinite(numbers)
            values = np.where(there, numbers, 0.0).tolist()
        needed = there[:-1] if name in OF_STEPS else there
        if not needed.all():
            kind = "text" if name == WORDS else "number"
            raise BrokenFile(table_of(video), f"column {name} has no {kind} in row {int(np.argmin(needed))}")
        found[name] = values
    return found
