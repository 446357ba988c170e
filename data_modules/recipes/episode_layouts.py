"""Episodes of a world in the layouts that robots' and walkers' recordings come in."""

from __future__ import annotations

import csv
import io
import json
import pickle
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_modules.encoding import write_video
from data_modules.recipes.nwm import PICKLE, write_tables
from data_modules.recipes.world_episodes import CRF, FORMAT, KEYFRAME_EVERY, RATE

QUALITY = 95  # of JPEGs
MOVES = ("dx", "dy")  # columns of what a walker was told
TASK = "walk about"
CAMERA = "observation.images.front"
TABLE_2 = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_2 = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
TABLE_3 = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_3 = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_IN_A_FILE = 8  # of version 3


@dataclass(frozen=True)
class Walk:
    """An episode of a world.

    Args:
        video: its file; the table is beside it.
        frames: (height, width, 3) uint8 each.
        position: (frames, 2) float64, on the map.
        yaw: (frames,) float64, radians.
        moves: (frames, 2) float32, forward and to the left until the next frame; 0 in the last row.
    """

    video: Path
    frames: Sequence[np.ndarray]
    position: np.ndarray
    yaw: np.ndarray
    moves: np.ndarray

    @classmethod
    def read(cls, video: Path) -> Walk:
        """Read a video and its table."""
        import av

        with av.open(str(video)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        with open(video.with_suffix(".csv"), encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        position, moves = ([[float(row[name]) for name in names] for row in rows] for names in (("x", "y"), MOVES))
        yaw = np.radians([float(row["angle"]) for row in rows])
        return cls(video, frames, np.array(position), yaw, np.array(moves, np.float32))

    def jpegs(self) -> list[bytes]:
        """Each frame as a file."""
        files = []
        for frame in self.frames:
            buffer = io.BytesIO()
            Image.fromarray(frame).save(buffer, "JPEG", quality=QUALITY, subsampling=0)  # colours of single pixels
            files.append(buffer.getvalue())
        return files


def write_episode_layouts(videos: Path, out: Path) -> dict[str, int]:
    """Write every layout.

    Args:
        videos: a folder of a split, with tables beside the videos.
        out: gets a folder for each layout, and in it one of the split.

    Returns:
        Frames of each layout.
    """
    walks = [Walk.read(video) for video in sorted(videos.glob("*.mp4"))]
    writers: dict[str, Callable[[Sequence[Walk], Path], None]] = {
        "lerobot_2": write_lerobot_2,
        "lerobot_3": write_lerobot_3,
        "recon": write_recon,
        "nwm": write_nwm,
    }
    for name, write in writers.items():
        (out / name / videos.name).mkdir(parents=True)
        write(walks, out / name / videos.name)
    return dict.fromkeys(writers, sum(len(walk.frames) for walk in walks))


def write_lerobot_2(walks: Sequence[Walk], root: Path) -> None:
    """A LeRobot data set of version 2.1: a table and a video for each episode."""
    _write_info(root, walks, "v2.1", TABLE_2, VIDEO_2)
    lines = []
    for number, walk in enumerate(walks):
        names = {"episode_chunk": 0, "episode_index": number, "video_key": CAMERA}
        video = root / VIDEO_2.format(**names)
        video.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(walk.video, video)
        _write_table(root / TABLE_2.format(**names), _rows(walk, number))
        lines.append({"episode_index": number, "tasks": [TASK], "length": len(walk.frames)})
    _write_lines(root / "meta/episodes.jsonl", lines)
    _write_lines(root / "meta/tasks.jsonl", [{"task_index": 0, "task": TASK}])


def write_lerobot_3(walks: Sequence[Walk], root: Path) -> None:
    """A LeRobot data set of version 3.0: tables and videos of several episodes."""
    _write_info(root, walks, "v3.0", TABLE_3, VIDEO_3)
    entries = []
    for file, first in enumerate(range(0, len(walks), EPISODES_IN_A_FILE)):
        some = walks[first : first + EPISODES_IN_A_FILE]
        names = {"chunk_index": 0, "file_index": file, "video_key": CAMERA}
        video = root / VIDEO_3.format(**names)
        video.parent.mkdir(parents=True, exist_ok=True)
        frames = (frame for walk in some for frame in walk.frames)
        write_video(video, frames, RATE, CRF, FORMAT, KEYFRAME_EVERY)
        _write_table(root / TABLE_3.format(**names), [row for n, w in enumerate(some, first) for row in _rows(w, n)])
        start = 0.0
        for number, walk in enumerate(some, first):
            stop = start + len(walk.frames) / float(RATE)
            place = {"chunk_index": 0, "file_index": file, "from_timestamp": start, "to_timestamp": stop}
            entry = {"episode_index": number, "tasks": [TASK], "length": len(walk.frames)}
            entry |= {"data/chunk_index": 0, "data/file_index": file}
            entries.append(entry | {f"videos/{CAMERA}/{name}": value for name, value in place.items()})
            start = stop
    _write_table(root / "meta/episodes/chunk-000/file-000.parquet", entries)
    _write_table(root / "meta/tasks.parquet", [{"task_index": 0, "task": TASK}])


def write_recon(walks: Sequence[Walk], folder: Path) -> None:
    """An HDF5 file for each episode, as RECON has them: JPEGs, positions and yaws."""
    import h5py

    for walk in walks:
        with h5py.File(folder / f"{walk.video.stem}.hdf5", "w") as file:
            pictures = file.create_dataset("images/rgb_left", (len(walk.frames),), dtype=h5py.vlen_dtype(np.uint8))
            for number, content in enumerate(walk.jpegs()):
                pictures[number] = np.frombuffer(content, np.uint8)
            file["jackal/position"] = np.pad(walk.position, ((0, 0), (0, 1)))  # and how high
            file["jackal/yaw"] = walk.yaw


def write_nwm(walks: Sequence[Walk], folder: Path) -> None:
    """A folder of JPEGs for each episode, as NoMaD and NWM have them, with poses in a pickle and as a table."""
    for walk in walks:
        place = folder / walk.video.stem
        place.mkdir()
        for number, content in enumerate(walk.jpegs()):
            (place / f"{number}.jpg").write_bytes(content)
        (place / PICKLE).write_bytes(pickle.dumps({"position": walk.position, "yaw": walk.yaw}))
    write_tables(folder)


def _write_info(root: Path, walks: Sequence[Walk], version: str, table: str, video: str) -> None:
    height, width, _ = walks[0].frames[0].shape
    features: dict[str, Any] = {CAMERA: {"dtype": "video", "shape": [height, width, 3]}}
    features |= {name: {"dtype": "float32", "shape": [2]} for name in ("observation.state", "action")}
    features |= {name: {"dtype": "int64", "shape": [1]} for name in ("frame_index", "episode_index", "task_index")}
    content = {
        "codebase_version": version,
        "total_episodes": len(walks),
        "total_frames": sum(len(walk.frames) for walk in walks),
        "chunks_size": 1000,
        "fps": int(RATE),
        "data_path": table,
        "video_path": video,
        "features": features | {"timestamp": {"dtype": "float32", "shape": [1]}},
    }
    (root / "meta").mkdir()
    (root / "meta/info.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _rows(walk: Walk, number: int) -> list[dict[str, Any]]:
    return [
        {
            "observation.state": position.tolist(),
            "action": move.tolist(),
            "timestamp": frame / float(RATE),
            "frame_index": frame,
            "episode_index": number,
            "task_index": 0,
        }
        for frame, (position, move) in enumerate(zip(walk.position, walk.moves, strict=True))
    ]


def _write_table(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), file)


def _write_lines(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
