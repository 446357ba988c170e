"""What the tokens look like that the flow is trained on."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.steps import log_values, step_logs
from lit_mm.sequence import PackedBatch
from lit_mm.training.metrics import SourceMeans


class LatentMonitor(Callback):
    """Logs per source `latents/<source>/mean` and `latents/<source>/deviation` of the last batch's visual tokens.

    The flow's noise has deviation 1: tokens far from it are drawn badly, or their file is not what it should be.
    Computed on steps that log only.
    """

    def __init__(self) -> None:
        self._means = SourceMeans()

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: PackedBatch, batch_idx: int
    ) -> None:
        """Log every so often."""
        if not step_logs(trainer, batch_idx):
            return
        latents = pl_module.state.latents.float().flatten(1)
        self._means.add("mean", latents.mean(1), batch.frame_source_ids, batch.sources)
        self._means.add("square", latents.square().mean(1), batch.frame_source_ids, batch.sources)
        means = self._means.compute()
        logged: dict[str, float] = {}
        for source in {source for source, _ in means}:
            mean, square = means[source, "mean"], means[source, "square"]
            logged[f"latents/{source}/mean"] = mean
            logged[f"latents/{source}/deviation"] = max(0.0, square - mean**2) ** 0.5
        log_values(pl_module, logged)
