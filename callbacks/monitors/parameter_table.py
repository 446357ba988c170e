"""How many parameters a model has, and in which parts."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import RichModelSummary
from lightning.pytorch.utilities.model_summary import get_human_readable_count
from rich import get_console
from rich.table import Table


class ParameterTable(RichModelSummary):
    """Lightning's summary of the model, without the floating-point operations, which it does not count here."""

    @staticmethod
    def summarize(
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        model_size: float,
        total_training_modes: dict[str, int],
        total_flops: int,
        **summarize_kwargs: Any,
    ) -> None:
        """Print one row per part, and the sums."""
        columns = {name.strip(): values for name, values in summary_data if name not in (" ", "FLOPs")}
        table = Table(header_style="bold magenta")
        for name in columns:
            table.add_column(name, justify="right" if name.startswith("Params") else "left")
        for row in zip(*columns.values(), strict=True):
            table.add_row(*row)
        trained, frozen = trainable_parameters, total_parameters - trainable_parameters
        console = get_console()
        console.print(table)
        console.print(
            f"parameters: {_count(trained)} trained, {_count(frozen)} frozen, {model_size:,.0f} MB", highlight=False
        )


def _count(number: int) -> str:
    return get_human_readable_count(int(number)).strip()
