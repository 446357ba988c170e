"""A sharded run that is killed again and again, at any moment, ends as the unbroken run does, bit by bit.

`LIT_MM_KILLS=10 python -m pytest tests/parallel/test_kills.py` kills it ten times: at three chosen moments, then at
random. `LIT_MM_KILLS_SEED` repeats the random ones of an earlier time.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from lit_mm.parallel.checkpoint_files import CheckpointFiles, complete_checkpoints
from tests.helpers.moments import MOMENTS, SAVING
from tests.helpers.program import SMALL, kill_when, run, start
from tests.helpers.recorder import read

AT_RANDOM = int(os.environ.get("LIT_MM_KILLS", "3")) - len(MOMENTS)
LATEST = 1.5  # seconds after the first micro-batch of a start
RANKS, ROWS, ACCUMULATED = 2, 2, 2
SPOILT = 4  # a step that is skipped; it is saved before it is counted, on the next step that logs
STEPS = 8 + 3 * AT_RANDOM  # more than are ever done before the last kill
CHECKPOINTS = Path("tiny/version_0/checkpoints")


class Runs(NamedTuple):
    unbroken: Path
    killed: Path


def arguments(folder: Path) -> list[str]:
    """Starts the run, and goes on with it: two micro-batches a step, every two steps a checkpoint, then validation.

    The learning rate rises and falls, and the routing biases of the experts move with every step.
    """
    return [
        "fit",
        "--ckpt_path=last",
        "--config=configs/tiny.yaml",
        "--model.backbone=configs/backbone/experts.yaml",
        *[a for a in SMALL if "hidden_dim" not in a],
        f"--data.loader.rows={ROWS}",
        "--data.loader.workers=0",
        "--model.schedule.warmup_steps=4",
        f"--trainer.devices={RANKS}",
        "--trainer.strategy=fsdp2",
        f"--trainer.max_steps={STEPS}",
        f"--trainer.accumulate_grad_batches={ACCUMULATED}",
        f"--trainer.val_check_interval={2 * ACCUMULATED}",
        "--trainer.log_every_n_steps=3",
        f"--trainer.logger.save_dir={folder}",
        "--trainer.logger.version=0",
        "--trainer.callbacks+=tests.helpers.recorder.Recorder",
        f"--trainer.callbacks.folder={folder}",
        "--trainer.callbacks+=tests.helpers.moments.Moments",
        f"--trainer.callbacks.folder={folder}",
        "--trainer.callbacks+=tests.helpers.poison.Poison",
        f"--trainer.callbacks.folder={folder}",
        f"--trainer.callbacks.first={SPOILT}",
        f"--trainer.callbacks.last={SPOILT}",
        "--trainer.callbacks+=callbacks.spike_guard.SpikeGuard",
        "--trainer.callbacks+=callbacks.pages.results_table.ResultsTable",
        "--trainer.callbacks+=callbacks.weight_averaging.WeightAveraging",
        "--trainer.callbacks.decay=0.7",
        "--trainer.callbacks+=callbacks.checkpoints.Checkpoints",
        "--trainer.callbacks.every_n_train_steps=2",
        "--trainer.callbacks.filename={step}",
        "--trainer.callbacks.save_last=link",
    ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """One after the other in the same folder, since checkpoints hold its name."""
    folder = tmp_path_factory.mktemp("kills")
    here, unbroken = folder / "run", folder / "unbroken"
    here.mkdir()
    run(*arguments(here))
    here.rename(unbroken)
    here.mkdir()
    for moment in MOMENTS:
        kill_at(here, moment)
    seed = int(os.environ.get("LIT_MM_KILLS_SEED", time.time_ns() % 1_000_000))
    print(f"LIT_MM_KILLS_SEED={seed}")  # shown when a test fails
    chance = random.Random(seed)
    for _ in range(AT_RANDOM):
        kill_when(start(*arguments(here)), after_the_first_batch(here, chance.uniform(0, LATEST)))
    run(*arguments(here))
    return Runs(unbroken, here)


def kill_at(folder: Path, moment: str) -> None:
    (folder / "stop_at").write_text(moment)
    kill_when(start(*arguments(folder)), (folder / "stopped").exists)
    (folder / "stop_at").unlink()
    (folder / "stopped").unlink()
    if moment == SAVING:
        assert [path.name for path in (folder / CHECKPOINTS).glob(".*")] == [".step=4.ckpt.part"]
        assert {path.name for path in complete_checkpoints(folder / CHECKPOINTS)} == {"step=2.ckpt"}


def after_the_first_batch(folder: Path, seconds: float) -> Callable[[], bool]:
    """Whether a new start has trained on its first micro-batch so long ago."""
    before, first = len(lines(folder, "rank0.jsonl")), 0.0

    def is_due() -> bool:
        nonlocal first
        if not first and len(lines(folder, "rank0.jsonl")) > before:
            first = time.monotonic()
        return bool(first) and time.monotonic() - first >= seconds

    return is_due


def lines(folder: Path, name: str) -> list[str]:
    return [line for file in folder.rglob(name) for line in file.read_text().splitlines()]


def parts(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every number and text within, by the way to it; tensors as their bytes."""
    if isinstance(value, dict | list | tuple):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from parts(inner, f"{name}/{key}")
    elif isinstance(value, torch.Tensor):
        yield name, (value.dtype, value.shape, value.numpy().tobytes())
    else:
        yield name, value


