"""Validation results per source: a table on the screen, a line of JSON in the run folder.

A run ends with the main values. `python -m callbacks.pages.results_table runs/demo` shows the first and last validation
of a run again with all values, also the parts of a share (`facts/count` of `facts`), and with several run folders the
last one of each side by side. A folder of runs (`runs/dense` with `version_0`, `version_1` …) stands for the mean and
the standard deviation over its runs, which differ in their seeds, say.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table

from callbacks.loggers import log_table
from lit_mm.mistake import Mistake, ends_with_a_sentence
from lit_mm.training.run_folder import run_folder

FILE = "validation.jsonl"
INTERVAL = ("_low", "_high", "_cases")  # behind a share's name: ends of its interval, and how many cases it is of


class ResultsTable(Callback):
    """Validates after the last step, shows what was found, and at the end of a fit how far it has come.

    A fit ends with a validation, be it by `max_steps`, `max_time` or early stopping. Only where an error or a signal
    ends it, or with `trainer.limit_val_batches: 0`, there is none.

    With `trainer.num_sanity_val_steps: -1` the first validation is the one before training, at step 0; its values go to
    the loggers too, so that every curve starts with the untrained model. Every validation is appended to
    `validation.jsonl` in the run folder, with the step it was made at.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Lightning validates before a stop that was asked for, but not before one that max_steps brings."""
        if trainer.global_step >= trainer.max_steps > 0:
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the results; print them where no training goes on."""
        step, results = trainer.global_step, dict(pl_module.validation_results)
        folder = run_folder(trainer)
        if not trainer.is_global_zero:
            return
        if trainer.sanity_checking:
            for logger in trainer.loggers:
                logger.log_metrics(results, step=0)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / FILE).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **results}) + "\n")
        if trainer.state.fn == "validate":
            Console().print(table({_at(step): main_values(results)}))
            if folder is not None:
                of = f" of '{trainer.ckpt_path}'" if trainer.ckpt_path else ""
                Console().print(f"results{of}: {folder / FILE}", highlight=False, soft_wrap=True)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """First and last results of the run side by side."""
        folder = run_folder(trainer)
        if trainer.is_global_zero and folder is not None:
            if (folder / FILE).exists():
                validations = first_and_last(folder)
                Console().print(table({heading: main_values(values) for heading, values in validations.items()}))
                log_table(trainer, "validation", ["source", "metric", *validations], rows(validations))
            Console().print(f"run folder: {folder}", highlight=False, soft_wrap=True)


def _at(step: int) -> str:
    return f"step {step}"


def main_values(results: Mapping[str, float]) -> dict[str, float]:
    """Without parts, such as `facts/count` where there is `facts`, or `tiles/new@4` where there is `tiles@4`."""
    return {key: value for key, value in results.items() if (whole := _whole(key)) == key or whole not in results}


def _whole(key: str) -> str:
    """The name of what a value may be a part of; the horizon behind it stays."""
    return re.sub(r"/[^/@]+(@.*)?$", r"\1", key)


def rows(
    validations: Mapping[str, Mapping[str, float]], deviations: Mapping[str, Mapping[str, float]] | None = None
) -> list[list[str]]:
    """Source, metric, and one cell per validation (its heading, and its values; and their deviations).

    A share that has its interval and number of cases beside it (`…_low`, `…_high`, `…_cases`) is one row with them.
    """
    found = []
    keys = {key for values in validations.values() for key in values}
    keys -= {key + end for key in keys if _has_interval(key, keys) for end in INTERVAL}
    for key in sorted(keys, key=lambda key: (key.count("/") == 1, _naturally(key))):  # values of all sources last
        parts = key.split("/")
        source, metric = ("all", parts[1]) if len(parts) == 2 else (parts[1], "/".join(parts[2:]))
        of_runs = deviations or {}
        cells = [_cell(key, values, of_runs.get(heading, {})) for heading, values in validations.items()]
        found.append([source, metric, *cells])
    return found


def _naturally(key: str) -> list[tuple[int, str]]:
    """Numbers in a name count as numbers: `@2` comes before `@16`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", key)]


def _has_interval(key: str, keys: Container[str]) -> bool:
    return all(key + end in keys for end in INTERVAL)


def _cell(key: str, values: Mapping[str, float], deviations: Mapping[str, float]) -> str:
    """A number and its deviation; a share in percent with that or its interval."""
    if key not in values:
        return ""
    if not _has_interval(key, values):
        return _shown(values[key], 4) + (f" ± {_shown(deviations[key], 2)}" if key in deviations else "")
    share, low, high, cases = (values[key + end] for end in ("", *INTERVAL))
    spread = f"± {100 * deviations[key]:.1f}" if key in deviations else f"[{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * share:.1f} % {spread} n={cases:,.0f}"


def _shown(value: float, digits: int) -> str:
    """With so many digits, or all of those before the point; no powers of ten for large values."""
    return f"{value:,.0f}" if abs(value) >= 10**digits - 0.5 else f"{value:.{digits}g}"


def table(
    validations: Mapping[str, Mapping[str, float]], deviations: Mapping[str, Mapping[str, float]] | None = None
) -> Table:
    """One row per source and metric, one column per validation, see `rows`."""
    shown = Table("source", "metric", *validations, title="validation")
    for cells in rows(validations, deviations):
        shown.add_row(*cells)
    return shown


def read(run: Path) -> list[dict[str, float]]:
    """Every validation of a run folder.

    Raises:
        Mistake: the folder is not a run's, or has none.
    """
    file = run / FILE
    if not file.is_file() or not (text := file.read_text(encoding="utf-8").strip()):
        raise Mistake(f"'{run}' has no {FILE}; give a run folder, or a folder of runs, that was validated")
    return [json.loads(line) for line in text.splitlines()]


def first_and_last(run: Path) -> dict[str, dict[str, float]]:
    """Values of a run's first and last validation by the step they were made at; of one where there is no other."""
    every = read(run)
    return {_at(int(found.pop("step"))): found for found in (every[0], every[-1]) if "step" in found}


def last_of(folder: Path) -> tuple[str, dict[str, float], dict[str, float]]:
    """Heading, values and deviations of a run's last validation, or of those of all runs in a folder."""
    runs = [folder] if (folder / FILE).exists() else sorted(folder.glob("version_*")) or [folder]
    found = [read(run)[-1] for run in runs]
    steps = sorted({int(values["step"]) for values in found})
    if len(steps) > 1:
        raise Mistake(f"the runs in '{folder}' were last validated at steps {steps}; only equally long ones compare")
    keys = [key for key in found[0] if key != "step" and all(key in values for values in found)]
    columns = {key: [values[key] for values in found] for key in keys}
    means = {key: statistics.fmean(values) for key, values in columns.items()}
    if len(found) == 1:
        return f"{folder}, {_at(steps[0])}", means, {}
    deviations = {key: statistics.stdev(values) for key, values in columns.items()}
    return f"{folder}, {_at(steps[0])}, {len(found)} runs", means, deviations


def show(folders: list[str]) -> None:
    """First and last validation of one run folder, or the last ones of several, side by side."""
    means: dict[str, dict[str, float]] = {}
    deviations: dict[str, dict[str, float]] = {}
    if len(folders) == 1 and (Path(folders[0]) / FILE).exists():
        means = first_and_last(Path(folders[0]))
    else:
        for folder in folders:
            heading, values, spread = last_of(Path(folder))
            means[heading], deviations[heading] = values, spread
    Console().print(table(means, deviations))


if __name__ == "__main__":
    with ends_with_a_sentence():
        show(sys.argv[1:])
