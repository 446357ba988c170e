"""The data of configs/tiny.yaml for benchmarks, without a trainer."""

from __future__ import annotations

import logging
import warnings

from data_modules.base import DocumentDataModule
from lit_mm.cli import LitCLI

LOUD = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed")  # what they say is of no use here


def tiny_data(*options: str) -> DocumentDataModule:
    """The data module, set up, with more options of the command line."""
    loggers = [logging.getLogger(name) for name in LOUD]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cli = LitCLI(args=["--config=configs/tiny.yaml", *options], run=False)
            cli.datamodule.setup("fit")
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    return cli.datamodule
