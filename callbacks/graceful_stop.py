"""A run that is stopped, or that fails, saves its last whole step and says how to go on."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from callbacks.checkpoints import Checkpoints
from callbacks.steps import step_ended
from lit_mm.mistake import Mistake, add_note
from lit_mm.training.run_folder import run_folder
from lit_mm.training.stopping import Stopped, listen


class GracefulStop(Callback):
    """Saves before a run ends by Ctrl-C, SIGTERM, SIGUSR1 or an error. Every `lit-mm fit` has one.

    A signal only sets a flag, so no step is left half done; a second Ctrl-C ends the run at once. One process looks at
    the flag after every optimizer step and every batch of a validation. Several compare theirs every few steps and
    after a validation, so that all save the same step, whichever of them was told. The exit code is 130 after Ctrl-C
    and 75 after the other signals.

    After an error the last whole step is saved beside earlier checkpoints, unless an update was under way, weights are
    not finite, or there are other processes, which may be in another step. The exit code is 1.

    Args:
        every_n_steps: how often several processes compare flags; each time waits for the device.
    """

    def __init__(self, every_n_steps: int = 10) -> None:
        if every_n_steps < 1:
            raise Mistake(f"every_n_steps of GracefulStop is {every_n_steps}; use 1 or more")
        self.every_n_steps = every_n_steps
        self._asked: signal.Signals | None = None
        self._first_step = 0
        self._updating: int | None = None  # number of the batch that changes the weights
        self._position: dict[str, Any] = {}  # of loops and data at the end of the last step
        self._saving = False

    # ---- being asked

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen, in the place of Lightning, which would stop between any two lines."""
        self._asked, self._first_step = None, trainer.global_step
        listen(self._ask)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Likewise, where there is no sanity check."""
        if self._asked is None:
            self.on_sanity_check_start(trainer, pl_module)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if number == self._asked == signal.SIGINT:
            raise Stopped(number, at_once=True)
        self._asked = signal.Signals(number)
        if number == signal.SIGINT:
            print("\nstopping after this step; Ctrl-C again stops at once, without saving", file=sys.stderr)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note where the run stands after a step, and leave if any process was asked to."""
        if not step_ended(trainer, batch_idx):
            return
        self._position = _position(trainer)
        if trainer.world_size == 1 or trainer.global_step % self.every_n_steps == 0:
            self._leave_if_asked(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """One process need not wait for the end of a validation."""
        if trainer.world_size == 1 and trainer.state.fn == TrainerFn.FITTING:
            self._leave_if_asked(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Several processes end a validation together."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._leave_if_asked(trainer)

    def _leave_if_asked(self, trainer: Trainer) -> None:
        asked = int(self._asked or 0)
        if trainer.world_size > 1:
            asked = int(_over_all(trainer, asked, dist.ReduceOp.MAX))
        if asked:
            raise Stopped(asked)

    # ---- ending

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        """From here to the end of the batch weights may be half of one step and half of the next."""
        self._updating = trainer.fit_loop.epoch_loop.batch_progress.total.ready

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save, and say where and how to go on; after a signal that broke something else, that it was the signal.

        Of an error this is said last, as a note of it.
        """
        if trainer.state.fn != TrainerFn.FITTING:
            return
        if self._asked and not isinstance(exception, Stopped):
            exception.__cause__ = Stopped(self._asked)
        cause = exception if isinstance(exception, Stopped) else exception.__cause__
        asked, begun = isinstance(cause, Stopped), trainer.global_step > self._first_step
        if not asked and not begun:
            return  # the error says all
        try:
            done = self._save(trainer, pl_module, exception)
        except Exception as error:  # the first one is still to be told
            done = f"it could not be saved ({' '.join(str(error).split())[:300]})"
        if not trainer.is_global_zero:
            return
        by = cause.by if isinstance(cause, Stopped) else "an error"
        at = f"at step {trainer.global_step}" if begun else "before the first step"
        told = f"stopped by {by} {at}: {done}{self._how_to_go_on(trainer)}"
        if asked:
            print(told, file=sys.stderr, flush=True)
        else:
            add_note(exception, told)

    def _save(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> str:
        """What was done about this step, in words."""
        checkpoints = _checkpoints(trainer)
        asked = isinstance(exception, Stopped)
        progress = trainer.fit_loop.epoch_loop.batch_progress.total
        if trainer.global_step <= self._first_step:
            return "there is nothing to save"
        if checkpoints is None:
            return "nothing is saved, as the run has no Checkpoints"
        if checkpoints._last_global_step_saved == trainer.global_step:
            return f"it is saved in '{_shown(checkpoints._last_checkpoint_saved)}'"
        if asked and exception.at_once:  # type: ignore[attr-defined]
            return "it is not saved"
        if trainer.world_size > 1 and not asked:
            return "it is not saved, as the other processes may be in another step"
        if self._updating == progress.ready and progress.processed < progress.ready:
            return "it is not saved, as its update was not finished"
        if not _over_all(trainer, _finite(module), dist.ReduceOp.MIN):
            return "it is not saved, as there is NaN or infinity in its weights"
        at_step = self._position.get("step") == trainer.global_step
        if at_step and trainer.datamodule is not None:  # type: ignore[attr-defined]
            trainer.datamodule.load_state_dict(self._position["data"])  # type: ignore[attr-defined]
        self._saving = at_step
        path = _save(checkpoints, trainer, keep_others=not asked)
        trainer.strategy.checkpoint_io.teardown()  # waits for what is written in the background
        return f"saved '{_shown(path)}'"

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """What was begun since the end of the step is not a part of it."""
        if self._saving:
            checkpoint["loops"]["fit_loop"] = self._position["loops"]

    def _how_to_go_on(self, trainer: Trainer) -> str:
        checkpoints = _checkpoints(trainer)
        if checkpoints is None or not checkpoints.dirpath:
            return ""
        last = Path(checkpoints.dirpath) / f"{checkpoints.CHECKPOINT_NAME_LAST}{checkpoints.FILE_EXTENSION}"
        path = last if last.exists() else checkpoints._last_checkpoint_saved or trainer.ckpt_path
        return f"; go on with: lit-mm fit --ckpt_path {_shown(path)}" if path else ""


def _shown(path: Path | str) -> str:
    """Relative to the working folder if it is in there."""
    return str(path).removeprefix(f"{Path.cwd()}/")


def _position(trainer: Trainer) -> dict[str, Any]:
    data = trainer.datamodule  # type: ignore[attr-defined]
    return {
        "step": trainer.global_step,
        "loops": trainer.fit_loop.state_dict(),
        "data": {} if data is None else data.state_dict(),
    }


def _checkpoints(trainer: Trainer) -> ModelCheckpoint | None:
    """The callback that saves: ours if there is one."""
    found = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
    return next((c for c in found if isinstance(c, Checkpoints)), found[0] if found else None)


def _save(checkpoints: ModelCheckpoint, trainer: Trainer, keep_others: bool) -> str:
    if isinstance(checkpoints, Checkpoints):
        checkpoints.save(trainer, keep_others)
        return checkpoints._last_checkpoint_saved
    folder = checkpoints.dirpath or run_folder(trainer) or trainer.default_root_dir
    path = str(Path(folder) / f"{checkpoints.CHECKPOINT_NAME_LAST}{checkpoints.FILE_EXTENSION}")
    trainer.save_checkpoint(path)
    return path


def _finite(module: LightningModule) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in _own_parts(module))


def _own_parts(module: LightningModule) -> Iterator[Tensor]:
    """Trained weights; of shards those of this process."""
    for parameter in module.parameters():
        if parameter.requires_grad:
            tensor: Any = parameter.detach()
            yield tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _over_all(trainer: Trainer, value: float, operation: Any) -> float:
    """The largest or smallest value of all processes."""
    if trainer.world_size == 1:
        return value
    found = torch.tensor(float(value), device=trainer.strategy.root_device)
    dist.all_reduce(found, operation)
    return float(found)
