"""How fast rows are planned, how near shares come, and how much is padded.

Run: `python -m tests.benchmarks.planning --out runs/planning.json`
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from data_modules.mixing.sampler import DrawStream, RowPlanner
from tests.helpers.documents import FakeDataset, later, sources

ROW_LENGTH, WINDOW = 512, 1000
RANKS, ROWS, LATE_ROW = 512, 4, 10**8
TARGET = 5000  # rows a second, of one process
MIXTURES: list[dict[str, float]] = [
    {"text": 0.9, "pairs": 0.099, "video": 0.001},
    {"text": 0.001, "pairs": 0.099, "video": 0.9},
    {"text": 0.4, "pairs": 0.2, "video": 0.2, "actions": 0.2},
    {"text": 0.05, "video": 0.95},
    {"text": 0.001, "video": 0.9, "actions": 0.099},
]


def planner(weights: Mapping[str, float], datasets: Mapping[str, FakeDataset]) -> RowPlanner:
    """A planner at its first row."""
    streams = {name: DrawStream(name, datasets[name], seed=0) for name in weights}
    return RowPlanner(streams, weights, ROW_LENGTH, seed=0)


def measure(weights: Mapping[str, float], datasets: Mapping[str, FakeDataset], rows: int) -> dict[str, Any]:
    """Rows per second, and over every stretch of 1,000 rows the worst share and the most padding."""
    timed = planner(weights, datasets)
    begin, used = time.perf_counter(), time.process_time()
    plans = [timed.next_row() for _ in range(rows)]
    seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - used
    names = list(weights)
    placed = np.zeros((rows + 1, len(names)))
    for row, plan in enumerate(plans, start=1):
        for piece in plan.pieces:
            placed[row, names.index(piece.source)] += piece.stop - piece.start
    sums = placed.cumsum(0)
    stretches = sums[WINDOW:] - sums[:-WINDOW]
    wanted = np.array([weights[name] for name in names]) / sum(weights.values())
    return {
        "weights": dict(weights),
        "rows_per_second": rows / seconds,
        "rows_per_cpu_second": rows / cpu_seconds,
        "worst_share_error": float(np.abs(stretches / stretches.sum(1, keepdims=True) - wanted).max()),
        "worst_padding": float(1 - stretches.sum(1).min() / (WINDOW * ROW_LENGTH)),
    }


def measure_late(weights: Mapping[str, float], datasets: Mapping[str, FakeDataset], row: int) -> dict[str, Any]:
    """Seconds to go on, and to plan a step, at a late row of a run on many processes."""
    early = planner(weights, datasets)
    for _ in range(WINDOW):
        early.next_row()
    state = later(early.state(), row)
    begin = time.perf_counter()
    late = planner(weights, datasets)
    late.load_state(json.loads(json.dumps(state)))
    late.next_row()
    resumed = time.perf_counter()
    for _ in range(RANKS * ROWS):
        late.next_row()
    return {
        "row": row,
        "ranks": RANKS,
        "rows_a_rank": ROWS,
        "state_bytes": len(json.dumps(state)),
        "seconds_to_resume": resumed - begin,
        "seconds_to_plan_a_step": time.perf_counter() - resumed,
    }


def main() -> None:
    """Measure all mixtures, print a table and, if asked, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write; none by default")
    parser.add_argument("--rows", type=int, default=10_000, help="rows to plan of each mixture, at least 1,000")
    args = parser.parse_args()
    if args.rows < WINDOW:
        parser.error(f"--rows is {args.rows}; at least {WINDOW} are needed to measure shares")
    datasets = sources(("text", "pairs", "video", "actions"))
    found = [measure(weights, datasets, args.rows) for weights in MIXTURES]
    huge = FakeDataset("pairs", [30], frames=True)
    huge.lengths = np.broadcast_to(huge.lengths, (1, 10**9))
    found.append(measure({"text": 0.5, "pairs": 0.5}, {"text": datasets["text"], "pairs": huge}, args.rows))
    found[-1]["note"] = "pairs: 10^9 documents"

    table = Table("mixture", "rows/s", "rows/CPU-s", "worst share error", "worst padding", title="planning rows")
    for one in found:
        name = ", ".join(f"{source} {weight}" for source, weight in one["weights"].items())
        speeds = (f"{one['rows_per_second']:,.0f}", f"{one['rows_per_cpu_second']:,.0f}")
        errors = (f"{one['worst_share_error']:.2%}", f"{one['worst_padding']:.2%}")
        table.add_row(f"{name} {one.get('note', '')}", *speeds, *errors)
    Console().print(table)
    late = measure_late(MIXTURES[2], datasets, LATE_ROW)
    Console().print(
        f"row {LATE_ROW:,} of {RANKS} processes x {ROWS} rows: {late['seconds_to_resume']:.3f} s to go on, "
        f"{late['seconds_to_plan_a_step']:.3f} s to plan a step, {late['state_bytes']:,} bytes of state"
    )
    if args.out:
        machine = {"python": platform.python_version(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
        report = {"target_rows_per_second": TARGET, "row_length": ROW_LENGTH, "rows": args.rows, "machine": machine}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report | {"mixtures": found, "late": late}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
