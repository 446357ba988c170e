"""Tables of video files: the time stamps of every file and, for episodes, the pose at every frame.

Files are indexed once; the tables are kept in the `datasets` cache and memory-mapped by every process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
from torch import Tensor

from data_modules.dataset import BrokenFile
from data_modules.mixing.permutation import key_of, permute
from data_modules.reading.decoding import VideoIndex, VideoReader, index_video
from data_modules.reading.files import listed, stamp
from data_modules.reading.picture_source import PictureSource, identity_of_files
from data_modules.reading.pictures import square

if TYPE_CHECKING:
    import pandas as pd

LAYOUT = 1  # of the rows made here; a new number makes cached tables stale
TABLE_SUFFIXES = (".csv", ".parquet", ".jsonl")
POSE = ("x", "y", "angle")
FRAME_BITS = 32  # of a picture's key that count frames; those above count videos
MAX_FRAME = 2**FRAME_BITS - 1


class VideoTable:
    """One row per video file.

    Args:
        rows: made by `index_files`.
    """

    def __init__(self, rows: datasets.Dataset) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def path(self, row: int) -> str:
        """The video's path."""
        return self.rows.data.column("path")[row].as_py()

    def broken(self) -> list[BrokenFile]:
        """Every file that cannot be used."""
        reasons = self.rows.data.column("broken").to_pylist()
        return [BrokenFile(*reason.split("\n", 1)) for reason in reasons if reason]

    def usable(self) -> np.ndarray:
        """Rows of the files that can be used, ascending."""
        return np.flatnonzero(self.rows.data.column("broken").is_null().to_numpy())

    def numbers(self, column: str, row: int) -> np.ndarray:
        """A column of lists as an array, not copied."""
        return self.rows.data.column(column)[row].values.to_numpy()

    def index(self, row: int) -> VideoIndex:
        """Time stamps of one video."""
        time_base = self.rows.data.column("time_base")[row].as_py()
        return VideoIndex(self.numbers("pts", row), self.numbers("keyframes", row), time_base)


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


def frame_keys(rows: int | np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Keys (frames,) of pictures by their video's row in the table and their number in the video."""
    return (np.asarray(rows, np.int64) << FRAME_BITS) | frames.astype(np.int64)


def index_files(files: Sequence[Path], poses: bool) -> VideoTable:
    """Read the time stamps of all `files`, with `poses` also the table beside each (see `read_poses`).

    Broken files become rows that say why.
    """
    numbers = datasets.List(datasets.Value("int64"))
    features: dict[str, Any] = {"path": datasets.Value("string"), "broken": datasets.Value("string")}
    features |= {"pts": numbers, "keyframes": numbers, "time_base": datasets.Value("float64")}
    if poses:
        features |= {name: datasets.List(datasets.Value("float64")) for name in POSE}
    tables = [f for video in files if (f := table_of(video))] if poses else []
    rows = datasets.Dataset.from_generator(
        _rows,
        features=datasets.Features(features),
        gen_kwargs={"stamps": stamp(files), "tables": stamp(tables), "poses": poses, "layout": LAYOUT},
    )
    return VideoTable(rows)


def _rows(
    stamps: Sequence[tuple[str, int, int]], tables: Sequence[tuple[str, int, int]], poses: bool, layout: int
) -> Iterator[dict[str, Any]]:
    for path, _, _ in stamps:
        row: dict[str, Any] = {"path": path, "broken": None, "pts": [], "keyframes": [], "time_base": 0.0}
        row |= {name: [] for name in POSE} if poses else {}
        try:
            index = index_video(path)
            if poses:
                row |= read_poses(Path(path), len(index))
            row |= {"pts": index.pts, "keyframes": index.keyframes, "time_base": index.time_base}
        except BrokenFile as error:
            row["broken"] = f"{error.path}\n{error.reason}"
        yield row


def shuffled(count: int) -> np.ndarray:
    """Place (count,) of each document in its table, the same in every run: the first so many are from all files."""
    return permute(np.arange(count), count, key_of("documents of videos"))


def table_of(video: Path) -> Path | None:
    """The table beside an episode's video: the same name ending in .csv, .parquet or .jsonl."""
    return next((f for suffix in TABLE_SUFFIXES if (f := video.with_suffix(suffix)).is_file()), None)


def read_table(video: Path, columns: Sequence[str], frames: int) -> pd.DataFrame:
    """The table beside a video, in the order of its `frames` frames; it has at least these columns.

    Raises:
        BrokenFile: there is no such table, it cannot be read, or it has not one row for every frame.
    """
    import pandas as pd

    file = table_of(video)
    if file is None:
        raise BrokenFile(video, f"there is no table beside it; write '{video.with_suffix('.csv').name}'")
    readers = {".csv": pd.read_csv, ".parquet": pd.read_parquet, ".jsonl": lambda f: pd.read_json(f, lines=True)}
    try:
        table = readers[file.suffix](file)
    except Exception as error:  # pandas' readers raise their own, pyarrow's and Python's errors
        raise BrokenFile(file, error) from error
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise BrokenFile(
            file, f"there is no column {listed(missing)}; there are {listed([str(c) for c in table.columns], 'and')}"
        )
    if "frame" in table.columns:
        table = table.sort_values("frame", kind="stable")
    if len(table) != frames:
        raise BrokenFile(file, f"it has {len(table)} rows but '{video.name}' has {frames} frames; one each is expected")
    return table


def read_poses(video: Path, frames: int) -> dict[str, np.ndarray]:
    """Columns x, y and angle of the table beside a video, each (frames,) float64.

    Raises:
        BrokenFile: see `read_table`; or a value is no number.
    """
    import pandas as pd

    table = read_table(video, POSE, frames)
    poses = {name: pd.to_numeric(table[name], errors="coerce").to_numpy(np.float64) for name in POSE}
    for name, values in poses.items():
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values))[0])
            raise BrokenFile(table_of(video), f"column {name} has no number in row {row}")
    return poses
