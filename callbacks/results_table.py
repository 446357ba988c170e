"""Validation results per source: a table on the screen, a line of JSON in the run folder.

`python -m callbacks.results_table runs/demo` shows the first and last validation of a run again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table

FILE = "validation.jsonl"


class ResultsTable(Callback):
    """Shows what validation found, and at the end of a fit how far it came since the first validation.

    With `trainer.num_sanity_val_steps: -1` the first validation is the one before training, at step 0; its values go to
    the logger too, so that every curve starts with the untrained model. Every validation is appended to
    `validation.jsonl` in the run folder.
    """

    def __init__(self) -> None:
        self._first: tuple[int, dict[str, float]] | None = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the results; print them where no training goes on."""
        results = (trainer.global_step, dict(pl_module.validation_results))
        self._first = self._first or results
        run = trainer.log_dir  # asked for on every rank: the first one tells the others
        if not trainer.is_global_zero:
            return
        if trainer.sanity_checking and trainer.logger is not None:
            trainer.logger.log_metrics(results[1], step=0)
        if run:
            folder = Path(run)
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / FILE).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": results[0], **results[1]}) + "\n")
        if trainer.state.fn == "validate":
            Console().print(table([results]))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """First and last results side by side."""
        run = trainer.log_dir
        if trainer.is_global_zero and self._first is not None and pl_module.validation_results:
            last = (trainer.global_step, dict(pl_module.validation_results))
            Console().print(table([self._first, last]))
            Console().print(f"run folder: {run}", highlight=False)


def table(validations: list[tuple[int, dict[str, float]]]) -> Table:
    """One row per source and metric, one column per validation (its step, and its values)."""
    shown = Table("source", "metric", *(f"step {step}" for step, _ in validations), title="validation")
    for key in sorted(validations[-1][1]):
        parts = key.split("/")
        source, metric = ("all", parts[1]) if len(parts) == 2 else (parts[1], "/".join(parts[2:]))
        shown.add_row(source, metric, *(f"{values[key]:.4g}" if key in values else "" for _, values in validations))
    return shown


def show(folder: str) -> None:
    """First and last validation of a run folder, side by side."""
    lines = [json.loads(line) for line in (Path(folder) / FILE).read_text(encoding="utf-8").splitlines()]
    Console().print(table([(int(values.pop("step")), values) for values in (lines[0], lines[-1])]))


if __name__ == "__main__":
    show(sys.argv[1])
