"""A callback that gets a fresh run into trouble; what goes on from it is left alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lit_mm.mistake import Mistake


class Trouble(Callback):
    """At a micro-batch: a signal to this process, an error before the step, or NaN in the weights and then an error.

    Args:
        kind: name of a signal, `error`, `nan`, `mistake`, or `worker` to have a data worker killed.
        batch: number of the micro-batch.
    """

    def __init__(self, kind: str, batch: int) -> None:
        self.kind, self.batch = kind, batch

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.ckpt_path is not None or batch_idx != self.batch:
            return
        if self.kind.startswith("SIG"):
            os.kill(os.getpid(), signal.Signals[self.kind])
            return
        if self.kind == "mistake":
            raise Mistake("data.train is wrong")
        if self.kind == "worker":
            youngest = max(child.pid or 0 for child in multiprocessing.active_children())  # others are of other tests
            os.kill(youngest, signal.SIGKILL)
            time.sleep(20)  # the system tells of it
        if self.kind == "nan":
            next(pl_module.parameters()).data.fill_(float("nan"))
        raise RuntimeError("something broke")
