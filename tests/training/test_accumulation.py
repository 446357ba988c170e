"""Several micro-batches make the step of one batch, however their tokens and frames are shared out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from callbacks.steps import step_ended
from data_modules.mixing.steps import with_step_counts
from lit_mm.cli import main
from lit_mm.training.optimization import global_means
from lit_mm.training.spikes import SpikeDetector
from tests.helpers.program import ROOT, SMALL

STEPS = 3


class Steps(Callback):
    """Keeps what is predicted in each micro-batch, what each step is judged by, and the last weights."""

    def __init__(self) -> None:
        self.counts: list[tuple[int, int]] = []
        self.verdicts: list[list[float]] = []
        self.weights: dict[str, Tensor] = {}
        RUNS.append(self)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        pl_module.spike_detector = SpikeDetector(deviations=6, warmup_steps=200, decay=0.99)  # type: ignore[assignment]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.counts.append((len(batch.predicted_positions), len(batch.drawn_frames)))
        if step_ended(trainer, batch_idx):
            self.verdicts.append(pl_module.spike_detector.verdict.tolist())  # type: ignore[union-attr, operator]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.weights = {name: value.clone() for name, value in pl_module.state_dict().items()}


RUNS: list[Steps] = []


def trained(folder: Path, rows: int, micro_batches: int, *more: str) -> Steps:
    main(
        [
            "fit",
            "--config=configs/tiny.yaml",
            *SMALL,
            f"--data.loader.rows={rows}",
            "--data.loader.workers=0",
            f"--trainer.accumulate_grad_batches={micro_batches}",
            f"--trainer.max_steps={STEPS}",
            "--model.optimizer=AdamW",
            "--model.optimizer.fused=true",
            "--trainer.callbacks+=tests.training.test_accumulation.Steps",
            f"--trainer.logger.save_dir={folder}",
            *more,
        ]
    )
    from tests.training.test_accumulation import RUNS as runs  # noqa: PLC0415

    return runs.pop()


def test_micro_batches_make_the_step_of_one_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    one, four = trained(tmp_path / "one", 4, 1), trained(tmp_path / "four", 1, 4)
    assert len(four.counts) == 4 * len(one.counts) == 4 * STEPS
    predicted, drawn = zip(*four.counts, strict=True)
    assert max(predicted) > 2 * min(predicted), "micro-batches differ"
    assert min(drawn) == 0 or max(drawn) > 2 * min(drawn)
    for ours, theirs in zip(four.verdicts, one.verdicts, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4), "loss and gradient norm that spikes are told by"
    for name, value in one.weights.items():
        torch.testing.assert_close(four.weights[name], value, rtol=1e-3, atol=1e-5, msg=name)


class _Batch:
    ...
