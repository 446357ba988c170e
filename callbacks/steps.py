"""When a callback has something to do after a batch, and how it logs without holding up the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer


def step_ended(trainer: Trainer, batch_idx: int) -> bool:
    """Whether this batch was the last micro-batch of an optimizer step."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0


def step_logs(trainer: Trainer, batch_idx: int) -> bool:
    """Whether it ended a step that logs (`trainer.log_every_n_steps`)."""
    return step_ended(trainer, batch_idx) and trainer.global_step % trainer.log_every_n_steps == 0


def last_validation(trainer: Trainer) -> bool:
    """Whether the validation that goes on is that of `validate`, or the last one of a fit."""
    return trainer.state.fn == "validate" or trainer.should_stop or trainer.global_step >= trainer.max_steps > 0


def log_values(module: LightningModule, values: Mapping[str, float], **options: Any) -> None:
    """Log numbers that are the same on all ranks, or of the first one.

    Lightning would copy them to the device, and read those of the progress bar back after every step. On a GPU each of
    these copies waits for all that is queued.

    Args:
        module: whose log it is.
        values: by name.
        options: of `LightningModule.log_dict`.
    """
    module.log_dict({name: torch.tensor(float(v)) for name, v in values.items()}, rank_zero_only=True, **options)
