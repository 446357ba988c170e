"""Values of the trainer that Lightning takes but cannot use, or refuses only once it trains."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import StrategyRegistry
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lit_mm.command_line.causes import nearest
from lit_mm.mistake import Mistake
from lit_mm.precision import usable

_AT_LEAST_ONE = ("accumulate_grad_batches", "check_val_every_n_epoch", "log_every_n_steps", "num_nodes")
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")  # in which Lightning looks, in this order
_ALWAYS_THERE = {"epoch", "step"}  # ModelCheckpoint adds them


@contextmanager
def in_trainer() -> Iterator[None]:
    """Where a Trainer is made, it looks at its arguments and at the machine alone: what it refuses is a mistake."""
    try:
        yield
    except (ValueError, TypeError, ImportError, RuntimeError, MisconfigurationException) as error:
        raise Mistake(f"trainer: {' '.join(str(error).split())}") from error


def check_values(given: Mapping[str, Any]) -> None:
    """Look at arguments of the Trainer.

    Raises:
        Mistake: one of them would divide by zero or never do anything.
    """
    for name in _AT_LEAST_ONE:
        value = given.get(name)
        if isinstance(value, int) and value < 1:
            raise Mistake(f"trainer.{name} is {value}; use 1 or more")
    interval = given.get("val_check_interval")
    if isinstance(interval, int | float) and interval <= 0:
        raise Mistake(
            f"trainer.val_check_interval is {interval}; use a number of steps, or trainer.limit_val_batches 0 for no "
            "validation"
        )
    strategy = given.get("strategy")
    if isinstance(strategy, str) and strategy != "auto" and strategy not in StrategyRegistry.available_strategies():
        near = nearest(strategy, StrategyRegistry.available_strategies())
        raise Mistake(f"trainer.strategy is '{strategy}'{near or ';'} use auto, ddp, fsdp2, or a class")
    if given.get("accelerator") in ("gpu", "cuda") and not torch.cuda.is_available():
        raise Mistake(f"trainer.accelerator is '{given['accelerator']}', but PyTorch finds none; use cpu or auto")
    clip = given.get("gradient_clip_val")
    if isinstance(clip, int | float) and clip < 0:
        raise Mistake(f"trainer.gradient_clip_val is {clip}; use a positive norm, or null for none")


def check_processes(trainer: Trainer) -> None:
    """Compare a Trainer with what the environment says of processes, which an earlier shell may have left there.

    Raises:
        Mistake: it says that this is another than the first of several, and the Trainer has one.
    """
    name = next((name for name in _RANKS if name in os.environ), None)
    if name is None:
        return
    rank = os.environ[name]
    if trainer.world_size == 1 and rank != "0":  # Lightning would log and say nothing
        raise Mistake(
            f"the environment has {name}={rank}, as of one of several processes, but trainer.devices and "
            f"trainer.num_nodes make one; raise them, or unset {name}"
        )
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if trainer.world_size > 1 and isinstance(environment, LightningEnvironment) and "LOCAL_RANK" in os.environ:
        rank_zero_info(
            f"LOCAL_RANK is set in the environment: of {trainer.world_size} processes you start every one; "
            "unset it to have the others started"
        )


def usable_precision(given: Mapping[str, Any]) -> dict[str, Any]:
    """The Trainer's `precision` where it is another than was given, because this processor cannot compute in that."""
    on_cpu = given.get("accelerator") == "cpu" or not torch.accelerator.is_available()
    asked = given.get("precision") or "32-true"
    precision = usable(asked, "cpu") if on_cpu else asked
    if precision == asked:
        return {}
    rank_zero_info(f"trainer.precision is {precision}, not {asked}: this processor does not multiply bfloat16")
    return {"precision": precision}


class MonitorCheck(Callback):
    """Refuses a callback whose `monitor` names no metric, after the first validation, which is that of step 0."""

    def __init__(self) -> None:
        self._checked = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare with what the validation has measured; what training logs is there once it trains.

        Raises:
            Mistake: a metric is not there.
        """
        if self._checked or trainer.state.fn != TrainerFn.FITTING:
            return
        self._checked = not trainer.sanity_checking
        there = trainer.callback_metrics.keys() | _ALWAYS_THERE
        problem = None if not trainer.is_global_zero else self._problem(trainer, there)
        if problem := trainer.strategy.broadcast(problem):  # on all processes, or the others would wait for the first
            raise Mistake(problem)

    def _problem(self, trainer: Trainer, there: set[str]) -> str | None:
        groups = {name.partition("/")[0] for name in there}
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            wanted = getattr(callback, "monitor", None)
            later = trainer.sanity_checking and str(wanted).partition("/")[0] not in groups
            if wanted is None or wanted in there or later or not getattr(callback, "strict", True):
                continue
            names = sorted(there - _ALWAYS_THERE)
            return (
                f"{type(callback).__name__} has monitor '{wanted}', which is not measured"
                f"{nearest(wanted, names) or ';'} there are {', '.join(names)}"
            )
        return None
