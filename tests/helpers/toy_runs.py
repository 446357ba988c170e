"""Fits of a linear layer, for what callbacks do whatever the model is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset


class Endless(IterableDataset):
    """Random vectors without end, as our data modules give training batches."""

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            yield torch.randn(4)


class ToyModule(LightningModule):
    """Its validation results are the step that they were found at."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.validation_results: dict[str, float] = {}
        self.validated: list[int] = []  # steps, without the check before training

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = self.layer(batch).square().mean()
        self.log("train/loss", loss.detach(), prog_bar=True)
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        pass

    def on_validation_epoch_end(self) -> None:
        self.validation_results = {"val/loss": float(self.global_step), "val/toy/psnr": 20.0}
        self.log_dict(self.validation_results)
        if not self.trainer.sanity_checking:
            self.validated.append(self.global_step)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(Endless(), batch_size=2)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(torch.randn(2, 4), batch_size=2)


def toy_trainer(folder: Path, *callbacks: Callback, **arguments: Any) -> Trainer:
    """On a CPU, without epochs, as in the configs."""
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": -1,
        "check_val_every_n_epoch": None,
        "val_check_interval": 1000,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 2,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "logger": False,
        "default_root_dir": folder,
    }
    return Trainer(callbacks=list(callbacks), **(defaults | arguments))
