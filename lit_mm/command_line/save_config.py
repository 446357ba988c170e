"""The configuration goes where the run goes: into its folder, its checkpoints and its loggers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.trainer.states import TrainerFn

from callbacks.loggers import log_settings
from lit_mm.command_line.checkpoint_config import forget_folder
from lit_mm.command_line.run_folder import claim, make
from lit_mm.mistake import Mistake
from lit_mm.parallel.exported import CONFIG_KEY
from lit_mm.training.run_folder import run_folder


class SaveConfig(SaveConfigCallback):
    """Writes config.yaml into the run folder, and the same text into every checkpoint, so that one file is enough.

    Loggers get it as the run's hyperparameters, by the names that the command line has for them.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Only a fit writes config.yaml: validating or predicting in its run folder leaves it alone."""
        name = "config.yaml" if stage == "fit" else f"config_{TrainerFn(stage).value}.yaml"
        folder = run_folder(trainer)
        if folder is None:
            return
        if stage == "fit":
            self._claim(trainer, folder)
        if trainer.is_global_zero:
            make(folder)
            config = _to_run_again(self.config) if stage == "fit" else self.config
            self.parser.save(config, str(folder / name), skip_none=False, overwrite=True, multifile=False)
            if stage != "predict":
                log_settings(trainer, settings(self.config.as_dict()))

    def _claim(self, trainer: Trainer, folder: Path) -> None:
        problem = None
        if trainer.is_global_zero:
            try:
                claim(folder, fresh=self.config.ckpt_path is None)
            except Mistake as error:
                problem = str(error)
        problem = trainer.strategy.broadcast(problem)
        if problem:  # on all processes, or the others would wait for the first
            raise Mistake(problem)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the configuration beside the weights."""
        checkpoint[CONFIG_KEY] = self.parser.dump(self.config, skip_none=False)


def _to_run_again(config: Namespace) -> Namespace:
    """The configuration as of a new run: without the checkpoint that it went on from, and the number of its folder."""
    config = config.clone()
    config["ckpt_path"] = None
    forget_folder(config["trainer"])
    return config


def settings(config: Any, name: str = "") -> dict[str, str | int | float | bool]:
    """A configuration as values by name, such as `model.optimizer.lr`; a class stands under the name of what it makes.

    Parts of a list that are classes are named after these: `trainer.callbacks.Checkpoints.save_top_k`. What is null is
    left out.
    """
    if isinstance(config, dict):
        inner = {key: value for key, value in config.items() if key not in ("class_path", "init_args", "config")}
        found = settings(config["class_path"], name) if "class_path" in config else {}
        for key, value in {**inner, **(config.get("init_args") or {})}.items():
            found |= settings(value, f"{name}.{key}".lstrip("."))
        return found
    if isinstance(config, list) and any(isinstance(part, dict) for part in config):
        found = {}
        for number, part in enumerate(config):
            class_path = part.get("class_path") if isinstance(part, dict) else None
            found |= settings(part, f"{name}.{class_path.rpartition('.')[2] if class_path else number}")
        return found
    if config is None:
        return {}
    return {name: config if isinstance(config, str | int | float | bool) else str(config)}
