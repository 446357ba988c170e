"""Rows of tables of pairs of which conditions hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from data_modules.reading.cached import generated
from data_modules.reading.columns import Column
from data_modules.reading.conditions import Condition
from data_modules.reading.entries import read_entries
from data_modules.reading.files import Stamps, has_suffix, warn
from data_modules.reading.records import check_column
from data_modules.reading.row_files import CSV, read_rows
from lit_mm.mistake import Mistake


def kept_rows(
    rows: datasets.Dataset,
    stamps: Stamps,
    conditions: Sequence[Condition],
    key: str,
    all_columns: datasets.Dataset | None = None,
) -> datasets.Dataset:
    """Those rows of which all conditions hold.

    Args:
        rows: the table, as far as its columns are otherwise used.
        stamps: of the files that it is from, all of one format; of a name on the Hub that alone.
        conditions: on columns that need not be among those.
        key: the YAML key, for messages.
        all_columns: the same rows with all of their columns; by default read from the files, JSON or CSV.

    Raises:
        Mistake: no row has a number in a column that is asked for.
    """
    if not conditions:
        return rows
    first = stamps[0][0]
    keep = np.ones(len(rows), bool)
    for condition in conditions:
        if all_columns is None:
            features = datasets.Features({"value": datasets.Value("float64")})
            values = generated(_values, stamps, {"name": condition.name}, features)
            found = Column(values, "value").all()
        else:
            check_column(all_columns, condition.name, f"'{first}'", f"{key} (keep)")
            found = Column(all_columns, condition.name).all()
        held = [condition.holds(value) for value in found.tolist()]
        if held.count(None) == len(held):
            raise Mistake(
                f"{key} (keep): no row of '{first}' has a number in '{condition.name}'; name one that is there"
            )
        if missing := held.count(None):
            warn("%s: %d of %d rows have no number in '%s' and are left out", key, missing, len(held), condition.name)
        keep &= np.array([one is True for one in held])
    if left_out := len(rows) - int(keep.sum()):
        warn("%s: %d of %d rows are left out by keep", key, left_out, len(rows))
    return rows.select(np.flatnonzero(keep))


def _values(items: Stamps, name: str) -> Iterator[dict[str, Any]]:
    condition = Condition(name, "==", 0.0)
    for path, _, _ in items:
        if has_suffix(Path(path), (CSV,)):
            found: Iterator[Any] = (cells[0] for cells, _ in read_rows(Path(path), [name], [name]))
        else:
            found = (condition.value_in(entry or {}) for _, entry, _ in read_entries(Path(path)))
        for value in found:
            yield {"value": float(value) if condition.holds(value) is not None else None}
