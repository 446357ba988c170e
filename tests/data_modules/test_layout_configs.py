"""The configurations of layouts of the field read files in these layouts as they are written."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_modules.index.configuration import read_configuration
from data_modules.recipes.nwm import nwm
from tests.data_modules.video_files import moving_picture, write_video
from tests.helpers.lerobot import CAMERA, info, with_pictures
from tests.helpers.program import ROOT

EPISODES = 184  # of PushT, of which 180 are for training


def captioned_video(folder: Path) -> None:
    """Videos of two seconds, each with a text."""
    for split in ("train", "val"):
        for number in range(2):
            video = write_video(folder / f"captioned_video/{split}/{number}.mp4", moving_picture(20, seed=number))
            video.with_suffix(".txt").write_text(f"square number {number}")


def lerobot(folder: Path) -> None:
    """PushT with pictures in its table."""
    root, table = folder / "pusht", "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    (root / "meta/episodes/chunk-000").mkdir(parents=True)
    said = json.dumps(info("v3.0", "", table, "image")).replace(CAMERA, "observation.image")
    (root / "meta/info.json").write_text(said)
    columns = with_pictures(2)
    columns["observation.image"] = columns.pop(CAMERA)
    frames = len(columns["action"])
    parts = [pa.Table.from_pydict(columns | {"episode_index": [number] * frames}) for number in range(EPISODES)]
    file = root / table.format(chunk_index=0, file_index=0)
    file.parent.mkdir(parents=True)
    pq.write_table(pa.concat_tables(parts), file, row_group_size=100)
    where = {"data/chunk_index": 0, "data/file_index": 0, "length": frames, "tasks": ["push the T"]}
    episodes = pd.DataFrame([{"episode_index": number} | where for number in range(EPISODES)])
    episodes.to_parquet(root / "meta/episodes/chunk-000/file-000.parquet")


def navigation(folder: Path) -> None:
    """Walks as NoMaD has them, made readable by the recipe."""
    for split in ("train", "test"):
        for number in range(2):
            walk = folder / f"recon/{split}/walk_{number}"
            walk.mkdir(parents=True)
            for frame, picture in enumerate(moving_picture(12, seed=number)):
                Image.fromarray(picture).save(walk / f"{frame}.jpg")
            poses = {"position": np.cumsum(np.ones((12, 2)), 0), "yaw": np.linspace(0, 1, 12)}
            (walk / "traj_data.pkl").write_bytes(pickle.dumps(poses))
    nwm(folder / "recon")


@pytest.mark.parametrize("write", [captioned_video, pytest.param(lerobot, marks=pytest.mark.slow), navigation])
def test_a_configuration_reads_its_layout(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    settings = {"tokenizer": ROOT / "data/tiny/tokenizer.json", "image_size": 32, "tokens_per_frame": 4}
    settings |= {"loader.workers": 0, "loader.rows": 2, "loader.cache": tmp_path / "cache"}
    arguments = [f"--data.{name}={value}" for name, value in settings.items()]
    data = read_configuration(str(ROOT / f"configs/data/{write.__name__}.yaml"), arguments).data
    data.setup("fit")
    assert all(len(dataset) for split in ("train", "val") for dataset in data.open(split).values())  # type: ignore[arg-type]
    for _, batch in zip(range(2), data.training_rows(), strict=False):
        assert not batch.skipped
        assert len(batch.frames)
