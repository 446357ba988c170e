"""Loaders of batches: how long they were waited for, and whole optimizer steps at once."""

from __future__ import annotations

import gc
import signal
import time
from typing import Any

from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from data_modules.mixing.loader_config import LoaderConfig
from data_modules.mixing.steps import with_step_counts

FREED = 16 << 20  # bytes; see `start_worker`


class TimedLoader(DataLoader):
    """A DataLoader that adds up how long it was waited for.

    Attributes:
        waited: seconds.
    """

    waited = 0.0

    def __iter__(self) -> Any:
        batches = super().__iter__()
        while True:
            start = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.waited += time.perf_counter() - start
            yield batch


class StepLoader(TimedLoader):
    """A loader of training batches that reads all micro-batches of an optimizer step before it gives the first.

    Attributes:
        trainer: whose steps they are; without one each batch is a step.
    """

    trainer: Trainer | None = None

    def __iter__(self) -> Any:
        trainer = self.trainer
        if trainer is None:
            return super().__iter__()
        done = trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
        return with_step_counts(super().__iter__(), lambda: trainer.accumulate_grad_batches, done)


def start_worker(loader: LoaderConfig, number: int) -> None:
    """What a worker is born with it shares with its parent. Passing over it, the garbage collector would copy it.

    The allocator of glibc keeps for later twice the largest block that was ever freed, 256 kB at first; the memory of
    a batch's pictures it would ask for anew each time, a page of 4 kB at a time.

    Ctrl-C in a terminal reaches workers too; they read on until the run has saved its step.

    Args:
        loader: settings of the run.
        number: of the worker.
    """
    loader.apply()
    gc.freeze()
    bytearray(FREED)
    for one in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(one, signal.SIG_IGN)
