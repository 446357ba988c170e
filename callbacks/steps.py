"""When a callback has something to do after a batch."""

from __future__ import annotations

from lightning.pytorch import Trainer


def step_ended(trainer: Trainer, batch_idx: int) -> bool:
    """Whether this batch was the last micro-batch of an optimizer step."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0


def step_logs(trainer: Trainer, batch_idx: int) -> bool:
    """Whether it ended a step that logs (`trainer.log_every_n_steps`)."""
    return step_ended(trainer, batch_idx) and trainer.global_step % trainer.log_every_n_steps == 0
