"""The data of configs/tiny.yaml for benchmarks, without a trainer."""

from __future__ import annotations

import logging
import warnings

from data_modules.base import DocumentDataModule
from lit_mm.cli import LitCLI


def tiny_data(*options: str) -> DocumentDataModule:
    """The data module, set up, with more options of the command line."""
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).setLevel(logging.ERROR)
    cli = LitCLI(args=["--config=configs/tiny.yaml", *options], run=False)
    cli.datamodule.setup("fit")
    return cli.datamodule
