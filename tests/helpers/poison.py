"""A callback that spoils gradients on the last rank, and writes down which steps changed anything."""

import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.distributed.tensor import DTensor

from lit_mm.parallel import tensors


class Poison(Callback):
    def __init__(self, folder: str, first: int, last: int) -> None:
        self.folder, self.steps = Path(folder), range(first, last + 1)
        self.before: list[torch.Tensor] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.before = [tensor.clone() for tensor in self._state(trainer, pl_module)]

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step + 1 in self.steps and trainer.global_rank == trainer.world_size - 1:
            gradient = pl_module.model.backbone.layers[0].attention.out.weight.grad
            (gradient.to_local() if isinstance(gradient, DTensor) else gradient)[0, 0] = torch.nan

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = self._state(trainer, pl_module)
        changed = len(now) != len(self.before) or not all(map(torch.equal, now, self.before))
        with (self.folder / f"changed{trainer.global_rank}.jsonl").open("a") as file:
            file.write(json.dumps({"step": trainer.global_step, "changed": changed}) + "\n")

    def _state(self, trainer: Trainer, pl_module: LightningModule) -> list[torch.Tensor]:
        states = [value for state in trainer.optimizers[0].state.values() for value in state.values()]
        return tensors(pl_module.model) + [v.to_local() if isinstance(v, DTensor) else v for v in states]


def changed_steps(folder: Path, rank: int) -> list[int]:
    records = [json.loads(line) for line in (folder / f"changed{rank}.jsonl").read_text().splitlines()]
    return [record["step"] for record in records if record["changed"]]
