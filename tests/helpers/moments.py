"""A callback that stops a run at a chosen moment, so that a test can be sure to kill it there."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

SAVING, VALIDATING, ACCUMULATING = MOMENTS = ("saving", "validating", "accumulating")


class Moments(Callback):
    """Waits to be killed at the moment that the file `stop_at` names, once this start has ended a step.

    `saving` is within the second checkpoint that this start writes: each process has written its shard, but nothing
    else. `validating` is between two batches of validation, `accumulating` between two micro-batches of a step.

    Args:
        folder: where `stop_at` may be, and `stopped` is written when the moment has come.
        seconds: that every micro-batch takes at least, so that a kill at random comes before the end of the run.
    """

    def __init__(self, folder: str, seconds: float = 0.1) -> None:
        self.folder, self.seconds = Path(folder), seconds
        self.stop_at, self.steps, self.saves = "", 0, 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        file = self.folder / "stop_at"
        self.stop_at = file.read_text() if file.exists() else ""
        if self.stop_at == SAVING:
            os.fsync = self._at_the_end_of_a_file

    def _reach(self, moment: str) -> None:
        if moment == self.stop_at and self.steps:
            (self.folder / "stopped").touch()
            time.sleep(1000)

    def _at_the_end_of_a_file(self, file: int) -> None:
        if self.saves == 2:
            self._reach(SAVING)

    def on_save_checkpoint(self, *args: Any) -> None:
        self.saves += 1

    def on_validation_batch_end(self, *args: Any) -> None:
        self._reach(VALIDATING)

    def on_train_batch_start(self, *args: Any) -> None:
        time.sleep(self.seconds)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            self._reach(ACCUMULATING)
        else:
            self.steps += 1
