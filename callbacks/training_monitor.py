"""Losses per source, gradient norm and tokens per second, read from the device only on steps that log."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_mm.sequence import PackedBatch


class TrainingMonitor(Callback):
    """Logs losses per source (`train/<source>/text_loss`, `flow_loss`), learning rate, gradient norm, tokens/s.

    Values are means since the last logged step, over all ranks. Between steps that log (`trainer.log_every_n_steps`)
    nothing is logged and the device is never waited for.
    """

    def __init__(self) -> None:
        self._since = time.perf_counter()
        self._tokens = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._restart()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validation is not training time."""
        self._restart()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: PackedBatch, batch_idx: int
    ) -> None:
        """Count, and log every so often."""
        self._tokens += batch.tokens.numel() * trainer.world_size
        step_ended = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not step_ended or trainer.global_step % trainer.log_every_n_steps:
            return
        means = pl_module.train_means.compute()
        logged = {f"train/{source}/{name}": value for (source, name), value in means.items()}
        logged["train/loss"] = float(outputs["loss"])
        logged["train/gradient_norm"] = float(pl_module.gradient_norm)
        logged["train/learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        logged["train/tokens_per_second"] = self._tokens / (time.perf_counter() - self._since)
        pl_module.log_dict(logged, rank_zero_only=True)
        pl_module.log("loss", logged["train/loss"], prog_bar=True, logger=False, rank_zero_only=True)
        self._restart()

    def _restart(self) -> None:
        self._since, self._tokens = time.perf_counter(), 0
