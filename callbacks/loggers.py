"""Settings, pictures, texts and tables, each the way a logger has for them.

TensorBoard, Weights & Biases and MLflow show all of them. Other loggers, such as CSVLogger, get the settings alone: the
rest is in the run folder. To be called on the first process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import MLFlowLogger, TensorBoardLogger, WandbLogger
from torch import Tensor
from torchvision.transforms.functional import to_pil_image


def log_settings(trainer: Trainer, settings: Mapping[str, str | int | float | bool]) -> None:
    """Log a run's hyperparameters, by which a logger's table of runs can be sorted."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            _log_to_tensorboard(logger, settings)
        elif isinstance(logger, MLFlowLogger):  # which refuses a new value, as where a run goes on with more steps
            known = logger.experiment.get_run(logger.run_id).data.params
            logger.log_hyperparams({name: value for name, value in settings.items() if name not in known})
        else:
            logger.log_hyperparams(dict(settings))


def _log_to_tensorboard(logger: TensorBoardLogger, settings: Mapping[str, Any]) -> None:
    """Without the value that Lightning would log for a metric called hp_metric; the page shows the curve `val/loss`."""
    from torch.utils.tensorboard.summary import hparams  # TensorBoard is slow to import

    logger.log_hyperparams(dict(settings), metrics={})  # for hparams.yaml
    for summary in hparams(dict(settings), {"val/loss": 0.0}):
        logger.experiment.file_writer.add_summary(summary)


def log_picture(trainer: Trainer, name: str, picture: Tensor) -> None:
    """Log a picture (3, height, width), uint8, of the present step."""
    step = trainer.global_step
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, picture, step)
        elif isinstance(logger, WandbLogger):
            logger.log_image(name, [to_pil_image(picture)], step)
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_image(logger.run_id, to_pil_image(picture), key=name, step=step, synchronous=True)


def log_texts(trainer: Trainer, name: str, texts: Sequence[str]) -> None:
    """Log texts of the present step."""
    step = trainer.global_step
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text(name, "\n\n".join(texts), step)
        elif isinstance(logger, WandbLogger):
            logger.log_text(name, ["text"], [[text] for text in texts], step=step)
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_text(logger.run_id, "\n".join(texts), f"{name}/step_{step:07d}.txt")


def log_table(trainer: Trainer, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Log a table, where a logger has tables: Weights & Biases and MLflow."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_table(name, list(columns), [list(row) for row in rows], step=trainer.global_step)
        elif isinstance(logger, MLFlowLogger):
            table = dict(zip(columns, map(list, zip(*rows, strict=True)), strict=True))
            logger.experiment.log_table(logger.run_id, table, f"{name}.json")


def log_histogram(trainer: Trainer, name: str, values: Tensor) -> None:
    """Log how values are distributed in the present step, where a logger shows that: not MLflow."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_histogram(name, values, trainer.global_step)
        elif isinstance(logger, WandbLogger):
            import wandb

            logger.log_metrics({name: wandb.Histogram(values.cpu().numpy())}, trainer.global_step)  # type: ignore[dict-item]
