"""Tables of recordings: the time stamps of each and, for episodes, poses, commands and words of every frame.

Recordings are indexed once; the tables are kept in the `datasets` cache and memory-mapped by every process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from torch import Tensor

from data_modules.dataset import BrokenFile
from data_modules.index.range_cache import RangeCache
from data_modules.index.ranges import RangeReader
from data_modules.mixing.permutation import key_of, permute
from data_modules.reading.cached import code_of, generated
from data_modules.reading.columns import Column
from data_modules.reading.decoding import VideoReader
from data_modules.reading.files import Stamps, warn
from data_modules.reading.picture_source import PictureSource, identity_of_files
from data_modules.reading.recordings import Recording, VideoFile, recording_of
from data_modules.reading.time_stamps import VideoIndex

ANGLE, YAW = "angle", "yaw"
POSE = ("x", "y", ANGLE)
COMMAND = ("dx", "dy", "dyaw")
WORDS = "words"
OF_STEPS = (*COMMAND, WORDS)  # said of the step from this frame to the next, so the last frame needs none
RESERVED = ("path", "place", "broken", "pts", "keyframes", "time_base")  # columns of what every recording has
FAR = 1000  # frames from one keyframe to the next, from which on decoding takes seconds
FRAME_BITS = 32  # of a picture's key that count frames; those above count videos
MAX_FRAME = 2**FRAME_BITS - 1


class VideoTable:
    """One row per recording.

    Args:
        rows: made by `index_recordings`.
    """

    def __init__(self, rows: datasets.Dataset) -> None:
        self.rows = rows
        self._columns = {name: Column(rows, name) for name in rows.column_names}

    def __len__(self) -> int:
        return len(self.rows)

    def path(self, row: int) -> str:
        """The recording's name, for a video its path."""
        return self._columns["path"][row]

    def place(self, row: int) -> str:
        """What `recording_of` makes the recording of."""
        return self._columns["place"][row]

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

    def columns(self, row: int) -> dict[str, list[Any]]:
        """All that was read of an episode besides its time stamps, by column."""
        others = [name for name in self._columns if name not in RESERVED]
        return {name: self._columns[name][row] for name in others}

    def index(self, row: int) -> VideoIndex:
        """Time stamps of one video, not copied."""
        return VideoIndex(self.numbers("pts", row), self.numbers("keyframes", row), self._columns["time_base"][row])


class VideoPictures(PictureSource):
    """Frames of the videos of a table, brought to size; see `frame_keys`.

    Args:
        table: the videos.
        size: side of a picture in pixels.
        cache: keeps what is read of remote videos; None keeps nothing.
    """

    def __init__(self, table: VideoTable, size: int, cache: RangeCache | None = None) -> None:
        self.table, self.size = table, size
        self.reader = VideoReader(ranges=RangeReader(cache))

    def read(self, keys: Sequence[int]) -> list[Tensor]:
        """(3, size, size) uint8 each; neighbouring keys of one file are decoded in one go."""
        pictures: list[Tensor] = []
        for row, group in groupby(keys, lambda key: key >> FRAME_BITS):
            frames = [key & MAX_FRAME for key in group]
            recording = recording_of(self.table.place(row))
            pictures += recording.read(self.reader, self.table.index(row), frames, self.size)
        return pictures

    def origin(self, key: int) -> str:
        """`path, frame 17`."""
        return f"{self.table.path(key >> FRAME_BITS)}, frame {key & MAX_FRAME}"

    def identity(self) -> str:
        """Of all usable files; their time stamps follow from them."""
        recordings = [recording_of(self.table.place(int(row))) for row in self.table.usable()]
        parts = [recording.part for recording in recordings if recording.part]
        return identity_of_files([Path(recording.path) for recording in recordings], self.size, *parts)


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


@dataclass(frozen=True)
class Columns:
    """What is read of every frame besides its picture.

    Args:
        numbers: names of columns of numbers.
        texts: names of columns of texts.
        of_steps: those of both that are said of the step from this frame to the next, so that the last needs none.
        renamed: pairs of a name and the column that it is read from.
    """

    numbers: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    of_steps: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()


