"""Values of Parquet are looked up by their rows."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_modules.index.input_files import local_file
from data_modules.index.parquet_files import RowGroups
from data_modules.index.ranges import RangeReader


def test_a_value_costs_the_same_however_many_groups_a_file_has(tmp_path: Path) -> None:
    seconds = []
    for groups in (10, 10_000):
        pq.write_table(pa.table({"x": np.arange(2 * groups)}), tmp_path / "x.parquet", row_group_size=2)
        file, reader = local_file(tmp_path / "x.parquet"), RowGroups(RangeReader())
        last = 2 * groups - 1
        assert [reader.value(file, row, "x").as_py() for row in (0, 1, 2, last)] == [0, 1, 2, last]
        begin = time.process_time()
        for _ in range(20):
            reader.value(file, last, "x")
        seconds.append(time.process_time() - begin)
    assert seconds[1] < 20 * seconds[0]  # 200 times as long, where groups are counted each time
