"""Rows of a table belong to the frames that they name, or the table is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from data_modules.dataset import BrokenFile
from data_modules.reading.episode_tables import read_table


def read(folder: Path, frames: list[Any], name: str = "one.csv") -> list[int]:
    """Column x, which numbers the rows as they are written."""
    table = pd.DataFrame({"frame": frames, "x": range(len(frames))})
    (folder / "one.mp4").touch()
    table.to_csv(folder / name, index=False)
    return numbers(read_table(folder / "one.mp4", ("x",), len(frames))[1], "x")


def numbers(table: Mapping[str, Sequence[Any]], column: str) -> list[int]:
    """Cells of CSV are kept as they are written."""
    return [int(cell) for cell in table[column]]


@pytest.mark.parametrize("name", ["{}", "frame_{}.png", "frame_{:05}.jpg", "left/{}", "{}.0", "clip7_{}.mp4"])
def test_frames_are_ordered_by_their_numbers(name: str, tmp_path: Path) -> None:
    order = [11, 2, 0, 1, 10, 9, 3, 8, 4, 7, 5, 6]
    assert read(tmp_path, [name.format(number) for number in order]) == [order.index(i) for i in range(12)]


@pytest.mark.parametrize("numbers", [range(5), range(1, 6), range(0, 50, 10), [0.0, 0.5, 1.0, 1.5, 2.0]])
def test_even_numbers_are_frames_one_by_one(numbers: Any, tmp_path: Path) -> None:
    assert read(tmp_path, list(numbers)[::-1]) == [4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([0, 1, None, 3], r"column frame has no number in row 2 \(there is nan\)"),
        ([0, 1, "start", 3], r"column frame has no number in row 2 \(there is 'start'\)"),
        ([0, 1, float("inf"), 3], r"column frame has no number in row 2 \(there is 'inf'\)"),
        ([0, 1, 1, 2], "column frame goes from 1 to 1 in row 2; a row for every frame, evenly numbered"),
        ([0, 1, 2, 500], "column frame goes from 2 to 500 in row 3; a row for every frame, evenly numbered"),
        ([7, 7, 7, 7], "column frame says 7 in row 1 and in another"),
        (["a_0_b1", "a_1_b1", "a_2_b1", "a_3_b1"], "column frame says a_1_b1 in row 1 and in another"),
    ],
)
def test_what_does_not_say_whose_row_it_is(frames: list[Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(BrokenFile, match=reason) as caught:
        read(tmp_path, frames)
    assert caught.value.path == str(tmp_path / "one.csv")


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (["00:00:00:02", "00:00:00:03", "00:00:01:00", "00:00:01:01"], "has 00:00:01:01 and 00:00:00:02, whose order"),
        (["a2_1.png", "a1_2.png", "a2_3.png"], "has a2_1.png and a1_2.png, whose order is not that of their last num"),
        (["t_0.9", "t_1.0", "t_1.1"], "column frame goes from t_1.0 to t_1.1 in row 2"),
    ],
)
def test_names_that_have_more_than_one_order(frames: list[Any], reason: str, tmp_path: Path) -> None:
    """A second is over before its frames begin anew."""
    with pytest.raises(BrokenFile, match=reason):
        read(tmp_path, frames)


def test_cells_are_kept_as_they_are_written(tmp_path: Path) -> None:
    """Keys that look like numbers, a date that is none, a frame that names its row, texts that look like lists."""
    (tmp_path / "one.mp4").touch()
    rows = [
        {"frame": 1, "keys": "0100", "date": "3", "state": [1, 2]},
        {"frame": 0, "keys": "01", "date": "4\u2028", "state": [3, 4]},
    ]
    table = pd.DataFrame(rows)
    expected = (["01", "0100"], ["4\u2028", "3"])
    table.to_csv(tmp_path / "one.csv", index=False)
    found = read_table(tmp_path / "one.mp4", ("keys", "date"), 2)[1]
    assert (found["keys"], found["date"]) == expected
    with pytest.raises(BrokenFile, match=r"column state has no 2 numbers in every row, but state\[1\] is asked for"):
        read_table(tmp_path / "one.mp4", ("state[1]",), 2)
    (tmp_path / "one.csv").unlink()
    table.set_index("frame").to_parquet(tmp_path / "one.parquet")
    found = read_table(tmp_path / "one.mp4", ("keys", "date"), 2)[1]
    assert (found["keys"], found["date"]) == expected
    (tmp_path / "one.parquet").unlink()
    (tmp_path / "one.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8-sig")
    found = read_table(tmp_path / "one.mp4", ("keys", "date"), 2)[1]
    assert (found["keys"], found["date"]) == expected
    assert read_table(tmp_path / "one.mp4", ("state[1]",), 2)[1] == {"state[1]": [4, 2]}
    (tmp_path / "one.jsonl").write_text('{"x": 1}\n{"x": 2\n')
    with pytest.raises(BrokenFile, match=r"one.jsonl' .*: line 2 is not a JSON object \(Expecting"):
        read_table(tmp_path / "one.mp4", ("x",), 2)


def test_of_two_columns_of_one_name_none_is_chosen(tmp_path: Path) -> None:
    (tmp_path / "one.mp4").touch()
    (tmp_path / "one.csv").write_text("x,x\n1,2\n")
    with pytest.raises(BrokenFile, match="it has 2 columns x; give each its own name"):
        read_table(tmp_path / "one.mp4", ("x",), 1)


@pytest.mark.parametrize("content", ["frame, x, Y\n0, 1, 2\n1, 3, 4\n", " Frame ,X , y\n0,1,2\n1,3,4\n"])
@pytest.mark.parametrize("ending", [".csv", ".CSV"])
def test_names_of_columns_and_files_as_people_write_them(content: str, ending: str, tmp_path: Path) -> None:
    (tmp_path / "one.mp4").touch()
    (tmp_path / f"one{ending}").write_text(content, encoding="utf-8-sig")
    file, table = read_table(tmp_path / "one.mp4", ("x", "y"), 2)
    assert file == tmp_path / f"one{ending}"
    assert (numbers(table, "x"), numbers(table, "y")) == ([1, 3], [2, 4])


def test_an_empty_table_has_no_column(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()
    with pytest.raises(BrokenFile, match="there is no column x; there are none"):
        read_table(tmp_path / "a.mp4", ["x"], 0)


def test_of_two_tables_none_is_chosen(tmp_path: Path) -> None:
    """Beside a video, and within a folder of frames."""
    read(tmp_path, [0, 1])
    (tmp_path / "one.jsonl").write_text('{"x": 5}\n{"x": 6}\n')
    with pytest.raises(BrokenFile, match=r"one.mp4' .*: there are 2 tables of it, one.csv and one.jsonl; leave one"):
        read_table(tmp_path / "one.mp4", ("x",), 2)
    (tmp_path / "two").mkdir()
    for name in ("a.csv", "b.csv"):
        (tmp_path / "two" / name).write_text("x\n1\n")
    with pytest.raises(BrokenFile, match=r"two' .*: there are 2 tables of it, a.csv and b.csv; leave one"):
        read_table(tmp_path / "two", ("x",), 1)


def test_a_folder_of_frames_has_its_table_beside_or_within(tmp_path: Path) -> None:
    folder = tmp_path / "walk.0"
    folder.mkdir()
    (folder / "traj_data.csv").write_text("x\n1\n2\n")
    assert numbers(read_table(folder, ("x",), 2)[1], "x") == [1, 2]
    (tmp_path / "walk.0.csv").write_text("x\n3\n4\n")
    assert numbers(read_table(folder, ("x",), 2)[1], "x") == [3, 4]
