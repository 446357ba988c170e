"""A callback that writes down, per rank and batch, which documents were trained on and the exact loss."""

import hashlib
import json
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_mm.sequence import PackedBatch


class Recorder(Callback):
    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: PackedBatch, batch_idx: int
    ) -> None:
        rows = []
        frames = batch.frames.split(list(batch.frames_per_row))
        for row, number in enumerate(batch.row_numbers):
            digest = hashlib.sha256(batch.tokens[row].numpy().tobytes() + frames[row].numpy().tobytes())
            rows.append([number, digest.hexdigest()])
        group = trainer.optimizers[0].param_groups[0]
        step_ended = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        record = {
            "batch": batch_idx,
            "step": trainer.global_step,
            "loss": float(outputs["loss"]).hex(),
            "gradient_norm": float(pl_module.state.gradient_norm).hex() if step_ended else None,
            "rows": rows,
            "learning_rate": float(group["lr"]).hex(),
            "weight_decay": group["weight_decay"],
        }
        with (self.folder / f"rank{trainer.global_rank}.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")


def read(folder: Path) -> list[list[dict[str, Any]]]:
    """Records per rank, a batch that was trained on again after a kill taken from its last time."""
    ranks = []
    for file in sorted(folder.glob("rank*.jsonl")):
        by_batch = {}
        for line in file.read_text().splitlines():
            record = json.loads(line)
            by_batch[record["batch"]] = record
        ranks.append([by_batch[batch] for batch in sorted(by_batch)])
    return ranks