def final(folder: Path) -> dict[str, Any]:
    return dict(parts(CheckpointFiles().load_checkpoint(folder / CHECKPOINTS / "last.ckpt", weights_only=False)))


@pytest.mark.long
def test_the_last_checkpoint_is_that_of_the_unbroken_run(runs: Runs) -> None:
    """Weights, their averages, routing biases, optimizer states, schedule, place in the data, loops and callbacks."""
    unbroken, killed = final(runs.unbroken), final(runs.killed)
    assert unbroken["/global_step"] == STEPS
    for kind in ("/state_dict/model.", "/state_dict/averaged.", "/optimizer_states/0/state/", "/callbacks/"):
        assert any(name.startswith(kind) for name in unbroken), kind
    assert any("router.bias" in name for name in unbroken)
    assert killed.keys() == unbroken.keys()
    different = [name for name, value in unbroken.items() if killed[name] != value]
    assert different == []


@pytest.mark.long
@pytest.mark.parametrize("rank", range(RANKS))
def test_what_was_trained_on_again_was_the_same_again(runs: Runs, rank: int) -> None:
    """Documents, losses, gradient norms and learning rates."""
    unbroken, killed = (lines(folder, f"rank{rank}.jsonl") for folder in runs)
    assert len(unbroken) == STEPS * ACCUMULATED < len(killed)
    assert set(killed) == set(unbroken)


@pytest.mark.long
def test_no_row_is_lost_or_taken_twice(runs: Runs) -> None:
    batches = zip(*read(runs.killed), strict=True)
    rows = [row[0] for batch in batches for rank in batch for row in rank["rows"]]
    assert rows == list(range(STEPS * ACCUMULATED * RANKS * ROWS))


@pytest.mark.long
def test_no_validation_is_lost(runs: Runs) -> None:
    """One that a kill ended, or that came after the last checkpoint before a kill, is done again."""
    unbroken, killed = (lines(folder, "validation.jsonl") for folder in runs)
    assert len(unbroken) == STEPS // 2
    assert set(killed) == set(unbroken)


@pytest.mark.long
def test_one_checkpoint_is_kept(runs: Runs) -> None:
    """Nothing of the starts that were killed is left, but at most what was to be removed when the kill came."""
    for folder in runs:
        kept = [path.name for path in complete_checkpoints(folder / CHECKPOINTS)]
        assert f"step={STEPS}.ckpt" in kept
        assert (folder / CHECKPOINTS / "last.ckpt").resolve().name == f"step={STEPS}.ckpt"
        assert len(kept) <= 1 + (folder == runs.killed)


@pytest.mark.long
def test_a_skipped_step_is_counted(runs: Runs) -> None:
    unbroken, killed = (lines(folder, "skipped_steps.jsonl") for folder in runs)
    assert len(unbroken) == 1
    assert set(killed) == set(unbroken)
