"""What a run is expected to need in memory, and what it did need."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console

from lit_mm.parallel import Fsdp2Strategy
from lit_mm.parallel.memory import GIB, BatchShape, MemoryEstimate, estimate, peak_memory
from lit_mm.sequence import PackedBatch


class MemoryReport(Callback):
    """Prints an estimate for each process before the first step, and the measured peak of the first one at the end.

    On a GPU the peak is of what was allocated there; elsewhere it is how much the process has grown since before the
    model was built, which includes whatever libraries keep.
    """

    def __init__(self) -> None:
        self._before = 0
        self._estimate: MemoryEstimate | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Note what is held before the model is built."""
        device = trainer.strategy.root_device
        self._before = 0 if device.type == "cuda" else peak_memory(device)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: PackedBatch, batch_idx: int
    ) -> None:
        """Estimate, once the shapes of a batch are known."""
        if self._estimate is not None or not trainer.is_global_zero:
            return
        module: Any = pl_module
        strategy = trainer.strategy
        before = peak_memory(strategy.root_device)
        self._estimate = estimate(
            module.new_model,
            BatchShape(
                rows=batch.tokens.shape[0],
                row_length=batch.tokens.shape[1],
                frames=batch.visual_positions.shape[0],
                tokens_per_frame=batch.visual_positions.shape[1],
                channels=module.vision.channels,
                read_channels=module.vision.read_channels,
            ),
            module.parallelize,
            shards=strategy.shards if isinstance(strategy, Fsdp2Strategy) else None,
            precision=str(trainer.precision),
            averaged=module.state.averages_weights,
            tokenizer=module.vision,
        )
        self._before += peak_memory(strategy.root_device) - before  # what estimating took
        Console().print(self._estimate.table())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare."""
        if self._estimate is None:
            return
        peak = peak_memory(trainer.strategy.root_device) - self._before
        Console().print(
            f"memory of a process: estimated {self._estimate.total / GIB:.3f} GiB, measured {peak / GIB:.3f} GiB"
        )
