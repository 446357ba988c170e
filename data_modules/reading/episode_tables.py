"""Tables beside episodes: one row for every frame, in the order of the frames."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_modules.dataset import BrokenFile
from data_modules.reading.entries import entries_in
from data_modules.reading.files import listed
from data_modules.reading.row_files import delimiter_of

if TYPE_CHECKING:
    import pandas as pd

TABLE_SUFFIXES = (".csv", ".parquet", ".jsonl")
FRAME = "frame"
DIGITS = 300  # of a number at most, so that the distance of two is a float


def tables_of(video: Path) -> list[Path]:
    """What may be the table of an episode: beside it, of its name; or else within a folder of frames.

    It ends in .csv, .parquet or .jsonl, in small letters or capitals.
    """
    is_folder = video.is_dir()
    stem = video.name if is_folder else video.stem  # a folder's name may have dots
    of_kinds = [[video.parent / f"{stem}{ending}" for ending in (kind, kind.upper())] for kind in TABLE_SUFFIXES]
    beside = [found for files in of_kinds if (found := next((f for f in files if f.is_file()), None))]
    if beside or not is_folder:
        return beside
    within = sorted(video.iterdir())
    return [f for f in within if f.name.lower().endswith(TABLE_SUFFIXES) and not f.name.startswith(".")]


def read_table(video: Path, columns: Sequence[str], frames: int) -> tuple[Path, dict[str, Sequence[Any]]]:
    """The table of a video, and its columns.

    Raises:
        BrokenFile: there is no table, there are several, or see `parsed_columns`.
    """
    found = tables_of(video)
    if not found:
        raise BrokenFile(video, f"there is no table beside it; write '{video.with_suffix('.csv').name}'")
    if len(found) > 1:
        names = listed([file.name for file in found], "and")
        raise BrokenFile(video, f"there are {len(found)} tables of it, {names}; leave one")
    return found[0], parsed_columns(found[0], found[0], video.name, columns, frames)


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
    if twice := next((name for name in (*sought, FRAME) if list(table.columns).count(name) > 1), None):
        raise BrokenFile(file, f"it has {list(table.columns).count(twice)} columns {twice}; give each its own name")
    missing = [name for name in sought if name not in table.columns]
    if missing:
        raise BrokenFile(file, f"there is no column {listed(missing)}; there are {listed(list(table.columns), 'and')}")
    if len(table) != frames:
        raise BrokenFile(file, f"it has {len(table)} rows but '{video}' has {frames} frames; one each is expected")
    if FRAME in table.columns:
        table = table.iloc[_order(table[FRAME].to_list(), file)]
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
        if any(isinstance(row, str) for row in values[whole]):
            raise TypeError("a text has letters, not numbers")
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
    """All columns as they are written: no cell of CSV or JSON is taken for a number, a date or the name of its row."""
    import pandas as pd

    try:
        held = content.read_bytes() if isinstance(content, Path) else content
        if file.suffix.lower() == ".parquet":
            table = pd.read_parquet(io.BytesIO(held))
            table = table.reset_index() if any(table.index.names) else table
            return table.astype(object)  # here, as texts that are no UTF-8 break it
        if file.suffix.lower() == ".jsonl":
            return pd.DataFrame(list(_entries(file, held)))
        # An empty cell alone is missing: "null" and "n/a" are words.
        table = pd.read_csv(
            io.BytesIO(held),
            header=None,
            dtype=str,
            keep_default_na=False,
            na_values=[""],
            skipinitialspace=True,
            encoding="utf-8-sig",
            sep=delimiter_of(held.partition(b"\n")[0].decode("utf-8-sig")),
        )
    except BrokenFile:
        raise
    except Exception as error:  # pandas' readers raise their own, pyarrow's and Python's errors
        raise BrokenFile(file, error) from error
    table.columns = table.iloc[0].fillna("").to_list()
    return table.iloc[1:]


def _entries(file: Path, content: bytes) -> Iterator[dict[str, Any]]:
    for place, entry, why in entries_in(io.BufferedReader(io.BytesIO(content))):  # type: ignore[arg-type]
        if entry is None:
            raise BrokenFile(file, f"{place} {why}")
        yield entry


def _order(frames: list[Any], file: Path) -> np.ndarray:
    """Rows in the order of their frames.

    Raises:
        BrokenFile: the frames are no numbers, or not one for each row, evenly apart.
    """
    numbered = [_numbers_of(frame) for frame in frames]
    for row, numbers in enumerate(numbered):
        if not numbers:
            raise BrokenFile(file, f"column {FRAME} has no number in row {row} (there is {frames[row]!r})")
    last = [numbers[-1] for numbers in numbered]
    least = min(last, default=Fraction(0))
    apart = np.array([float(number - least) for number in last])  # exact, however large they are
    order = np.argsort(apart, kind="stable")
    steps = np.diff(apart[order])
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
    for before, after in pairwise(order.tolist()):
        if numbered[before] > numbered[after]:
            raise BrokenFile(
                file,
                f"column {FRAME} has {frames[before]} and {frames[after]}, whose order is not that of their last "
                "numbers; number the frames one by one",
            )
    return order


def _numbers_of(frame: Any) -> tuple[Fraction, ...]:
    """The number of a frame as it is, or all those of a name such as `clip7_12.png`; nothing where there is none."""
    try:
        numbers = [Fraction(_number(frame) if isinstance(frame, str) else frame)]
    except (TypeError, ValueError, OverflowError):  # a name, a date, not a number, without end
        name = re.sub(r"\.[A-Za-z]\w*$", "", frame) if isinstance(frame, str) else ""
        numbers = [Fraction(digits) for digits in re.findall(rf"\d{{1,{DIGITS}}}", name)]
    return tuple(numbers) if all(abs(number) < 10**DIGITS for number in numbers) else ()


def _number(written: str) -> int | float:
    return int(written) if re.fullmatch(rf"-?\d{{1,{DIGITS}}}", written.strip()) else float(written)
