"""Validation results per source: a table on the screen, a line of JSON in the run folder.

`python -m callbacks.results_table runs/demo` shows the first and last validation of a run again, and with several run
folders the last one of each side by side.
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
            Console().print(table({_at(results[0]): results[1]}))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """First and last results side by side."""
        run = trainer.log_dir
        if trainer.is_global_zero and self._first is not None and pl_module.validation_results:
            step, first = self._first
            last = dict(pl_module.validation_results)
            Console().print(table({_at(step): first, _at(trainer.global_step): last}))
            Console().print(f"run folder: {run}", highlight=False)


def _at(step: int) -> str:
    return f"step {step}"


def table(validations: dict[str, dict[str, float]]) -> Table:
    """One row per source and metric, one column per validation (its heading, and its values)."""
    shown = Table("source", "metric", *validations, title="validation")
    keys = {key for values in validations.values() for key in values}
    for key in sorted(keys):
        parts = key.split("/")
        source, metric = ("all", parts[1]) if len(parts) == 2 else (parts[1], "/".join(parts[2:]))
        cells = (f"{values[key]:.4g}" if key in values else "" for values in validations.values())
        shown.add_row(source, metric, *cells)
    return shown


def show(folders: list[str]) -> None:
    """First and last validation of one run folder, or the last ones of several, side by side."""
    found = {}
    for folder in folders:
        lines = (Path(folder) / FILE).read_text(encoding="utf-8").splitlines()
        for line in lines[-1:] if len(folders) > 1 else (lines[0], lines[-1]):
            values = json.loads(line)
            step = _at(int(values.pop("step")))
            found[f"{folder}, {step}" if len(folders) > 1 else step] = values
    Console().print(table(found))


if __name__ == "__main__":
    show(sys.argv[1:])
