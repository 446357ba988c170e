"""Packed rows as a person reads them, before any training: `lit-mm fit … --print_rows 3`."""

from __future__ import annotations

from pathlib import Path

from data_modules.base import DocumentDataModule
from lit_mm.mistake import Mistake
from lit_mm.parallel.checkpoint_files import read_header
from lit_mm.sequence import show_row


def print_rows(data: DocumentDataModule, count: int, first: int | None = None, checkpoint: str | None = None) -> None:
    """Show packed training rows to a person.

    Args:
        data: the data module.
        count: how many.
        first: number of the first; by default that which a run would begin with.
        checkpoint: what the run would go on from; later rows are sooner found from there.

    Raises:
        Mistake: the checkpoint is past the first row.
    """
    data.setup("fit")
    if checkpoint is not None:
        data.load_state_dict(read_header(Path(checkpoint))[type(data).__qualname__])
    assert data.format is not None
    rows = data.training_rows()
    planner = rows.planner()
    if first is not None and planner.rows > first:
        raise Mistake(
            f"--first_row is {first}, but '{checkpoint}' goes on with row {planner.rows}; give an earlier one"
        )
    while first is not None and planner.rows < first:
        planner.next_row()
    rows.state = planner.state()
    shown = 0
    for batch in rows:
        for row in range(len(batch.seeds)):
            print(show_row(batch, row, data.format.tokenizer.decode))
            shown += 1
            if shown == count:
                return
