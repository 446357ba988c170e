"""Tables beside episodes: one row for every frame, in the order of the frames."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_modules.dataset import BrokenFile
from data_modules.reading.files import listed

if TYPE_CHECKING:
    import pandas as pd

TABLE_SUFFIXES = (".csv", ".parquet", ".jsonl")
FRAME = "frame"


def table_of(video: Path) -> Path | None:
    """The table of an episode: beside it, of its name, or the only one within a folder of frames.

    It ends in .csv, .parquet or .jsonl, in small letters or capitals.
    """
    is_folder = video.is_dir()
    stem = video.name if is_folder else video.stem  # a folder's name may have dots
    endings = [ending for suffix in TABLE_SUFFIXES for ending in (suffix, suffix.upper())]
    beside = next((f for ending in endings if (f := video.parent / f"{stem}{ending}").is_file()), None)
    if beside is not None or not is_folder:
        return beside
    within = [f for f in video.iterdir() if f.name.lower().endswith(TABLE_SUFFIXES) and not f.name.startswith(".")]
    return within[0] if len(within) == 1 else None


def read_table(video: Path, columns: Sequence[str], frames: int) -> tuple[Path, dict[str, Sequence[Any]]]:
    """The table beside a video, and its columns.

    Raises:
        BrokenFile: there is no table, or see `parsed_columns`.
    """
    file = table_of(video)
    if file is None:
        raise BrokenFile(video, f"there is no table beside it; write '{video.with_suffix('.csv').name}'")
    return file, parsed_columns(file, file, video.name, columns, frames)


def parsed_columns(
    file: Path, content: Path | bytes, video: str, columns: Sequence[str], frames: int
) -> dict[str, Sequence[Any]]:
    """Columns of a table, in the order of the frames.

    Args:
        file: how it is called.
        content: where it is, or what is in it.
        video: name of what it is beside.
        columns: their names; `name[2]` is the third number of one that holds lists.
        frames: of the video.

    Raises:
        BrokenFile: it cannot be read, it has not one row for every frame, a column is not there, or its column `frame`
            does not say which row is whose.
    """
    table = _read(file, content)
    table.columns = [str(name).strip() for name in table.columns]
    sought = [name if name in table.columns else _whole(name) for name in columns]
    for name in (*sought, FRAME):  # as it is written, or else in other letters
        alike = [column for column in table.columns if column.lower() == name.lower()]
        if name not in table.columns and len(alike) == 1:
            table = table.rename(columns={alike[0]: name})
    missing = [name for name in sought if name not in table.columns]
    if missing:
        raise BrokenFile(file, f"there is no column {listed(missing)}; there are {listed(list(table.columns), 'and')}")
    if len(table) != frames:
        raise BrokenFile(file, f"it has {len(table)} rows but '{video}' has {frames} frames; one each is expected")
    if FRAME in table.columns:
        table = table.iloc[_order(table[FRAME].to_list(), file)].reset_index(drop=True)
    values = {name: table[name].to_list() for name in table.columns}
    return {name: column_of(values, name, file) for name in columns}


def column_of(values: Mapping[str, Sequence[Any]], name: str, file: Path) -> Sequence[Any]:
    """A column, or with `name[2]` the third number of one that holds lists.

    Args:
        values: columns by name.
        name: which.
        file: that they are from, for messages.

    Raises:
        BrokenFile: there is no such column, or no such number in it.
    """
    if name in values:
        return values[name]
    whole = _whole(name)
    if whole == name or whole not in values:
        raise BrokenFile(file, f"there is no column {whole}; there are {listed(list(values), 'and')}")
    part = int(name[len(whole) + 1 : -1])
    try:
        return [row[part] for row in values[whole]]
    except (TypeError, IndexError, KeyError) as error:
        raise BrokenFile(
            file, f"column {whole} has no {part + 1} numbers in every row, but {name} is asked for"
        ) from error


def _whole(name: str) -> str:
    """`action` of `action[2]`."""
    found = re.fullmatch(r"(.+)\[\d+\]", name)
    return found[1] if found else name


def _read(file: Path, content: Path | bytes) -> pd.DataFrame:
    import pandas as pd

    readers: dict[str, Callable[[Any], pd.DataFrame]] = {
        # An empty cell alone is missing: "null" and "n/a" are words.
        ".csv": partial(
            pd.read_csv, keep_default_na=False, na_values=[""], skipinitialspace=True, encoding="utf-8-sig"
        ),
        ".parquet": pd.read_parquet,
        ".jsonl": lambda f: pd.read_json(f, lines=True),
    }
    try:
        return readers[file.suffix.lower()](BytesIO(content) if isinstance(content, bytes) else content)
    except Exception as error:  # pandas' readers raise their own, pyarrow's and Python's errors
        raise BrokenFile(file, error) from error


def _order(frames: list[Any], file: Path) -> np.ndarray:
    """Rows in the order of their frames.

    Raises:
        BrokenFile: the frames are no numbers, or not one for each row, evenly apart.
    """
    numbers = np.array([_number_of(frame) for frame in frames])
    if not np.isfinite(numbers).all():
        row = int(np.argmin(np.isfinite(numbers)))
        raise BrokenFile(file, f"column {FRAME} has no number in row {row} (there is {frames[row]!r})")
    order = np.argsort(numbers, kind="stable")
    steps = np.diff(numbers[order])
    if not steps.any() and len(steps):
        raise BrokenFile(file, f"column {FRAME} says {frames[int(order[1])]} in row {int(order[1])} and in another")
    uneven = ~np.isclose(steps, np.median(steps)) if len(steps) else steps
    if uneven.any():
        at = int(np.argmax(uneven))
        before, after = (frames[int(order[at + i])] for i in range(2))
        raise BrokenFile(
            file,
            f"column {FRAME} goes from {before} to {after} in row {int(order[at + 1])}; a row for every frame, evenly "
            "numbered, is expected",
        )
    return order


def _number_of(frame: Any) -> float:
    """The number of a frame: as it is, or the last one of a name such as `frame_12.png`; NaN where there is none."""
    try:
        return float(frame)
    except (TypeError, ValueError):
        found = re.findall(r"\d+", re.sub(r"\.[A-Za-z]\w*$", "", str(frame)))
        return float(found[-1]) if found else float("nan")
