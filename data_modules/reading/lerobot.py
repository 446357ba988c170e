"""Episodes of LeRobot data sets, versions 2.0, 2.1 and 3.0, read where they lie.

Layout of 2.x: `meta/info.json`, `meta/episodes.jsonl`, `meta/tasks.jsonl`, and for every episode a table
`data/chunk-000/episode_000000.parquet` and a video `videos/chunk-000/<camera>/episode_000000.mp4`. In 3.0 tables and
videos hold many episodes, and `meta/episodes/**/*.parquet` says which part of which file each is. Pictures may be in
the tables instead, as the column of a feature of the type `image`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
from torch import Tensor

from data_modules.dataset import BrokenFile
from data_modules.index.input_files import local_file
from data_modules.reading.damages import damages_of
from data_modules.reading.decoding import VideoReader, index_video
from data_modules.reading.episode_tables import column_of
from data_modules.reading.files import listed
from data_modules.reading.pictures import Square
from data_modules.reading.recordings import Recording
from data_modules.reading.time_stamps import VideoIndex
from lit_mm.mistake import Mistake

INFO = "meta/info.json"
VERSIONS = ("v2.0", "v2.1", "v3.0")
VIDEO, IMAGE = "video", "image"  # types of cameras
TASK = "task"  # a column of what the robot is to do, in words


def is_lerobot(path: str) -> bool:
    """Whether a path names a LeRobot data set, with or without `#` and episodes."""
    return (Path(path.partition("#")[0]).expanduser() / INFO).is_file()


@dataclass(frozen=True)
class LeRobotEpisode(Recording):
    """One episode.

    Args:
        root: folder of the data set.
        episode: its number.
        rows_file: the table of its columns.
        start: seconds of its first frame in the video.
        frames: how many there are.
        task: what the robot is to do.
    """

    root: str
    episode: int
    rows_file: str
    start: float
    frames: int
    task: str

    @property
    def name(self) -> str:
        """`pusht/episode_000012`."""
        return f"{self.root}/episode_{self.episode:06d}"

    @property
    def part(self) -> str:
        """Which frames."""
        return f"{self.frames} from {self.start}"

    def table_file(self) -> Path | None:
        """The table of this episode, or of several."""
        return Path(self.rows_file)

    def index(self) -> VideoIndex:
        """The part of the video that is this episode."""
        whole = _index(self.path, Path(self.path).stat().st_mtime_ns)
        first = int(np.searchsorted(whole.pts, whole.pts[0] + self.start / whole.time_base - _half_frame(whole)))
        pts = whole.pts[first : first + self.frames]
        if len(pts) < self.frames:
            found = f"its video has {len(pts)} frames from {self.start:.3f} s on, but {self.frames} are listed"
            raise BrokenFile(self.path, f"episode {self.episode}: {found}")
        before = int(np.searchsorted(whole.keyframes, pts[0], side="right")) - 1
        last = int(np.searchsorted(whole.keyframes, pts[-1], side="right"))
        return VideoIndex(pts, whole.keyframes[max(0, before) : last], whole.time_base)

    def read(self, reader: VideoReader, index: VideoIndex, frames: Sequence[int], to: Square) -> list[Tensor]:
        """Decoded from the keyframe before each."""
        return [to(frame) for frame in reader.read(self.path, index, frames)]

    def table(self, columns: Sequence[str], index: VideoIndex) -> tuple[Path, Mapping[str, Sequence[Any]]]:
        """Rows of this episode, in the order of their frames; `task` is the same in all."""
        file = Path(self.rows_file)
        wanted = pyarrow.dataset.field("episode_index") == self.episode
        try:
            stored = [field.name for field in pyarrow.parquet.read_schema(file) if not pa.types.is_struct(field.type)]
            rows = pyarrow.parquet.read_table(file, columns=stored, filters=wanted).sort_by("frame_index")
        except (OSError, pyarrow.ArrowException, KeyError) as error:
            raise BrokenFile(file, error) from error
        if len(rows) != len(index):
            raise BrokenFile(file, f"episode {self.episode} has {len(rows)} rows, but {len(index)} frames; one each")
        with damages_of(file):
            values: dict[str, Sequence[Any]] = {name: rows[name].to_pylist() for name in rows.column_names}
        values[TASK] = values.get(TASK, [self.task] * len(rows))
        return file, {name: column_of(values, name, file) for name in columns}


@dataclass(frozen=True)
class LeRobotPictures(LeRobotEpisode):
    """One episode whose pictures are in its table, where they are read.

    Args:
        camera: their column.
        rate: frames a second.
    """

    camera: str
    rate: float

    @property
    def part(self) -> str:
        """Which rows, and of which column."""
        return f"{self.camera} of {self.episode}"

    def index(self) -> VideoIndex:
        """As many frames as are listed, evenly apart."""
        found = len(_rows(self.path, Path(self.path).stat().st_mtime_ns, self.episode))
        if found != self.frames:
            raise BrokenFile(self.path, f"episode {self.episode} has {found} rows, but {self.frames} are listed")
        pts = np.arange(self.frames, dtype=np.int64)
        return VideoIndex(pts, pts, 1 / self.rate)

    def read(self, reader: VideoReader, index: VideoIndex, frames: Sequence[int], to: Square) -> list[Tensor]:
        """Of each the group of rows that it is in is read."""
        file = local_file(Path(self.path))
        rows = _rows(self.path, int(file.changed), self.episode)
        pictures = []
        for row in rows[list(frames)].tolist():
            with damages_of(self.path):
                value = reader.groups.value(file, row, self.camera).as_py()
            name = f"{self.path}, {self.camera}, row {row}"
            if not value or not value.get("bytes"):
                raise BrokenFile(name, "there is no picture in it")
            pictures.append(to.read(value["bytes"], name))
        return pictures


def _rows(path: str, changed: int, episode: int) -> np.ndarray:
    """Numbers (frames,) of an episode's rows in its table, in the order of the frames."""
    order, episodes = _ordered(path, changed)
    return order[slice(*np.searchsorted(episodes, [episode, episode + 1]))]


