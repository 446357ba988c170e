"""Looking up a row takes the same time in tables of any size."""

from __future__ import annotations

import pickle
import time
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest

from data_modules.dataset import Draw
from data_modules.reading.columns import Column
from data_modules.reading.text_windows import TableWindows
from data_modules.text import TextDataset

FEATURES = datasets.Features({"ids": datasets.List(datasets.Value("int32")), "bytes": datasets.Value("int64")})


def write_table(file: Path, pieces: int) -> datasets.Dataset:
    """Pieces of two rows, whose lists of one and three numbers count up."""
    schema = FEATURES.arrow_schema
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for piece in range(pieces):
            ids = pa.array([[4 * piece], [4 * piece + 1, 4 * piece + 2, 4 * piece + 3]], pa.list_(pa.int32()))
            writer.write_batch(pa.record_batch([ids, pa.array([9, 9])], schema=schema))
    return datasets.Dataset.from_file(str(file))


def seconds_a_read(dataset: TextDataset) -> float:
    draws = [Draw(int(i), 0, 0) for i in np.random.default_rng(0).integers(0, len(dataset), 200)]
    return min(_seconds(dataset, draws) for _ in range(5)) / len(draws)


def _seconds(dataset: TextDataset, draws: list[Draw]) -> float:
    start = time.perf_counter()
    for draw in draws:
        dataset.document(draw)
    return time.perf_counter() - start


def test_a_text_is_read_in_a_time_that_does_not_grow(tmp_path: Path) -> None:
    small, large = (TextDataset("text", TableWindows(write_table(tmp_path / f"{n}.arrow", n)), 0) for n in (10, 50_000))
    assert seconds_a_read(large) < 10 * seconds_a_read(small)


@pytest.mark.parametrize("copied", [False, True])
def test_what_a_column_gives(copied: bool, tmp_path: Path) -> None:
    column = Column(write_table(tmp_path / "t.arrow", 1000), "ids")
    if copied:
        size = len(pickle.dumps(column))
        assert size < 5000, "a worker gets the file's name, not what is in it"
        column = pickle.loads(pickle.dumps(column))
    assert column[2] == [4]
    assert column.numbers(3).tolist() == [5, 6, 7]
    assert column.lengths().tolist() == [1, 3] * 1000
    assert column.lengths().dtype == np.int32
    assert column.flat().tolist() == list(range(4000))
