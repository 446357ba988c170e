"""What evaluations that cost more than a validation have in common."""

from __future__ import annotations

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
        found = self.values(trainer, pl_module)
        pl_module.validation_results.update(found)
        if found and trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_metrics(found, step=trainer.global_step)

    def values(self, trainer: Trainer, module: Any) -> dict[str, float]:
        """All values by their full names: those of every validation source. What has no source makes its own."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        return {
            f"val/{source}/{name}": value
            for source, dataset in data.datasets["val"].items()
            for name, value in self.evaluate(trainer, module, source, dataset).items()
        }

    def evaluate(self, trainer: Trainer, module: Any, source: str, dataset: DocumentDataset) -> dict[str, float]:
        """Values by name; none for a source that this evaluation says nothing about."""
        raise NotImplementedError