@lru_cache(maxsize=4)
def _ordered(path: str, changed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers (rows,) of all rows of a table by episode and frame, and the episode (rows,) of each; read once."""
    try:
        table = pyarrow.parquet.read_table(path, columns=["episode_index", "frame_index"])
        episodes, frames = (np.asarray(table[name]) for name in ("episode_index", "frame_index"))
    except (OSError, pa.ArrowException, KeyError) as error:
        raise BrokenFile(path, error) from error
    order = np.lexsort((frames, episodes))
    return order, episodes[order]


@lru_cache(maxsize=2)
def _index(path: str, changed: int) -> VideoIndex:
    """Of a video that holds many episodes, which come one after the other."""
    return index_video(path)


def _half_frame(index: VideoIndex) -> float:
    """Half of the time between two frames, in ticks."""
    return float(np.diff(index.pts[:2]).sum()) / 2 if len(index) > 1 else 0.5


def lerobot_episodes(path: str, key: str, camera: str | None) -> Iterator[LeRobotEpisode]:
    """Episodes of a data set, or those numbered behind `#` (`pusht#0:180`: the first 180).

    Raises:
        Mistake: the version is not known, there are several cameras, or the episodes are not there.
        BrokenFile: a file of `meta` cannot be read.
    """
    folder, _, wanted = path.partition("#")
    root = Path(folder).expanduser()
    info = _json(root / INFO)
    with damages_of(root / INFO):
        version = info.get("codebase_version")
        if version not in VERSIONS:
            raise Mistake(f"{key}: '{root / INFO}' says version {version!r}; {listed(VERSIONS)} is read")
        chosen = _camera(info, camera, key, root)
    episodes = _of_3(root, info, chosen) if version == "v3.0" else _of_2(root, info, chosen)
    try:
        some = episodes[_slice(wanted)] if wanted else episodes
    except ValueError as error:
        raise Mistake(f"{key}: '#{wanted}' names no episodes; write the first and the last but one, #0:180") from error
    if not some:
        raise Mistake(f"{key}: '{path}' names none of the {len(episodes)} episodes of '{root}'")
    yield from some


def _slice(wanted: str) -> slice:
    first, colon, last = wanted.partition(":")
    stop = (int(last) if last else None) if colon else int(first) + 1
    return slice(int(first) if first else None, stop)


def _camera(info: Mapping[str, Any], camera: str | None, key: str, root: Path) -> str:
    features = info.get("features", {})
    cameras = [name for name, feature in features.items() if feature.get("dtype") in (VIDEO, IMAGE)]
    if not cameras:
        raise Mistake(f"{key}: '{root}' has no feature of the type {VIDEO} or {IMAGE}; name a data set with pictures")
    if camera is None and len(cameras) > 1:
        raise Mistake(f"{key}: '{root}' has the cameras {listed(cameras, 'and')}; choose one with `camera`")
    if camera is not None and camera not in cameras:
        raise Mistake(f"{key}: '{root}' has no camera '{camera}'; there is {listed(cameras)}")
    return camera or cameras[0]


def _of_2(root: Path, info: Mapping[str, Any], camera: str) -> list[LeRobotEpisode]:
    lines, found = _lines(root / "meta/episodes.jsonl"), []
    with damages_of(root / INFO):
        chunk = max(1, int(info.get("chunks_size", 1000)))
    with damages_of(root / "meta/episodes.jsonl"):
        for entry in sorted(lines, key=lambda line: line["episode_index"]):
            number = int(entry["episode_index"])
            names = {"episode_chunk": number // chunk, "episode_index": number, "video_key": camera}
            table = _named(root, info, "data_path", names)
            video = None if _in_tables(info, camera) else (_named(root, info, "video_path", names), 0.0)
            found.append(_episode(root, info, camera, entry, table, video))
    return found


def _of_3(root: Path, info: Mapping[str, Any], camera: str) -> list[LeRobotEpisode]:
    files = sorted((root / "meta/episodes").rglob("*.parquet"))
    if not files:
        raise BrokenFile(root / "meta/episodes", "there is no .parquet file in it")
    found, in_tables, place = [], _in_tables(info, camera), f"videos/{camera}"
    columns = ["episode_index", "length", "tasks", "data/chunk_index", "data/file_index"]
    columns += [] if in_tables else [f"{place}/{name}" for name in ("chunk_index", "file_index", "from_timestamp")]
    for file in files:
        try:
            rows = pyarrow.parquet.read_table(file, columns=columns).to_pylist()
        except (OSError, pyarrow.ArrowException, KeyError, UnicodeDecodeError) as error:
            raise BrokenFile(file, error) from error
        with damages_of(file):
            for row in rows:
                of_table = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
                table, video = _named(root, info, "data_path", of_table), None
                if not in_tables:
                    of_video = {"chunk_index": row[f"{place}/chunk_index"], "file_index": row[f"{place}/file_index"]}
                    path = _named(root, info, "video_path", of_video | {"video_key": camera})
                    video = path, float(row[f"{place}/from_timestamp"])
                found.append(_episode(root, info, camera, row, table, video))
    return sorted(found, key=lambda episode: episode.episode)


def _named(root: Path, info: Mapping[str, Any], kind: str, names: Mapping[str, Any]) -> Path:
    """A file by the pattern that the data set's description has for its kind."""
    with damages_of(root / INFO):
        return root / info[kind].format(**names)


def _in_tables(info: Mapping[str, Any], camera: str) -> bool:
    """Whether a camera's pictures are in the tables."""
    return bool(info["features"][camera]["dtype"] == IMAGE)


def _episode(
    root: Path,
    info: Mapping[str, Any],
    camera: str,
    entry: Mapping[str, Any],
    table: Path,
    video: tuple[Path, float] | None,
) -> LeRobotEpisode:
    """An episode as it is listed, in its video from a second on, or in its table."""
    number, length, task = int(entry["episode_index"]), int(entry["length"]), "; ".join(entry.get("tasks") or [])
    if video is None:
        return LeRobotPictures(str(table), str(root), number, str(table), 0.0, length, task, camera, float(info["fps"]))
    return LeRobotEpisode(str(video[0]), str(root), number, str(table), video[1], length, task)


def _json(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise BrokenFile(file, error) from error


def _lines(file: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise BrokenFile(file, error) from error
