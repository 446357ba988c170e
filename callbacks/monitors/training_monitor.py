"""Losses per source, gradient norm, speed and memory, read from the device only on steps that log."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from callbacks.steps import log_values, step_logs
from lit_mm.parallel.memory import peak_memory
from lit_mm.sequence import PackedBatch
from lit_mm.training.flops import TrainingFlops, attended_pairs, peak
from lit_mm.training.metrics import means_of_all


class TrainingMonitor(Callback):
    """Logs losses, of each source and of all (`train/<source>/text_loss`, `train/flow_loss`, `train/loss` …).

    `train/flow_loss_at/0.3_0.4` is the flow's loss of the frames whose timestep lies there, from 0 (noise) to 1.

    Also the learning rate, the gradient's norm, and speed. For what the losses are means of, see `LitMultimodal`.

    `speed/tokens_per_second` is of all ranks, padding left out. `speed/model_flops_utilisation` is the share of the
    device's peak in bfloat16 that the model's own operations are, attention within documents included, the frozen
    visual tokenizer's and recomputed ones left out; it is not logged on a device whose peak is not known.
    `speed/waiting_for_data` is the share of time that this rank waited for its loader,
    `speed/longest_waiting_for_data` that of the rank that waited longest, `memory/peak_gib` the most this
    rank has held: on a GPU as allocated, else of the process.

    Values are means since the last logged step, losses over all ranks. Between steps that log
    (`trainer.log_every_n_steps`) nothing is logged and the device is never waited for.
    """

    def __init__(self) -> None:
        self._since = time.perf_counter()
        self._flops = 0
        self._tokens: Tensor | None = None  # these two are read from the device on steps that log
        self._pairs: Tensor | None = None
        self._waited = 0.0  # by the loader, until the last step that logged

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._flops_of = TrainingFlops.of(pl_module.model)
        device = pl_module.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        self._peak = peak(name)
        if self._peak is None and device.type != "cpu":
            rank_zero_info(f"the peak of '{name}' is not known, so no model FLOPs utilisation is logged")
        self._restart(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validation is not training time."""
        if not trainer.sanity_checking and trainer.state.fn == "fit":
            self._restart(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: PackedBatch, batch_idx: int
    ) -> None:
        """Count, and log every so often."""
        self._flops += self._flops_of.of_batch(batch)
        tokens, pairs = (batch.document_ids >= 0).sum(), attended_pairs(batch)
        self._tokens = tokens if self._tokens is None else self._tokens + tokens
        self._pairs = pairs if self._pairs is None else self._pairs + pairs
        if not step_logs(trainer, batch_idx):
            return
        sums = pl_module.train_means.sums()
        logged = {f"train/{source}/{name}": total / count for (source, name), (total, count) in sums.items()}
        of_all = pl_module.with_loss(means_of_all(sums))
        logged |= {f"train/{name}": value for name, value in of_all.items()}
        logged |= {f"train/{name}": value for name, value in pl_module.train_means.of_timesteps().items()}
        logged["train/gradient_norm"] = float(pl_module.state.gradient_norm)
        logged["train/learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        logged |= self._speed(trainer)
        logged["memory/peak_gib"] = peak_memory(pl_module.device) / 2**30
        log_values(pl_module, logged)
        bar = {name.removesuffix("_loss"): of_all[name] for name in of_all}
        bar["tokens/s"] = logged["speed/tokens_per_second"]
        log_values(pl_module, bar, prog_bar=True, logger=False)
        self._restart(trainer)

    def _speed(self, trainer: Trainer) -> dict[str, float]:
        seconds = time.perf_counter() - self._since
        assert self._tokens is not None
        waited = (trainer.train_dataloader.waited - self._waited) / seconds
        speed = {
            "speed/tokens_per_second": float(self._tokens) * trainer.world_size / seconds,
            "speed/waiting_for_data": waited,
        }
        if trainer.world_size > 1 and dist.is_initialized():
            longest = torch.tensor(waited, device=self._tokens.device)
            dist.all_reduce(longest, dist.ReduceOp.MAX)
            speed["speed/longest_waiting_for_data"] = float(longest)
        if self._peak is not None:
            flops = self._flops + self._flops_of.pair * float(self._pairs)
            speed["speed/model_flops_utilisation"] = flops / seconds / self._peak
        return speed

    def _restart(self, trainer: Trainer) -> None:
        self._flops = 0
        self._tokens = self._pairs = None
        self._waited = trainer.train_dataloader.waited
        self._since = time.perf_counter()
