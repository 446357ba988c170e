"""Python's garbage collector, on a schedule."""

from __future__ import annotations

import gc
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.steps import step_ended
from lit_mm.mistake import Mistake


class GarbageCollection(Callback):
    """Collects garbage on all processes at the same steps.

    Left to itself, the collector stops each process at another moment, and all others wait for it at the next
    collective operation.

    Args:
        every_n_steps: optimizer steps from one collection to the next.
    """

    def __init__(self, every_n_steps: int = 500) -> None:
        if every_n_steps < 1:
            raise Mistake(f"every_n_steps of GarbageCollection is {every_n_steps}; use 1 or more")
        self.every_n_steps = every_n_steps

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over, and leave alone from now on what setting up has made."""
        gc.disable()
        gc.collect()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Collect young objects every so often."""
        if step_ended(trainer, batch_idx) and trainer.global_step % self.every_n_steps == 0:
            gc.collect(1)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Hand back."""
        gc.enable()
