"""What the mixture achieved, against what was asked for, and how its files bear it."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.steps import log_values, step_logs
from lit_mm.sequence import PackedBatch


class MixtureMonitor(Callback):
    """Logs per source `data/<source>/share` of the tokens so far, `passes` over its documents and `skipped` documents.

    Also `seconds_a_document`, what reading and decoding takes a worker of this rank since the last logged step;
    `broken_per_million` of the documents drawn so far; and `captions_cut`, the share of captions that are longer than
    is kept. `data/tokens` is how many tokens all ranks have seen, `data/padding` the share of positions of the last
    batch that hold nothing. All of it comes with the batch, from the plan: nothing is counted on the device.
    """

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._read: Counter[str] = Counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: PackedBatch, batch_idx: int
    ) -> None:
        """Count, and log every so often."""
        for name, (seconds, read) in batch.reading.items():
            self._seconds[name] += seconds
            self._read[name] += read
        if not step_logs(trainer, batch_idx):
            return
        sources = batch.plan_state["sources"]
        total = sum(state["tokens"] for state in sources.values())
        logged = {"data/padding": float((batch.document_ids < 0).float().mean()), "data/tokens": float(total)}
        data = trainer.datamodule  # type: ignore[attr-defined]
        for name, state in sources.items():
            dataset = data.datasets["train"][name]
            logged[f"data/{name}/share"] = state["tokens"] / max(1, total)
            logged[f"data/{name}/passes"] = state["next"] / state["documents"]
            if self._read[name]:
                logged[f"data/{name}/seconds_a_document"] = self._seconds[name] / self._read[name]
            lost = data.left_out.counts[name]
            if skipped := lost + dataset.skipped_at_setup:
                logged[f"data/{name}/skipped"] = float(skipped)
                logged[f"data/{name}/broken_per_million"] = 1e6 * lost / max(1, state["next"])
            if dataset.captions_cut:
                logged[f"data/{name}/captions_cut"] = dataset.captions_cut / len(dataset)
        self._seconds.clear()
        self._read.clear()
        log_values(pl_module, logged)
