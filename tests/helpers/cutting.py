"""A callback that cuts files while a run reads them."""

from __future__ import annotations

import os
from glob import glob
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class Cut(Callback):
    """Before a batch, the first rank cuts all files of a pattern to nothing.

    Args:
        pattern: of their paths.
        batch: number of the batch.
    """

    def __init__(self, pattern: str, batch: int) -> None:
        self.pattern, self.batch = pattern, batch

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.batch and trainer.is_global_zero:
            for path in glob(self.pattern):
                os.truncate(path, 0)
