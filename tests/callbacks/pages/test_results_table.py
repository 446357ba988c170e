from __future__ import annotations

import json
from pathlib import Path

import pytest
from lightning.pytorch.callbacks import EarlyStopping

from callbacks.pages.results_table import ResultsTable, read, show
from lit_mm.mistake import Mistake
from tests.helpers.toy_runs import ToyModule, toy_trainer


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
    write(one, {"step": 0, key: 10430.4}, {"step": 5, key: 1.5}, {"step": 9, key: 1.0})
    write(other, {"step": 7, key: 0.5, "val/loss": 3.0})
    assert shown(capsys, one) == [["source", "metric", "step 0", "step 9"], ["drawings", "flow_loss", "10,430", "1"]]
    assert shown(capsys, one, other) == [
        ["source", "metric", f"{one}, step 9", f"{other}, step 7"],
        ["drawings", "flow_loss", "1", "0.5"],
        ["all", "loss", "", "3"],
    ]


def test_a_folder_of_runs_is_their_mean_and_standard_deviation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    for seed, loss in enumerate((1.0, 2.0, 6.0)):
        write(tmp_path / "dense" / f"version_{seed}", {"step": 0, "val/loss": 9.0}, {"step": 5, "val/loss": loss})
    write(tmp_path / "one", {"step": 5, "val/loss": 4.0})
    heading, *rows = shown(capsys, tmp_path / "dense", tmp_path / "one")
    assert heading == ["source", "metric", f"{tmp_path}/dense, step 5, 3 runs", f"{tmp_path}/one, step 5"]
    assert rows == [["all", "loss", "3 ± 2.6", "4"]]  # the deviation of 1, 2 and 6 is the root of 7


def test_a_share_is_one_row_with_its_interval(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")

    def share(name: str, value: float) -> dict[str, float]:
        key = f"val/lab/{name}"
        return {key: value, f"{key}_low": value - 0.01, f"{key}_high": value + 0.02, f"{key}_cases": 1000.0}

    for seed in (0, 1):
        write(tmp_path / "runs" / f"version_{seed}", {"step": 5, **share("seen@2", 0.9 + 0.02 * seed)})
    write(tmp_path / "one", {"step": 5, **share("seen@16", 0.5), **share("seen@2", 0.912), "val/lab/cases_low": 2.5})
    _, *rows = shown(capsys, tmp_path / "runs", tmp_path / "one")
    assert rows == [
        ["lab", "cases_low", "", "2.5"],
        ["lab", "seen@2", "91.0 % ± 1.4 n=1,000", "91.2 % [90.2, 93.2] n=1,000"],
        ["lab", "seen@16", "", "50.0 % [49.0, 52.0] n=1,000"],
    ]


def test_what_cannot_be_shown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="nowhere' has no validation.jsonl"):
        show([str(tmp_path / "nowhere")])
    for seed in (0, 1):
        write(tmp_path / "dense" / f"version_{seed}", {"step": 5 + seed, "val/loss": 1.0})
    with pytest.raises(Mistake, match=r"last validated at steps \[5, 6\]"):
        show([str(tmp_path / "dense")])


@pytest.mark.parametrize(
    ("settings", "validated"),
    [
        ({"max_steps": 5, "val_check_interval": 2}, [2, 4, 5]),
        ({"max_steps": 4, "val_check_interval": 2}, [2, 4]),  # not once more
        ({"max_steps": 5, "accumulate_grad_batches": 2, "val_check_interval": 4}, [2, 4, 5]),
        ({"max_time": {"microseconds": 1}}, [1]),
        ({"max_steps": 5, "limit_val_batches": 0}, []),
    ],
)
def test_a_fit_ends_with_a_validation_of_its_last_step(
    tmp_path: Path, settings: dict[str, object], validated: list[int]
) -> None:
    module = ToyModule()
    toy_trainer(tmp_path, ResultsTable(), **settings).fit(module)
    assert module.validated == validated
    if validated:
        assert [values["step"] for values in read(tmp_path)] == validated


def test_a_fit_that_stops_early_is_not_validated_again(tmp_path: Path) -> None:
    module = ToyModule()  # its val/loss grows
    stop = EarlyStopping("val/loss", patience=1)
    toy_trainer(tmp_path, ResultsTable(), stop, max_steps=9, val_check_interval=2).fit(module)
    assert module.validated == [2, 4]


def test_columns_say_the_steps_that_were_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    toy_trainer(tmp_path, ResultsTable(), max_steps=5, num_sanity_val_steps=-1).fit(ToyModule())
    out = capsys.readouterr().out
    assert [cell.strip() for cell in out.split("\n")[2].strip("┃").split("┃")][2:] == ["step 0", "step 5"], out
    assert "│ all    │ loss   │ 0      │ 5      │" in out
    assert f"run folder: {tmp_path}\n" in out