def index_recordings(recordings: Sequence[Recording], columns: Columns | None = None) -> VideoTable:
    """Read the time stamps of all `recordings`, and these columns of their tables.

    Broken ones become rows that say why.
    """
    columns = columns or Columns()
    numbers, text = datasets.List(datasets.Value("int64")), datasets.Value("string")
    features: dict[str, Any] = {"path": text, "place": text, "broken": text}
    features |= {"pts": numbers, "keyframes": numbers, "time_base": datasets.Value("float64")}
    features |= {name: datasets.List(datasets.Value("float64")) for name in columns.numbers}
    features |= {name: datasets.List(text) for name in columns.texts}
    has_columns = bool(columns.numbers or columns.texts)
    items = [(recording.stamps(has_columns), recording.place) for recording in recordings]
    # Which classes these are is found in a table, where the code that rows are made by cannot be followed.
    code = tuple(sorted({code_of(kind) for kind in {VideoFile, *map(type, recordings)}}))
    return VideoTable(generated(_rows, items, {"columns": columns, "code": code}, datasets.Features(features)))


def _rows(items: Sequence[tuple[Stamps, str]], columns: Columns, code: Sequence[str]) -> Iterator[dict[str, Any]]:
    for _, place in items:
        recording = recording_of(place)
        row: dict[str, Any] = {"path": recording.name, "place": place, "broken": None}
        row |= {"pts": [], "keyframes": [], "time_base": 0.0}
        row |= {name: [] for name in (*columns.numbers, *columns.texts)}
        try:
            index = recording.index()
            if columns.numbers or columns.texts:
                row |= read_columns(recording, index, columns)
            row |= {"pts": index.pts, "keyframes": index.keyframes, "time_base": index.time_base}
        except BrokenFile as error:
            row["broken"] = f"{error.path}\n{error.reason}"
        yield row


def shuffled(count: int) -> np.ndarray:
    """Place (count,) of each document in its table, the same in every run: the first so many are from all files."""
    return permute(np.arange(count), count, key_of("documents of videos"))


def read_columns(recording: Recording, index: VideoIndex, columns: Columns) -> dict[str, list[Any]]:
    """Columns of a recording, a value for each frame.

    What is said of steps is 0 or empty in the last row if it is missing there.

    Raises:
        BrokenFile: see `Recording.table`; or a value is missing, or is no finite number or no text.
    """
    import pandas as pd

    file, table = _table(recording, index, columns)
    found: dict[str, list[Any]] = {}
    for name in (*columns.numbers, *columns.texts):
        if name in columns.texts:
            values = [cell.strip() if isinstance(cell, str) else "" for cell in table[name]]
            there = np.array(values) != ""
        else:
            numbers = pd.to_numeric(pd.Series(list(table[name])), errors="coerce").to_numpy(np.float64)
            there = np.isfinite(numbers)
            values = np.where(there, numbers, 0.0).tolist()
        needed = there[:-1] if name in columns.of_steps else there
        if not needed.all():
            kind = "text" if name in columns.texts else "number"
            raise BrokenFile(file, f"column {name} has no {kind} in row {int(np.argmin(needed))}")
        found[name] = values
    return found


def _table(recording: Recording, index: VideoIndex, columns: Columns) -> tuple[Path, Mapping[str, Sequence[Any]]]:
    """Columns by the names that are asked for. In place of `angle`, in degrees, a table may have `yaw`, in radians."""
    renamed = dict(columns.renamed)
    sources = {name: renamed.get(name, name) for name in (*columns.numbers, *columns.texts)}
    in_radians = {name: renamed.get(YAW, YAW) if name == ANGLE else source for name, source in sources.items()}
    try:
        file, table = recording.table(list(sources.values()), index)
        return file, {name: table[source] for name, source in sources.items()}
    except BrokenFile:
        if ANGLE not in sources or ANGLE in renamed:
            raise
        try:
            file, table = recording.table(list(in_radians.values()), index)
        except BrokenFile:
            pass  # the first one says what is missing
        else:
            found = {name: table[source] for name, source in in_radians.items()}
            return file, found | {ANGLE: [np.degrees(float(yaw)) for yaw in found[ANGLE]]}
        raise
