"""A callback that times the visual tokenizer within a training step, for `tests.benchmarks.encoding`."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class EncodingTime(Callback):
    """Times every step from its batch to its end, and the tokenizer within it. The last run's times are kept here."""

    steps: list[float] = []
    encodings: list[float] = []
    pictures: list[int] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure `encode` where the module calls it."""
        EncodingTime.steps, EncodingTime.encodings, EncodingTime.pictures = [], [], []
        encode = pl_module.visual_tokens

        def timed(batch: Any) -> Any:
            start = time.perf_counter()
            tokens = encode(batch)
            self.encodings.append(time.perf_counter() - start)
            self.pictures.append(len(batch.frames))
            return tokens

        pl_module.visual_tokens = timed  # type: ignore[assignment]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The batch is there."""
        self._start = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        """The optimizer has stepped."""
        self.steps.append(time.perf_counter() - self._start)
