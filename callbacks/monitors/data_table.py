"""What a fit reads, before it trains: a table on the screen and in TensorBoard, and `data_report.json`."""

from __future__ import annotations

import json
from dataclasses import asdict

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table

from callbacks.loggers import log_texts
from data_modules.base import DocumentDataModule
from data_modules.data_report import COLUMNS, as_markdown, data_report
from lit_mm.training.run_folder import run_folder

FILE = "data_report.json"


class DataTable(Callback):
    """Shows for every source and split what is read and what is left out, and writes it into the run folder.

    Data modules of other kinds than `DocumentDataModule` have no table.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Before the first validation; every source is open by now."""
        data = trainer.datamodule
        if not isinstance(data, DocumentDataModule):
            return
        folder = run_folder(trainer)
        if not trainer.is_global_zero:
            return
        reports = data_report(data)
        table = Table(header_style="bold magenta")
        for name in COLUMNS:
            table.add_column(name, justify="right" if name in COLUMNS[2:7] else "left", overflow="fold")
        for report in reports:
            table.add_row(*report.cells())
        Console().print(table)
        log_texts(trainer, "data", [as_markdown(reports)])
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            content = json.dumps([asdict(report) for report in reports], indent=1, ensure_ascii=False)
            (folder / FILE).write_text(content + "\n", encoding="utf-8")
