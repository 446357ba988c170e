"""A callback that spoils data while a run reads them."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from contextlib import suppress
from glob import glob
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer


class Cut(Callback):
    """Before a batch, the first rank spoils all files of a pattern, or has a server begin to fail.

    Args:
        pattern: of the files' paths, or the server's address for `/trouble`.
        batch: number of the batch.
        how: files are cut to nothing, or removed.
    """

    def __init__(self, pattern: str, batch: int, how: Literal["cut", "remove"] = "cut") -> None:
        self.pattern, self.batch, self.how = pattern, batch, how

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx != self.batch or not trainer.is_global_zero:
            return
        if self.pattern.startswith("http://"):
            with suppress(urllib.error.HTTPError):
                urllib.request.urlopen(self.pattern).close()
            return
        for path in glob(self.pattern):
            os.remove(path) if self.how == "remove" else os.truncate(path, 0)
