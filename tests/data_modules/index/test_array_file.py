"""Arrays of files are looked up as fast as any."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_modules.index.array_file import ArrayFile, stored_array, write_arrays
from data_modules.reading.lengths import MappedLengths


def test_mapped_arrays_are_plain_and_outlive_what_mapped_them(tmp_path: Path) -> None:
    """An `np.memmap` takes three times as long for every number."""
    numbers = np.arange(6, dtype=np.uint16)
    write_arrays(tmp_path / "a", {"x": numbers.reshape(2, 3), "y": numbers}, {})
    np.save(tmp_path / "b.npy", numbers)
    mapped = [ArrayFile(tmp_path / "a")["x"], stored_array(tmp_path / "b.npy")]
    lengths = MappedLengths(tmp_path / "b.npy", (True,), (2,), 5)
    for file in ("a", "b.npy"):
        (tmp_path / file).unlink()
    for array in (*mapped, lengths._parts):
        assert type(array) is np.ndarray
        assert array.flatten().tolist() == numbers.tolist()
        assert not array.flags.writeable
    assert lengths[0, 3] == 5
