"""How large gradients and updates are, for the weights of text, those of pictures, and those of both."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from callbacks.steps import log_values, step_ended
from lit_mm.mistake import Mistake
from lit_mm.training.modalities import norms_by_part, weights_by_part


class UpdateMonitor(Callback):
    """Logs `gradients/<part>`, the norm of the gradient before clipping, and `updates/<part>`, how far a step moves.

    Parts are `text` (embedding, text head, and of weights with one copy for each modality that for text), `visual` and
    `shared`. An update is the norm of the change over that of the weights: about 0.001 is usual, and a part whose
    updates are a hundred times smaller than the others' does not learn.

    On a step that is looked at, the weights are copied for as long as the step takes.

    Args:
        every_n_steps: how often it looks.

    Raises:
        Mistake: that is less than 1.
    """

    def __init__(self, every_n_steps: int = 100) -> None:
        if every_n_steps < 1:
            raise Mistake(f"UpdateMonitor has every_n_steps {every_n_steps}; give 1 or more")
        self.every_n_steps = every_n_steps
        self._before: dict[nn.Parameter, Tensor] = {}
        self._gradients: dict[str, Tensor] = {}

    @torch.no_grad()
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Note gradients and weights."""
        if (trainer.global_step + 1) % self.every_n_steps:
            return
        weights = weights_by_part(pl_module.model)  # type: ignore[arg-type]
        self._gradients = norms_by_part(weights, lambda parameter: parameter.grad)
        self._before = {parameter: parameter.detach().clone() for parameter, _ in weights}

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Compare, and log."""
        if not step_ended(trainer, batch_idx) or not self._before:
            return
        before, self._before = self._before, {}
        weights = weights_by_part(pl_module.model)  # type: ignore[arg-type]
        moved = norms_by_part(weights, lambda parameter: parameter - before[parameter])
        size = norms_by_part(weights, before.__getitem__)
        logged = {f"gradients/{part}": float(norm) for part, norm in self._gradients.items()}
        logged |= {f"updates/{part}": float(moved[part] / size[part].clamp_min(1e-12)) for part in moved}
        log_values(pl_module, logged)
