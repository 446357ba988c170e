"""What is read of every frame of a recording besides its picture: poses, commands, words, any other columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_modules.dataset import BrokenFile
from data_modules.reading.recordings import Recording
from data_modules.reading.time_stamps import VideoIndex

ANGLE, YAW = "angle", "yaw"


@dataclass(frozen=True)
class Columns:
    """What is read of every frame besides its picture.

    Args:
        numbers: names of columns of numbers.
        texts: names of columns of texts.
        of_steps: those of both that are said of the step from this frame to the next, so that the last needs none.
        renamed: pairs of a name and the column that it is read from.
    """

    numbers: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    of_steps: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()


def read_columns(recording: Recording, index: VideoIndex, columns: Columns) -> dict[str, list[Any]]:
    """Columns of a recording, a value for each frame.

    What is said of steps is 0 or empty in the last row if it is missing there.

    Raises:
        BrokenFile: see `Recording.table`; or a value is missing, or is no finite number or no text.
    """
    import pandas as pd

    file, table = _table(recording, index, columns)
    found: dict[str, list[Any]] = {}
    for name in (*columns.numbers, *columns.texts):
        if name in columns.texts:
            values = [cell.strip() if isinstance(cell, str) else "" for cell in table[name]]
            there = np.array(values) != ""
        else:
            numbers = pd.to_numeric(pd.Series(list(table[name])), errors="coerce").to_numpy(np.float64)
            there = np.isfinite(numbers)
            values = np.where(there, numbers, 0.0).tolist()
        needed = there[:-1] if name in columns.of_steps else there
        if not needed.all():
            kind = "text" if name in columns.texts else "number"
            raise BrokenFile(file, f"column {name} has no {kind} in row {int(np.argmin(needed))}")
        found[name] = values
    return found


def _table(recording: Recording, index: VideoIndex, columns: Columns) -> tuple[Path, Mapping[str, Sequence[Any]]]:
    """Columns by the names that are asked for. In place of `angle`, in degrees, a table may have `yaw`, in radians."""
    renamed = dict(columns.renamed)
    sources = {name: renamed.get(name, name) for name in (*columns.numbers, *columns.texts)}
    in_radians = {name: renamed.get(YAW, YAW) if name == ANGLE else source for name, source in sources.items()}
    try:
        file, table = recording.table(list(sources.values()), index)
        return file, {name: table[source] for name, source in sources.items()}
    except BrokenFile:
        if ANGLE not in sources or ANGLE in renamed:
            raise
        try:
            file, table = recording.table(list(in_radians.values()), index)
        except BrokenFile:
            pass  # the first one says what is missing
        else:
            found = {name: table[source] for name, source in in_radians.items()}
            return file, found | {ANGLE: [np.degrees(float(yaw)) for yaw in found[ANGLE]]}
        raise
