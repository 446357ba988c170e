"""Tables of recordings: the time stamps of each and, for episodes, poses, commands and words of every frame.

Recordings are indexed once; the tables are made of the indexes, kept in the `datasets` cache and memory-mapped by every
process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from torch import Tensor

from data_modules.dataset import BrokenFile
from data_modules.index.array_file import ArrayFile
from data_modules.index.keys import key_of_texts
from data_modules.index.making import make_missing
from data_modules.index.range_cache import RangeCache
from data_modules.index.ranges import RangeReader
from data_modules.index.recording_index import recording_sidecars, rows_of
from data_modules.reading.cached import generated
from data_modules.reading.columns import Column
from data_modules.reading.decoding import VideoReader
from data_modules.reading.files import warn
from data_modules.reading.found_recordings import FoundRecordings
from data_modules.reading.frame_keys import FRAME_BITS, MAX_FRAME
from data_modules.reading.picture_identity import Identifier, by_group, numbers_within
from data_modules.reading.picture_source import PictureSource
from data_modules.reading.pictures import Square
from data_modules.reading.recording_columns import ANGLE, Columns
from data_modules.reading.recordings import recording_of
from data_modules.reading.time_stamps import VideoIndex

POSE = ("x", "y", ANGLE)
COMMAND = ("dx", "dy", "dyaw")
WORDS = "words"
OF_STEPS = (*COMMAND, WORDS)  # said of the step from this frame to the next, so the last frame needs none
RESERVED = ("path", "place", "broken", "pts", "keyframes", "time_base")  # columns of what every recording has
FAR = 1000  # frames from one keyframe to the next, from which on decoding takes seconds


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
        to: what they become.
        cache: keeps what is read of remote videos; None keeps nothing.
    """

    def __init__(self, table: VideoTable, to: Square, cache: RangeCache | None = None) -> None:
        self.table, self.to = table, to
        self.reader = VideoReader(ranges=RangeReader(cache))

    def read(self, keys: Sequence[int]) -> list[Tensor]:
        """(3, to.size, to.size) uint8 each; neighbouring keys of one file are decoded in one go."""
        pictures: list[Tensor] = []
        for row, group in groupby(keys, lambda key: key >> FRAME_BITS):
            frames = [key & MAX_FRAME for key in group]
            recording = recording_of(self.table.place(row))
            pictures += recording.read(self.reader, self.table.index(row), frames, self.to)
        return pictures

    def origin(self, key: int) -> str:
        """`path, frame 17`."""
        return f"{self.table.path(key >> FRAME_BITS)}, frame {key & MAX_FRAME}"

    def identities(self, keys: np.ndarray) -> np.ndarray:
        """See `PictureSource.identities`; time stamps follow from the files."""
        identifier = Identifier(self.root, self.to.size, *([self.to.cut] if self.to.cut else []))

        def of_recording(row: int, some: slice) -> np.ndarray:
            recording = recording_of(self.table.place(row))
            try:
                files = [identifier.file(*stamp) for stamp in recording.stamps()]
            except BrokenFile:  # it is gone, as whoever reads it will say
                files = [identifier.present(recording.path)]
            return numbers_within(identifier.text(*files, recording.part), keys[some] & MAX_FRAME)

        return by_group(keys >> FRAME_BITS, of_recording)


def say_far_keyframes(table: VideoTable, key: str) -> None:
    """Warn of videos of which much has to be decoded for every clip."""
    if rows := table.with_far_keyframes(FAR):
        warn(
            "%s: in %d of %d videos more than %d frames follow one keyframe, and every clip is decoded from there on; "
            "encode them with more keyframes, such as ffmpeg's -g 50; the first is '%s'",
            *(key, len(rows), len(table), FAR, table.path(rows[0])),
        )


def index_recordings(found: FoundRecordings, cache: Path, key: str, columns: Columns | None = None) -> VideoTable:
    """Time stamps of all recordings, and these columns of their tables; those that are not indexed yet are first.

    Broken ones become rows that say why.

    Args:
        found: the recordings.
        cache: folder of all indexes.
        key: the YAML key, for messages.
        columns: that are read.

    Raises:
        Mistake: an index cannot be written.
    """
    columns = columns or Columns()
    numbers, text = datasets.List(datasets.Value("int64")), datasets.Value("string")
    features: dict[str, Any] = {"path": text, "place": text, "broken": text}
    features |= {"pts": numbers, "keyframes": numbers, "time_base": datasets.Value("float64")}
    features |= {name: datasets.List(datasets.Value("float64")) for name in columns.numbers}
    features |= {name: datasets.List(text) for name in columns.texts}
    indexing = recording_sidecars(found.items, found.recordings, columns, cache)
    lock = cache / "locks" / key_of_texts(sidecar.name for sidecar in indexing.sidecars)
    indexes = [str(sidecar.path) for sidecar in indexing.sidecars]
    make = partial(make_missing, indexing, f"{key}: recordings", lock)
    return VideoTable(generated(_rows, indexes, {}, datasets.Features(features), make))


def _rows(items: Sequence[str]) -> Iterator[dict[str, Any]]:
    for index in items:
        yield from rows_of(ArrayFile(Path(index)))
