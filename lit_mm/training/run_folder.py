"""Where a run writes."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import DummyLogger


def run_folder(trainer: Trainer) -> Path | None:
    """The folder in which a run writes all it writes: configuration, results, samples, checkpoints, predictions.

    It belongs to the run of the first logger: the folder where TensorBoardLogger and CSVLogger log, and
    `<save_dir>/<name>/<version>` of any other, as for ModelCheckpoint (`<project>/<id>` of Weights & Biases,
    `<experiment id>/<run id>` of MLflow). Without a logger it is `trainer.default_root_dir`, which `lit-mm` sets to a
    new folder in `runs/no_logger`. It may not be there yet.

    To be called on all processes: the first one tells the others.

    Returns:
        None with `trainer.fast_dev_run`, which leaves nothing behind.
    """
    return trainer.strategy.broadcast(_of_first_process(trainer) if trainer.is_global_zero else None)


def _of_first_process(trainer: Trainer) -> Path | None:
    if not trainer.loggers:
        return Path(trainer.default_root_dir)
    logger = trainer.loggers[0]
    if isinstance(logger, DummyLogger):
        return None
    if isinstance(logger, TensorBoardLogger | CSVLogger):
        return Path(logger.log_dir)
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return Path(logger.save_dir or trainer.default_root_dir) / str(logger.name) / version
