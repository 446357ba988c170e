"""Whatever is in a table beside a video: its rows belong to their frames, or it is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_modules.dataset import BrokenFile
from data_modules.reading.episode_tables import read_table

TEXTS = ("{}", "{:06}", "frame_{}.png", "left/{:04}.jpg", "clip7_{}.mp4", "{}.0", " {}")
WHOLE = ("int8", "int16", "uint16", "int32", "int64", "uint64", "float32", "float64")
TABLES = ("csv", "tab", "semicolon", "jsonl", "parquet", "indexed parquet")
LARGE = 2**60  # frames numbered by nanoseconds; a float has no single ones there


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    (folder / "one.mp4").touch()
    return folder


def write(folder: Path, table: pd.DataFrame, kind: str) -> None:
    for file in folder.glob("one.[!m]*"):
        file.unlink()
    if kind == "jsonl":
        table.to_json(folder / "one.jsonl", orient="records", lines=True)
    elif kind == "parquet":
        table.to_parquet(folder / "one.parquet", index=False)
    elif kind == "indexed parquet":
        table.set_index("frame").to_parquet(folder / "one.parquet")
    else:
        table.to_csv(folder / "one.csv", index=False, sep={"csv": ",", "tab": "\t", "semicolon": ";"}[kind])


def read(folder: Path, rows: int) -> list[int]:
    """Column x, which says whose frame a row is."""
    return [int(x) for x in read_table(folder / "one.mp4", ("x",), rows)[1]["x"]]


@st.composite
def numbered(draw: st.DrawFn, least: int = 1) -> pd.DataFrame:
    """Rows in any order, whose frames are numbered evenly; x is the place of the frame."""
    places = draw(st.permutations(range(draw(st.integers(least, 12)))))
    form = draw(st.sampled_from((*TEXTS, *WHOLE)))
    first, step = draw(st.integers(0, 9)), draw(st.sampled_from((1, 2, 10)))
    first += draw(st.sampled_from((0, LARGE))) if form in ("int64", "uint64", "{}", "frame_{}.png") else 0
    numbers = [first + step * place for place in places]
    frames = pd.Series(numbers, dtype=form) if form in WHOLE else pd.Series([form.format(n) for n in numbers])
    return pd.DataFrame({"frame": frames, "x": places, "y": 0.5})


@settings(max_examples=40)
@given(table=numbered(), kind=st.sampled_from(TABLES))
def test_rows_are_in_the_order_of_their_frames(table: pd.DataFrame, kind: str, folder: Path) -> None:
    write(folder, table, kind)
    assert read(folder, len(table)) == list(range(len(table)))


@settings(max_examples=30)
@given(table=numbered(least=3), kind=st.sampled_from(TABLES), data=st.data())
def test_missing_and_doubled_frames_are_refused(
    table: pd.DataFrame, kind: str, data: st.DataObject, folder: Path
) -> None:
    rows = len(table)
    one, other = data.draw(st.permutations(range(rows)))[:2]
    frames = table["frame"].astype(object)
    match data.draw(st.sampled_from(("missing", "doubled", "nothing", "too many"))):
        case "missing":
            table = table.drop(index=one)
        case "doubled":
            table["frame"] = frames.where(frames.index != one, frames[other]).infer_objects()
        case "nothing":
            table["frame"] = frames.where(frames.index != one, None)
        case "too many":
            table = pd.concat([table, table.iloc[[one]]])
    write(folder, table, kind)
    with pytest.raises(BrokenFile):
        read(folder, rows)


@settings(max_examples=40)
@given(frames=st.lists(st.one_of(st.integers(-3, 30), st.floats(), st.text(":._-0123456789a", max_size=9)), min_size=2))
def test_whatever_frames_are_called_numbers_go_up_or_the_table_is_refused(frames: list[Any], folder: Path) -> None:
    lines = [json.dumps({"frame": frame, "x": place}) for place, frame in enumerate(frames)]
    write(folder, pd.DataFrame({"frame": frames, "x": 0}).astype(str), "csv")
    (folder / "one.csv").unlink()
    (folder / "one.jsonl").write_text("\n".join(lines))
    try:
        order = read(folder, len(frames))
    except BrokenFile:
        return
    assert sorted(order) == list(range(len(frames)))
    plain = [frames[row] for row in order if isinstance(frames[row], int | float)]
    assert plain == sorted({*plain})


@settings(max_examples=40)
@given(
    rows=st.integers(2, 8),
    line=st.integers(0, 7),
    cells=st.integers(0, 5),
    everywhere=st.booleans(),
    end=st.sampled_from(["", "\n"]),
)
def test_a_line_that_is_longer_or_shorter_moves_no_cell(
    rows: int, line: int, cells: int, everywhere: bool, end: str, folder: Path
) -> None:
    """A comma at the end of every line is no name of the row in front of it."""
    table = [[str(place), str(place), str(100 + place)] for place in range(rows)]
    for number, row in enumerate(table):
        if everywhere or number == line % rows:
            row[cells:] = [""] * (cells - 3) if cells > 3 else []
    write(folder, pd.DataFrame({"frame": [0]}), "csv")
    (folder / "one.csv").write_text("\n".join(["frame,x,y", *map(",".join, table)]) + end)
    try:
        found = read_table(folder / "one.mp4", ("x", "y"), rows)[1]
    except BrokenFile:
        return
    for place in range(rows):
        assert found["x"][place] in (str(place), None) or pd.isna(found["x"][place])
        assert found["y"][place] in (str(100 + place), None) or pd.isna(found["y"][place])
