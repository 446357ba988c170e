"""Ends a run in good order when its machine is wanted back."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from callbacks.checkpoints import Checkpoints
from callbacks.steps import step_ended
from lit_mm.mistake import Mistake
from lit_mm.training.run_folder import run_folder

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Preemption(Callback):
    """On SIGTERM or SIGUSR1, to any of the processes, saves a checkpoint and exits with a code of its own.

    A signal only sets a flag, so nothing is interrupted within a forward or backward pass. Every few optimizer steps
    all processes compare their flags, so that all save the same step. `--ckpt_path last`, with the same run folder
    (`--trainer.logger.init_args.version`), goes on from there.

    Args:
        every_n_steps: how often flags are compared; each time waits for the device.
        exit_code: of the program; a batch script may hand the job back to the queue when it sees it. 75 is the
            system's code for a temporary failure.
    """

    def __init__(self, every_n_steps: int = 10, exit_code: int = 75) -> None:
        if every_n_steps < 1:
            raise Mistake(f"every_n_steps of Preemption is {every_n_steps}; use 1 or more")
        self.every_n_steps, self.exit_code = every_n_steps, exit_code
        self._asked = False
        self._before: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen, in the place of Lightning, which would stop between any two lines."""
        self._asked = False
        self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}

    def _ask(self, number: int, frame: Any) -> None:
        self._asked = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and leave, if any process was asked to."""
        if (
            not step_ended(trainer, batch_idx)
            or trainer.global_step % self.every_n_steps
            or not self._any(pl_module.device)
        ):
            return
        checkpoints = trainer.checkpoint_callback
        folder = Path(getattr(checkpoints, "dirpath", None) or run_folder(trainer) or trainer.default_root_dir)
        if isinstance(checkpoints, Checkpoints):
            checkpoints.save(trainer)
        else:
            trainer.save_checkpoint(folder / "last.ckpt")
        rank_zero_info(f"asked to stop: saved step {trainer.global_step} in '{folder}'; exit code {self.exit_code}")
        raise SystemExit(self.exit_code)

    def _any(self, device: torch.device) -> bool:
        if not dist.is_initialized():
            return self._asked
        asked = torch.tensor(float(self._asked), device=device)
        dist.all_reduce(asked, dist.ReduceOp.MAX)
        return bool(asked)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave signals as they were."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
