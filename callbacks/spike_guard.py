"""Steps that would harm the model are skipped, counted, and written down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from callbacks.steps import log_values, step_ended
from lit_mm.mistake import Mistake
from lit_mm.sequence import PackedBatch
from lit_mm.training.run_folder import run_folder
from lit_mm.training.spikes import SpikeDetector


class _Step(NamedTuple):
    number: int
    first_row: int
    last_row: int
    verdict: Tensor  # (3,): skipped, loss, gradient norm


class SpikeGuard(Callback):
    """Skips optimizer steps whose loss or gradient norm is not finite or far above the usual.

    Weights and the optimizer's moments stay as they were; learning rate and data go on. Whether to skip is decided on
    the device, by the loss and the gradient norm of all ranks, so nothing waits for it; on steps that log, skipped
    steps are counted (`train/skipped_steps`) and written to `skipped_steps.jsonl` in the run folder, with the rows they
    trained on, which `lit-mm fit … --print_rows N --first_row ROW` shows.

    Args:
        deviations: a value this many standard deviations above its running mean is a spike.
        warmup_steps: steps before anything but NaN and infinity is called a spike.
        decay: of the running mean and deviation, per step.
        most_in_a_row: the run ends when more steps than this were skipped one after the other.

    Raises:
        Mistake: the optimizer cannot skip on the device, or too many steps were skipped.
    """

    def __init__(
        self, deviations: float = 6.0, warmup_steps: int = 200, decay: float = 0.99, most_in_a_row: int = 20
    ) -> None:
        if most_in_a_row < 1:
            raise Mistake(f"most_in_a_row of SpikeGuard is {most_in_a_row}; use 1 or more")
        self.detector = SpikeDetector(deviations, warmup_steps, decay)
        self.most_in_a_row = most_in_a_row
        self.skipped = self.in_a_row = 0
        self._steps: list[_Step] = []  # since the last step that logged
        self._first_row: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Be asked before every optimizer step."""
        pl_module.state.spike_detector = self.detector

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that the optimizer can skip a step without asking."""
        self.detector.to(pl_module.device)
        self._steps = [step._replace(verdict=step.verdict.to(pl_module.device)) for step in self._steps]
        optimizer = trainer.optimizers[0]
        if not getattr(optimizer, "_step_supports_amp_scaling", False):
            remedy = "give model.optimizer.fused: true" if "fused" in optimizer.defaults else "use AdamW, fused"
            raise Mistake(
                f"SpikeGuard cannot skip steps of {type(optimizer).__name__} without waiting for the device; {remedy}, "
                "or leave SpikeGuard out"
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: PackedBatch, batch_idx: int
    ) -> None:
        """Remember the step's rows and verdict; look at verdicts every so often."""
        after = batch.plan_state["rows"]
        before = after - len(batch.seeds) * trainer.world_size
        self._first_row = before if self._first_row is None else self._first_row
        if not step_ended(trainer, batch_idx):
            return
        assert self.detector.verdict is not None
        self._steps.append(_Step(trainer.global_step, self._first_row, after - 1, self.detector.verdict))
        self._first_row = None
        if trainer.global_step % trainer.log_every_n_steps == 0:
            self._look(trainer, pl_module)

    def _look(self, trainer: Trainer, pl_module: LightningModule) -> None:
        verdicts = torch.stack([step.verdict for step in self._steps]).tolist()
        records = []
        for step, (skipped, loss, norm) in zip(self._steps, verdicts, strict=True):
            self.in_a_row = self.in_a_row + 1 if skipped else 0
            if skipped:
                rows = [step.first_row, step.last_row]
                records.append({"step": step.number, "loss": loss, "gradient_norm": norm, "rows": rows})
            if self.in_a_row > self.most_in_a_row:
                break
        self._steps = []
        self.skipped += len(records)
        folder = run_folder(trainer)
        if records and trainer.is_global_zero and folder is not None:
            with (Path(folder) / "skipped_steps.jsonl").open("a") as file:
                file.writelines(json.dumps(record) + "\n" for record in records)
        log_values(pl_module, {"train/skipped_steps": self.skipped})
        if self.in_a_row > self.most_in_a_row:
            last = records[-1]
            raise Mistake(
                f"{self.in_a_row} steps in a row were skipped, the last with a loss of {last['loss']:.4g} and a "
                f"gradient norm of {last['gradient_norm']:.4g}: see skipped_steps.jsonl in '{folder}'; go on from a "
                "checkpoint with a lower learning rate or without the data of those rows"
            )

    def state_dict(self) -> dict[str, Any]:
        """Counts, steps that are not counted yet, and what is usual."""
        steps = [(*step[:-1], step.verdict.tolist()) for step in self._steps]
        return {"skipped": self.skipped, "in_a_row": self.in_a_row, "steps": steps, "detector": self.detector.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.skipped, self.in_a_row = state_dict["skipped"], state_dict["in_a_row"]
        self._steps = [
            _Step(number, first_row, last_row, torch.tensor(verdict, dtype=torch.float64))
            for number, first_row, last_row, verdict in state_dict["steps"]
        ]
        self.detector.load_state(state_dict["detector"])
