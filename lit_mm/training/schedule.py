"""Learning-rate schedule: linear warm-up, then cosine decay (paper)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from lit_mm.mistake import Mistake


@dataclass
class WarmupCosine:
    """Linear from 0 to the learning rate, then a half cosine down to a share of it (paper).

    Args:
        warmup_steps: optimizer steps of the warm-up.
        final_share: learning rate at the end, as a share of the highest; the paper's 1.5e-5 / 3e-4 is 0.05.
        decay_steps: the step at which the cosine ends; the trainer's max_steps by default.

    Raises:
        Mistake: one of them is negative, or the share is above 1.
    """

    warmup_steps: int = 1000
    final_share: float = 0.05
    decay_steps: int | None = None

    def __post_init__(self) -> None:
        if self.warmup_steps < 0:
            raise Mistake(f"model.schedule.warmup_steps is {self.warmup_steps}; use 0 or more")
        if not 0 <= self.final_share <= 1:
            raise Mistake(f"model.schedule.final_share is {self.final_share}; use a share from 0 to 1")
        if self.decay_steps is not None and self.decay_steps < 1:
            raise Mistake(f"model.schedule.decay_steps is {self.decay_steps}; use 1 or more, or null for max_steps")

    def share(self, step: int, total: int) -> float:
        """Learning rate after `step` steps, as a share of the highest."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / max(1, total - self.warmup_steps))
        return self.final_share + (1 - self.final_share) * 0.5 * (1 + math.cos(math.pi * progress))

    def __call__(self, optimizer: Optimizer, max_steps: int) -> LambdaLR:
        """The scheduler, to be stepped once per optimizer step.

        Raises:
            Mistake: neither `decay_steps` nor the trainer's `max_steps` says when the cosine ends.
        """
        total = self.decay_steps or max_steps
        if total <= 0:
            raise Mistake("trainer.max_steps is -1, so the cosine has no end: set it or model.schedule.decay_steps")
        return LambdaLR(optimizer, lambda step: self.share(step, total))


def settings_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Learning rate, decay and so on of each parameter group, as configured."""
    return [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]


def apply_settings(settings: list[dict[str, Any]], optimizer: Optimizer, scheduler: LambdaLR) -> None:
    """Set an optimizer and its schedule to `settings`, keeping their moments and their step.

    Restoring a checkpoint brings back its learning rate and decay too; what is configured now wins over them.
    """
    scheduler.base_lrs = [group["initial_lr"] for group in settings]
    for group, configured, share in zip(optimizer.param_groups, settings, scheduler.lr_lambdas, strict=True):
        group.update(configured)
        group["lr"] = configured["initial_lr"] * share(scheduler.last_epoch)
