"""Files are found by name, and what every rank finds is said once."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightning.pytorch.utilities import rank_zero_only

from data_modules.dataset import BrokenFile
from data_modules.reading.files import Tolerance, find_files, settle_broken


def test_pictures_beside_a_table_are_not_looked_at_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(200):
        (tmp_path / f"{i}.png").touch()
    (tmp_path / "metadata.jsonl").touch()
    (tmp_path / "folder.jsonl").mkdir()
    looked: list[str] = []
    is_file = Path.is_file
    monkeypatch.setattr(Path, "is_file", lambda path: looked.append(path.name) or is_file(path))
    assert find_files(str(tmp_path), (".jsonl",), "data.train") == [tmp_path / "metadata.jsonl"]
    assert looked == ["metadata.jsonl"]


@pytest.mark.parametrize("rank", [0, 1])
def test_one_rank_says_what_is_left_out(
    rank: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", rank)
    assert settle_broken(BrokenFile("a.png", "cut"), 1, 200, "data.train", Tolerance("skip")) == 1
    said = "data.train: left out 1 of 200 that cannot be read; the first is 'a.png' broke while being read: cut"
    assert caplog.messages == ([said] if rank == 0 else [])
