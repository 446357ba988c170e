from __future__ import annotations

import json
from pathlib import Path

import pytest

from callbacks.results_table import show


def shown(capsys: pytest.CaptureFixture[str], *runs: Path) -> list[list[str]]:
    """Cells of the table that is printed of run folders."""
    show([str(run) for run in runs])
    lines = capsys.readouterr().out.splitlines()
    rows = [line.replace("┃", "│").strip("│").split("│") for line in lines if line[0] in "┃│"]
    return [[cell.strip() for cell in row] for row in rows]


def write(folder: Path, *validations: dict[str, float]) -> None:
    folder.mkdir(parents=True)
    (folder / "validation.jsonl").write_text("".join(json.dumps(v) + "\n" for v in validations))


def test_one_run_shows_its_first_and_last_validation_and_several_their_last(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    key = "val/drawings/flow_loss"
    one, other = tmp_path / "one", tmp_path / "other"
    write(one, {"step": 0, key: 2.0}, {"step": 5, key: 1.5}, {"step": 9, key: 1.0})
    write(other, {"step": 7, key: 0.5, "val/loss": 3.0})
    assert shown(capsys, one) == [["source", "metric", "step 0", "step 9"], ["drawings", "flow_loss", "2", "1"]]
    assert shown(capsys, one, other) == [
        ["source", "metric", f"{one}, step 9", f"{other}, step 7"],
        ["drawings", "flow_loss", "1", "0.5"],
        ["all", "loss", "", "3"],
    ]
