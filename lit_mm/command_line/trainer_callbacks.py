"""The callbacks of a run: those that are named, in a working order, and those that show how it goes."""

from __future__ import annotations

from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelSummary, ProgressBar

from callbacks.monitors.data_table import DataTable
from callbacks.monitors.parameter_table import ParameterTable
from callbacks.monitors.progress import ProgressLines, StepBar, on_terminal


def completed_callbacks(trainer: Namespace) -> dict[str, Any]:
    """The trainer's callbacks with those that show how a run goes, and the flags that Lightning is to see.

    `enable_progress_bar: false` and `enable_model_summary: false` take away also what the callbacks name, where
    Lightning would refuse. A bar or summary among the callbacks stands in for ours. There is a bar only where there is
    a terminal, and `ProgressLines` where there is none, whatever the flags say; and always the table of what is read.

    Early stopping comes first, so that the others know which validation is the last.

    Args:
        trainer: its settings, the callbacks instantiated.
    """
    listed: list[Callback] | Callback = trainer.get("callbacks") or []
    callbacks = list(listed) if isinstance(listed, list) else [listed]
    callbacks.sort(key=lambda callback: not isinstance(callback, EarlyStopping))
    for kind, flag in ((ProgressBar, "enable_progress_bar"), (ModelSummary, "enable_model_summary")):
        if trainer.get(flag) is False:
            callbacks = [callback for callback in callbacks if not isinstance(callback, kind)]
        elif not any(isinstance(callback, kind) for callback in callbacks):
            callbacks += [ParameterTable()] if kind is ModelSummary else [StepBar()] if on_terminal() else []
    bar = any(isinstance(callback, ProgressBar) for callback in callbacks)
    # Lightning's own summary, and what it has to say about ours, are never wanted.
    return {
        "callbacks": [*callbacks, DataTable(), ProgressLines()],
        "enable_progress_bar": bar,
        "enable_model_summary": False,
    }
