"""Damaged files of tokens, tables beside videos and arrays, as in `test_fuzz`: a sentence or an answer."""

from __future__ import annotations

import gzip
import json
import pickle
import shutil
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_modules.dataset import BrokenFile
from data_modules.index.unpacked_shards import open_shards
from data_modules.reading.array_pickle import read_arrays
from data_modules.reading.decoding import VideoReader
from data_modules.reading.episode_tables import parsed_columns
from data_modules.reading.hdf5_recordings import Hdf5Recording
from data_modules.reading.pictures import Square
from data_modules.reading.token_shards import shard_files
from data_modules.reading.token_windows import TokenWindows
from lit_mm.mistake import Mistake
from tests.data_modules.reading.test_fuzz import CASES, TEXTS, faults, read_table
from tests.helpers.token_files import write_litdata, write_mds, write_megatron

FRAMES = 40
DOCUMENTS = [list(range(1, 1 + length)) for length in (5, 40, 7, 90, 3)]


def read_tokens(sound: Path, name: str, file: Path) -> None:
    """A folder of tokens, one of whose files is the damaged one."""
    folder = file.parent / sound.name
    shutil.copytree(sound, folder, dirs_exist_ok=True)
    shutil.copy(file, folder / name)
    try:
        shards = open_shards(shard_files(str(folder), "tokens", "data.train"), file.parent / "cache", "data.train")
        windows = TokenWindows(shards, 16, 512)
        for window in range(windows.lengths.shape[1]):
            windows.ids(window)
    except Mistake as error:  # whichever of its files it names
        if str(folder) in str(error):
            raise BrokenFile(file, error) from error
        raise


def read_hdf5(file: Path) -> None:
    recording = Hdf5Recording(str(file), "images", None)
    index = recording.index()
    recording.table(["x", "packed"], index)
    recording.read(VideoReader(), index, [0, len(index) - 1], Square(16))


def read_episode(file: Path) -> None:
    parsed_columns(file, file, "walk.mp4", ["x", "say"], FRAMES)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[bytes, Callable[[Path], None]]]:
    """A sound file by its name, and what reads it."""
    folder = tmp_path_factory.mktemp("whole")
    write_megatron(folder / "megatron/a", DOCUMENTS)
    write_mds(folder / "mds", DOCUMENTS)
    write_litdata(folder / "litdata", DOCUMENTS)

    def table(file: Path) -> None:
        rows = pd.DataFrame({"frame": [f"{i}.png" for i in range(FRAMES)], "x": np.arange(FRAMES) / 2, "say": "go"})
        kinds = {".csv": partial(rows.to_csv, index=False), ".parquet": rows.to_parquet}
        kinds.get(file.suffix, partial(rows.to_json, orient="records", lines=True))(file)

    def hdf5(file: Path) -> None:
        with pytest.importorskip("h5py").File(file, "w") as stored:
            stored["images"] = np.zeros((12, 16, 16, 3), np.uint8)
            stored["x"] = np.arange(12.0)
            stored.create_dataset("packed", data=np.arange(12.0), compression="gzip", chunks=(4,))

    @cache
    def make(name: str) -> tuple[bytes, Callable[[Path], None]]:
        file = folder / name
        if file.exists():
            return file.read_bytes(), partial(read_tokens, file.parent, file.name)
        if name == "a.json.gz":
            return gzip.compress(json.dumps([{"text": text} for text in TEXTS]).encode()), read_table
        if name == "a.pkl":
            return pickle.dumps({"position": np.arange(40.0).reshape(20, 2), "yaw": [np.float64(1)] * 4}), read_arrays
        (hdf5 if name == "a.h5" else table)(file)
        return file.read_bytes(), read_hdf5 if name == "a.h5" else read_episode

    return make


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        *("megatron/a.idx", "megatron/a.bin", "mds/index.json", "mds/shard.00001.mds", "litdata/index.json"),
        *("litdata/chunk-0-0.bin", "a.csv", "a.parquet", "a.jsonl", "a.h5", "a.pkl", "a.json.gz"),
    ],
)
def test_damaged_files_are_read_or_named(
    name: str, made: Callable[[str], tuple[bytes, Callable[[Path], None]]], tmp_path: Path
) -> None:
    content, reader = made(name)
    assert faults(name.partition("/")[2].partition(".")[2] or name[2:], content, CASES, tmp_path, [reader]) == []
