"""Data sets of LeRobot with three episodes, in each of its layouts."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.data_modules.video_files import moving_picture, write_video

LENGTHS = (9, 7, 12)  # frames of the episodes
CAMERA = "observation.images.top"


def of_episode(number: int) -> dict[str, Any]:
    """Columns as LeRobot has them; the third action is the gripper."""
    count = LENGTHS[number]
    action = [[float(number), -i / 8, float(i % 2)] for i in range(count)]
    return {
        "observation.state": [[i * 0.5, number * 1.0] for i in range(count)],
        "action": action,
        "timestamp": [i / 10 for i in range(count)],
        "frame_index": list(range(count)),
        "episode_index": [number] * count,
        "task_index": [number % 2] * count,
    }


def pictures_of(number: int) -> list[np.ndarray]:
    return moving_picture(LENGTHS[number], seed=number)


def with_pictures(number: int) -> dict[str, Any]:
    """The same columns, and pictures as `datasets` keeps them."""
    files = []
    for picture in pictures_of(number):
        buffer = BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        files.append({"bytes": buffer.getvalue(), "path": f"frame_{len(files):06d}.png"})
    return of_episode(number) | {CAMERA: files}


def lerobot_2_of_pictures(root: Path) -> Path:
    """Version 2 with pictures in the tables, which are of several groups of rows."""
    table = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info("v2.1", "", table, "image") | {"video_path": None}))
    lines = []
    for number, count in enumerate(LENGTHS):
        file = root / table.format(episode_chunk=0, episode_index=number)
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pydict(with_pictures(number)), file, row_group_size=4)
        lines.append(json.dumps({"episode_index": number, "tasks": [f"push {number}"], "length": count}))
    (root / "meta/episodes.jsonl").write_text("\n".join(lines) + "\n")
    return root


def lerobot_3_of_pictures(root: Path) -> Path:
    """Version 3 with all episodes in one table."""
    table = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info("v3.0", "", table, "image") | {"video_path": None}))
    tables = [pa.Table.from_pydict(with_pictures(number)) for number in range(len(LENGTHS))]
    file = root / table.format(chunk_index=0, file_index=0)
    file.parent.mkdir(parents=True)
    pq.write_table(pa.concat_tables(tables), file, row_group_size=4)
    where = {"data/chunk_index": 0, "data/file_index": 0}
    rows = [{"episode_index": n, "tasks": [f"push {n}"], "length": c} | where for n, c in enumerate(LENGTHS)]
    pd.DataFrame(rows).to_parquet(root / "meta/episodes/chunk-000/file-000.parquet")
    return root


def info(version: str, video: str, table: str, kind: str = "video") -> dict[str, Any]:
    camera = {"dtype": kind, "shape": [32, 32, 3]}
    features = {CAMERA: camera, "action": {"dtype": "float32", "shape": [3]}}
    return {
        "codebase_version": version,
        "fps": 10,
        "chunks_size": 1000,
        "features": features,
        "video_path": video,
        "data_path": table,
    }


def lerobot_2(root: Path, version: str = "v2.1") -> Path:
    """A data set of version 2 with three episodes."""
    video = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    table = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    (root / "meta").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info(version, video, table)))
    lines = []
    for number, count in enumerate(LENGTHS):
        names = {"episode_chunk": 0, "episode_index": number, "video_key": CAMERA}
        write_video(root / video.format(**names), moving_picture(count, seed=number), g="2", bf="0")
        (root / table.format(**names)).parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame(of_episode(number)).to_parquet(root / table.format(**names))
        lines.append(json.dumps({"episode_index": number, "tasks": [f"push {number}"], "length": count}))
    (root / "meta/episodes.jsonl").write_text("\n".join(lines) + "\n")
    return root


def lerobot_3(root: Path) -> Path:
    """The same as version 3: two episodes in one video and table, the third in another of both."""
    video, table = (
        "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
    )
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    (root / "meta/info.json").write_text(json.dumps(info("v3.0", video, table)))
    rows = []
    for file, numbers in enumerate([(0, 1), (2,)]):
        names = {"chunk_index": 0, "file_index": file, "video_key": CAMERA}
        frames = [frame for n in numbers for frame in moving_picture(LENGTHS[n], seed=n)]
        write_video(root / video.format(**names), frames, g="2", bf="0")
        (root / table.format(**names)).parent.mkdir(parents=True, exist_ok=True)
        pd.concat([pd.DataFrame(of_episode(n)) for n in numbers]).to_parquet(root / table.format(**names))
        start = 0.0
        for n in numbers:
            place = {f"videos/{CAMERA}/chunk_index": 0, f"videos/{CAMERA}/file_index": file}
            place |= {
                f"videos/{CAMERA}/from_timestamp": start,
                f"videos/{CAMERA}/to_timestamp": start + LENGTHS[n] / 10,
            }
            start += LENGTHS[n] / 10
            rows.append(
                {
                    "episode_index": n,
                    "tasks": [f"push {n}"],
                    "length": LENGTHS[n],
                    "data/chunk_index": 0,
                    "data/file_index": file,
                    **place,
                }
            )
    pd.DataFrame(rows).to_parquet(root / "meta/episodes/chunk-000/file-000.parquet")
    return root
