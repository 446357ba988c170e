"""Checkpoints of a run, the newest of which can always be gone on from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loops.evaluation_loop import RestartStage
from lightning.pytorch.utilities import rank_zero_info

from lit_mm.mistake import Mistake
from lit_mm.parallel.checkpoint_files import complete_checkpoints


class Checkpoints(ModelCheckpoint):
    """Lightning's ModelCheckpoint, for runs that may be killed at any moment.

    `--ckpt_path last` means the newest complete checkpoint of the folder, whatever its name, so that a run which was
    killed while `last.ckpt` was being written goes on from the one before; without any it starts at the beginning.
    The last step of a run is saved, whatever its number.

    Args:
        keep_every_n_steps: checkpoints of these steps stay for good, beside the newest; none by default. A multiple of
            `every_n_train_steps`.

    Raises:
        Mistake: no checkpoint is saved at these steps, or their names do not say the step.
    """

    def __init__(self, keep_every_n_steps: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.keep_every_n_steps = keep_every_n_steps
        if keep_every_n_steps is None:
            return
        saved = self._every_n_train_steps
        if keep_every_n_steps < 1 or not saved or keep_every_n_steps % saved:
            raise Mistake(
                f"Checkpoints: keep_every_n_steps is {keep_every_n_steps}, but every_n_train_steps is {saved}; give a "
                "multiple of that"
            )
        if "{step" not in (self.filename or "{step"):
            raise Mistake(
                f"Checkpoints: filename is '{self.filename}', which does not say the step; write {{step}} in it"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What was gone on from needs no second checkpoint, but the validation that was to follow it, if any."""
        super().on_train_start(trainer, pl_module)
        if trainer.ckpt_path is not None:
            self._last_global_step_saved = trainer.global_step
            self._enable_version_counter = False  # or last.ckpt would stay behind, and last-v1.ckpt go on
            _validate_first(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last step."""
        self.save(trainer)

    def save(self, trainer: Trainer, keep_others: bool = False) -> None:
        """Save this step, if it is not saved yet, also where it is none of the best.

        Args:
            trainer: that of the run.
            keep_others: whether no earlier checkpoint makes room for it.
        """
        if self._should_skip_saving_checkpoint(trainer):
            return
        candidates = self._monitor_candidates(trainer)
        if not keep_others:
            self._save_topk_checkpoint(trainer, candidates)
        if self._last_global_step_saved != trainer.global_step and self.save_last is not True:
            self._save_checkpoint(trainer, self.format_checkpoint_name(candidates))
        self._save_last_checkpoint(trainer, candidates)

    def _should_remove_checkpoint(self, trainer: Trainer, previous: str, current: str) -> bool:
        # Lightning keeps what was gone on from, one more with every restart; the newer one is complete by now.
        assert self.dirpath is not None
        step = re.search(r"step=(\d+)", Path(previous).name)
        if self.keep_every_n_steps and step and int(step[1]) % self.keep_every_n_steps == 0:
            return False
        return previous != current and Path(self.dirpath).absolute() in Path(previous).absolute().parents

    def _find_last_checkpoints(self, trainer: Trainer) -> set[str]:
        # Lightning takes the newest of these. Its own method looks for the name alone. The folder is not settled yet
        # when it is called, and what settles it has a private name.
        folder: Path | str = self._ModelCheckpoint__resolve_ckpt_dir(trainer)  # type: ignore[attr-defined]
        found = {str(path) for path in complete_checkpoints(Path(folder))}
        if not found:
            rank_zero_info(
                f"--ckpt_path last: there is no checkpoint in '{folder}', so the run starts at the beginning"
            )
        return found


def _validate_first(trainer: Trainer) -> None:
    """Begin with the validation that was due after the step that was saved.

    Lightning takes it for done, though the run may have been stopped before its end.
    """
    loop, data = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
    assert data is not None
    if loop.restarted_on_train_batch_end and loop._should_check_val_fx(data):
        loop.val_loop._restart_stage = RestartStage.RESTARTED_MID_EVALUATION
        loop.val_loop.restarting = False  # from its first batch
        loop._batches_that_stepped -= 1  # or the step would be counted before and after validation
