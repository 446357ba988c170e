"""A callback that writes down when each step of a run ended and how long it waited for data, for the benchmarks."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class StepClock(Callback):
    """Writes when the process started and each step ended, in seconds since the epoch, seconds waited, and peak bytes.

    Args:
        file: JSON file to write when training ends.
    """

    def __init__(self, file: str) -> None:
        self.file = Path(file)
        self.ended: list[float] = []
        self.waited: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """The optimizer has stepped."""
        self.ended.append(time.time())
        self.waited.append(trainer.train_dataloader.waited)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it down."""
        if trainer.is_global_zero:
            found = {"started": _process_start(), "ended": self.ended, "waited": self.waited, "peak": _peak()}
            self.file.write_text(json.dumps(found))


def _peak() -> int:
    """The most bytes this process has held. What `getrusage` says includes its parent's, before it became another."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _process_start() -> float:
    """When this process began, in seconds since the epoch."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    boot = next(
        int(line.split()[1]) for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime")
    )
    return boot + ticks / os.sysconf("SC_CLK_TCK")
