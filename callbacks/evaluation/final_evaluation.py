"""What evaluations that cost more than a validation have in common."""

from __future__ import annotations

from abc import abstractmethod
from itertools import chain, count
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from callbacks.steps import last_validation
from data_modules.dataset import DocumentDataset


def unused(file: Path) -> Path:
    """The file itself, or, where there is one already, with the first free number behind its name."""
    numbered = (file.with_stem(f"{file.stem}-{number}") for number in count(1))
    return next(one for one in chain([file], numbered) if not one.exists())


class FinalEvaluation(Callback):
    """Evaluates every validation source with the last validation of a fit and with `validate`.

    The values join the validation results as `val/<source>/<name>`, so such a callback stands before `ResultsTable`.
    """

    @torch.no_grad()
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate, and add the values to the module's results and to the loggers."""
        if trainer.sanity_checking or not last_validation(trainer):
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        found: dict[str, float] = {}
        for source, dataset in data.datasets["val"].items():
            values = self.evaluate(trainer, pl_module, source, dataset)
            found |= {f"val/{source}/{name}": value for name, value in values.items()}
        pl_module.validation_results.update(found)
        if found and trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_metrics(found, step=trainer.global_step)

    @abstractmethod
    def evaluate(self, trainer: Trainer, module: Any, source: str, dataset: DocumentDataset) -> dict[str, float]:
        """Values by name; none for a source that this evaluation says nothing about."""
