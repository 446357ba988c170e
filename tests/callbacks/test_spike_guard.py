"""A step with a bad gradient changes nothing, on any process, and can be looked at afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.poison import changed_steps
from tests.helpers.program import SMALL, run
from tests.helpers.runs import run_all


def arguments(folder: Path, first: int, last: int, *more: str) -> list[str]:
    """Eight steps, some of which are spoilt on the last rank."""
    folder.mkdir(exist_ok=True)
    return [
        "fit",
        "--config=configs/tiny.yaml",
        *SMALL,
        "--data.loader.workers=0",
        "--trainer.max_steps=8",
        "--trainer.log_every_n_steps=4",
        f"--trainer.logger.save_dir={folder}",
        "--trainer.callbacks+=tests.helpers.poison.Poison",
        f"--trainer.callbacks.folder={folder}",
        f"--trainer.callbacks.first={first}",
        f"--trainer.callbacks.last={last}",
        "--trainer.callbacks+=callbacks.spike_guard.SpikeGuard",
        "--trainer.callbacks.most_in_a_row=2",
        *more,
    ]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_bad_step_is_skipped_by_all_and_written_down(tmp_path: Path, ranks: int) -> None:
    strategy = ["--trainer.devices=2", "--trainer.strategy=fsdp2"] if ranks > 1 else []
    run_all(tmp_path, [arguments(tmp_path, 3, 4, *strategy)], ranks)
    for rank in range(ranks):
        assert changed_steps(tmp_path, rank) == [1, 2, 5, 6, 7, 8]
    (file,) = tmp_path.rglob("skipped_steps.jsonl")
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert [record["step"] for record in records] == [3, 4]
    rows = 2 * ranks  # of a step
    assert [record["rows"] for record in records] == [[2 * rows, 3 * rows - 1], [3 * rows, 4 * rows - 1]]


@pytest.mark.slow
def test_too_many_bad_steps_end_the_run(tmp_path: Path) -> None:
    output = run(*arguments(tmp_path, 2, 8), expect=1)
    assert "error: 3 steps in a row were skipped, the last with a loss of" in output
    assert "skipped_steps.jsonl" in output


@pytest.mark.slow
def test_an_optimizer_that_cannot_skip_is_refused(tmp_path: Path) -> None:
    output = run(*arguments(tmp_path, 9, 9, "--model.optimizer.fused=false"), expect=1)
    assert "SpikeGuard cannot skip steps of AdamW" in output
    assert "model.optimizer.fused: true" in output


@pytest.mark.slow
def test_an_optimizer_without_the_option_is_not_told_to_use_it(tmp_path: Path) -> None:
    output = run(*arguments(tmp_path, 9, 9, "--model.optimizer=lit_mm.training.muon.Muon"), expect=1)
    assert "SpikeGuard cannot skip steps of Muon without waiting for the device; use AdamW, fused, or" in output
