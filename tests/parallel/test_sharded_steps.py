"""Optimizer steps on two sharded processes are those of one: by Muon, and of several micro-batches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.helpers.recorder import read
from tests.helpers.runs import run_all
from tests.parallel.test_sharded_runs import OWN, SAVED, SHARDED, STEPS, WHOLE, arguments, numbers, weights

MUON = ["--model.optimizer=lit_mm.training.muon.Muon", "--model.optimizer.lr=1e-3"]
LAST = f"step={STEPS}.ckpt"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    one = [arguments(folder / "muon_1", "experts", *WHOLE, *MUON), arguments(folder / "adamw_1", "dense", *WHOLE)]
    again = [*MUON, f"--ckpt_path={folder / 'muon_2' / f'step={SAVED}.ckpt'}"]
    small = ["--data.loader.rows=1", "--trainer.accumulate_grad_batches=2", f"--trainer.val_check_interval={2 * STEPS}"]
    two = [
        arguments(folder / "muon_2", "experts", *SHARDED, *MUON),
        arguments(folder / "muon_again", "experts", *SHARDED, *again),
        arguments(folder / "micro_batch", "dense", *SHARDED, *small),
        arguments(folder / "step", "dense", *SHARDED, *small, *OWN, "--trainer.strategy.reduce_gradients=step"),
    ]
    run_all(folder, one)
    run_all(folder, two, ranks=2)
    return folder


def differing(ours: Path, theirs: Path, by: float) -> list[str]:
    """Weights at the end whose difference is larger than so much of them."""
    own, others = weights(ours / LAST), weights(theirs / LAST)
    return [name for name, value in others.items() if (own[name] - value).norm() > by * value.norm() + 1e-7]


@pytest.mark.long
def test_muon_on_two_processes_does_what_it_does_on_one(runs: Path) -> None:
    one, two = runs / "muon_1", runs / "muon_2"
    assert numbers(two, "loss") == pytest.approx(numbers(one, "loss"), rel=1e-4)
    assert numbers(two, "gradient_norm") == pytest.approx(numbers(one, "gradient_norm"), rel=1e-3)
    assert differing(two, one, by=0.01) == [], "matrices are made orthogonal in bfloat16"


@pytest.mark.long
def test_muon_goes_on_exactly_from_its_shards(runs: Path) -> None:
    assert read(runs / "muon_again") == [rank[SAVED:] for rank in read(runs / "muon_2")]
    ours, theirs = weights(runs / "muon_again" / LAST), weights(runs / "muon_2" / LAST)
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


@pytest.mark.long
@pytest.mark.parametrize("reduced", ["micro_batch", "step"])
def test_micro_batches_on_two_processes_make_the_step_of_one_batch_on_one(runs: Path, reduced: str) -> None:
    steps = [[of_step for of_step in rank if of_step["gradient_norm"]] for rank in read(runs / reduced)]
    norms = [[float.fromhex(of_step["gradient_norm"]) for of_step in rank] for rank in steps]
    assert len(steps) == 2
    for found in norms:
        assert found == pytest.approx(numbers(runs / "adamw_1", "gradient_norm"), rel=1e-4)
    assert differing(runs / reduced, runs / "adamw_1", by=1e-5) == []
