"""How far a fit is: a bar on a terminal, lines of text everywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import rich
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar, Timer

from callbacks.steps import step_logs


def on_terminal() -> bool:
    """Whether standard output can redraw a bar: a terminal that moves its cursor and knows its signs, or a notebook."""
    console = rich.get_console()
    whole = console.encoding.startswith("utf")  # of a bar's signs, other encodings lack some
    return console.is_jupyter or (sys.stdout.isatty() and not console.is_dumb_terminal and whole)


class StepBar(RichProgressBar):
    """Lightning's bar. Where training has no epochs it counts optimizer steps, also in a run that was gone on with."""

    @property
    def total_train_batches(self) -> int | float:
        """Where the bar ends."""
        return _steps(self.trainer) if self.trainer.max_epochs == -1 else super().total_train_batches

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar."""
        done = trainer.global_step - 1 if trainer.max_epochs == -1 else batch_idx  # the bar adds 1
        super().on_train_batch_end(trainer, pl_module, outputs, batch, done)

    def _get_train_description(self, current_epoch: int) -> str:
        if self.trainer.max_epochs == -1:
            return f"{self.train_description:{len(self.validation_description)}}"
        return super()._get_train_description(current_epoch)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """What modules and callbacks log with `prog_bar=True`."""
        return _metrics(trainer)


class ProgressLines(Callback):
    """Where there is no terminal to draw a bar on, says how training is going in lines of plain text.

    On steps that log (`trainer.log_every_n_steps`), what modules and callbacks log with `prog_bar=True`, and when
    training will end if it goes on as fast as so far, validations included:

        step 120/2000  loss 3.21  text 2.9  flow 0.41  12,300 tokens/s  ETA 0:14:10

    After a validation, its losses for each source (all it measured where there are none), and how long it took, with
    the samples and evaluations of the callbacks before this one:

        step 500/2000  validation  loss 3.54  text 3.1  flow 0.44  video (flow 0.44)  text (text 3.1)  took 0:00:12
    """

    def __init__(self) -> None:
        self._shown = False
        self._validation_started = 0.0
        self._first: tuple[int, float] | None = None  # step and time at which the speed began to be measured

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Only the first process writes."""
        self._shown = stage == "fit" and trainer.is_global_zero and not on_terminal()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Say how it goes, every so often."""
        if not self._shown:
            return
        # The first step takes longer than others: it compiles, and starts the loader.
        self._first = self._first or (trainer.global_step, time.monotonic())
        if step_logs(trainer, batch_idx):
            words = [_place(trainer), *_words(_metrics(trainer))]
            left = self._seconds_left(trainer)
            _say(*words, *([] if left is None else [f"ETA {_duration(left)}"]))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._validation_started = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what was found."""
        if self._shown:
            found = _by_source(getattr(pl_module, "validation_results", {}))
            words = _words(found.pop("", {}))
            words += [f"{source} ({', '.join(_words(values))})" for source, values in found.items()]
            took = _duration(time.monotonic() - self._validation_started)
            _say(_place(trainer), "validation", *words, f"took {took}")

    def _seconds_left(self, trainer: Trainer) -> float | None:
        limits = [t.time_remaining() for t in trainer.callbacks if isinstance(t, Timer)]  # of trainer.max_time
        step, since = self._first or (0, 0.0)
        if trainer.global_step > step and _steps(trainer) < float("inf"):
            a_step = (time.monotonic() - since) / (trainer.global_step - step)
            limits.append(a_step * (_steps(trainer) - trainer.global_step))
        return min((limit for limit in limits if limit is not None), default=None)


def _steps(trainer: Trainer) -> int | float:
    """Optimizer steps until the end; infinity where only a clock, or nothing, ends the run."""
    steps = trainer.estimated_stepping_batches
    return steps if steps >= 0 else float("inf")


def _place(trainer: Trainer) -> str:
    steps = _steps(trainer)
    return f"step {trainer.global_step}" + (f"/{steps}" if steps < float("inf") else "")


def _metrics(trainer: Trainer) -> dict[str, str]:
    """What was logged for the bar, as it is shown: rates as whole numbers, other values with four digits."""
    values = {name.removeprefix("train/"): float(value) for name, value in trainer.progress_bar_metrics.items()}
    return {name: f"{value:,.0f}" if name.endswith("/s") else f"{value:.4g}" for name, value in values.items()}


def _words(metrics: Mapping[str, str]) -> list[str]:
    return [f"{value} {name}" if name.endswith("/s") else f"{name} {value}" for name, value in metrics.items()]


def _by_source(results: Mapping[str, float]) -> dict[str, dict[str, str]]:
    """Losses by source, "" for those of all; every value of `val/<source>/<name>` where nothing is a loss."""
    losses = {key: value for key, value in results.items() if key.endswith("loss")}
    found: dict[str, dict[str, str]] = {}
    for key, value in (losses or results).items():
        *source, name = key.removeprefix("val/").split("/")
        found.setdefault("/".join(source), {})[name.removesuffix("_loss")] = f"{value:.4g}"
    return found


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=max(0, round(seconds))))


def _say(*words: str) -> None:
    print("  ".join(words), flush=True)
