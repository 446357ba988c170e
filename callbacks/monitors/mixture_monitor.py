"""What the mixture achieved, against what was asked for."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.steps import log_values, step_logs
from lit_mm.sequence import PackedBatch


class MixtureMonitor(Callback):
    """Logs per source `data/<source>/share` of the tokens so far, `passes` over its documents and `skipped` documents.

    `data/padding` is the share of positions of the last batch that hold nothing. All of it comes with the batch, from
    the plan: nothing is counted on the device.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: PackedBatch, batch_idx: int
    ) -> None:
        """Log every so often."""
        if not step_logs(trainer, batch_idx):
            return
        sources = batch.plan_state["sources"]
        total = sum(state["tokens"] for state in sources.values())
        logged = {"data/padding": float((batch.document_ids < 0).float().mean())}
        for name, state in sources.items():
            logged[f"data/{name}/share"] = state["tokens"] / max(1, total)
            logged[f"data/{name}/passes"] = state["next"] / state["documents"]
            data = trainer.datamodule
            skipped = data.left_out.counts[name] + getattr(data.datasets["train"][name], "skipped_at_setup", 0)
            if skipped:
                logged[f"data/{name}/skipped"] = float(skipped)
        log_values(pl_module, logged)
