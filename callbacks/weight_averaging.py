"""Averaged weights, which validation and prediction use."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.optim.swa_utils import get_ema_multi_avg_fn

from callbacks.steps import step_ended
from lit_mm.mistake import Mistake
from lit_mm.parallel import tensors


class WeightAveraging(Callback):
    """Keeps an exponential moving average of the weights; validation, samples and prediction use it.

    After optimizer step n, `average = d * average + (1 - d) * weights` with `d = min(decay, (1 + n) / (10 + n))`: an
    average over about the last ninth of the steps so far, until `decay` is reached. So the first weights are forgotten
    and a short run is averaged too. Each process averages its own shards, so nothing is gathered. The average is saved
    in the same checkpoint as the weights; a checkpoint that has none starts one at its weights, and without this
    callback a checkpoint's average is not read.

    Args:
        decay: most that d becomes, from 0 to 1; 0.9999 averages over about 10,000 steps (ours: the paper does not
            say).
    """

    def __init__(self, decay: float = 0.9999) -> None:
        if not 0 <= decay <= 1:
            raise Mistake(f"the decay of WeightAveraging is {decay}; use a number from 0 to 1, such as 0.9999")
        self.decay = decay

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Ask for a second model, before the first is built."""
        pl_module.state.averages_weights = True

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the average after an optimizer step."""
        if step_ended(trainer, batch_idx):
            self._drop_gathered(pl_module.averaged)  # of shards that are about to change
            steps = trainer.global_step
            move = get_ema_multi_avg_fn(min(self.decay, (1 + steps) / (10 + steps)))
            move(tensors(pl_module.averaged), tensors(pl_module.model), 0)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make room for training."""
        self._drop_gathered(pl_module.averaged)

    @staticmethod
    def _drop_gathered(averaged: nn.Module) -> None:
        for module in averaged.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
