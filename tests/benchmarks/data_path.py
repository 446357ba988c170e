"""What data costs: rows a second by source and workers, how long training waits, when it begins, and what memory does.

Run: `python -m tests.benchmarks.data_path`, after `make data`. Rows are those of configs/tiny.yaml; memory is watched over
26,000 of them, which an hour of training on two cores takes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing import active_children
from pathlib import Path
from typing import Any

from rich.table import Table

from data_modules.base import DocumentDataModule
from lit_mm.sequence import PackedBatch
from tests.benchmarks.report import finish, options
from tests.benchmarks.tiny_data import tiny_data
from tests.helpers.program import ROOT

SOURCES = ("text", "image_text", "video", "action_video")
WORKERS = (0, 1, 2)
WARM_UP = 8  # batches, or steps, that are not counted
SAMPLES = 10  # of memory


def batches(data: DocumentDataModule) -> Iterator[PackedBatch]:
    """Training batches, read ahead by the workers; the first few have been taken."""
    loader = iter(data.train_dataloader())
    for _ in range(WARM_UP):
        next(loader)
    return loader


def rows_per_second(weights: dict[str, float], workers: int, seconds: float) -> float:
    """How many rows come out when nothing else is done."""
    weighted = (f"--data.weights.{name}={weight}" for name, weight in weights.items())
    data = tiny_data(f"--data.loader.workers={workers}", *weighted)
    loader, rows, begin = batches(data), 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        rows += len(next(loader).seeds)
    return rows / (time.perf_counter() - begin)


def training(workers: int, steps: int, environment: dict[str, str]) -> dict[str, float]:
    """A real run of configs/tiny.yaml as a process of its own: step, share of waiting, time to the first step."""
    with tempfile.TemporaryDirectory() as folder:
        args = [
            "fit",
            "--config=configs/tiny.yaml",
            f"--data.loader.workers={workers}",
            f"--trainer.max_steps={WARM_UP + steps}",
            "--trainer.num_sanity_val_steps=0",
            f"--trainer.val_check_interval={WARM_UP + steps + 1}",
            f"--trainer.logger.save_dir={folder}",
            "--trainer.callbacks+=tests.benchmarks.step_clock.StepClock",
            f"--trainer.callbacks.file={folder}/clock.json",
        ]
        command = [sys.executable, "-m", "lit_mm", *args]
        run = subprocess.run(
            command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False
        )
        if run.returncode:
            raise RuntimeError(run.stdout + run.stderr)
        clock = json.loads(Path(folder, "clock.json").read_text())
    ended, waited = clock["ended"], clock["waited"]
    return {
        "step_seconds": (ended[-1] - ended[WARM_UP - 1]) / steps,
        "waiting_share": (waited[-1] - waited[WARM_UP - 1]) / (ended[-1] - ended[WARM_UP - 1]),
        "seconds_to_first_step": ended[0] - clock["started"],
    }


def memory(rows: int) -> list[dict[str, float]]:
    """Memory of this process and its two workers while so many rows of the mixture are read: MiB, shared pages once."""
    data = tiny_data("--data.loader.workers=2")
    loader, read, found = batches(data), 0, []
    while read < rows:
        read += len(next(loader).seeds)
        if read >= (len(found) + 1) * rows // SAMPLES:
            workers = [worker.pid for worker in active_children() if worker.pid is not None]
            found.append({"rows": read, "reader": _mebibytes(os.getpid()), "workers": sum(map(_mebibytes, workers))})
    return found


def _mebibytes(process: int) -> float:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def main() -> None:
    """Print tables and write them as JSON."""
    parser = options(__doc__, "data_path", seconds=6, steps=30, rounds=2, rows=26_000)
    arguments = parser.parse_args()
    mixtures = {name: {other: float(other == name) for other in SOURCES} for name in SOURCES} | {"all, mixed": {}}
    speeds: dict[str, list[float]] = {}
    table = Table("rows a second", *(f"{workers} workers" for workers in WORKERS))
    for name, weights in mixtures.items():
        speeds[name] = [rows_per_second(weights, workers, arguments.seconds) for workers in WORKERS]
        table.add_row(name, *(f"{speed:,.0f}" for speed in speeds[name]))
    waiting = Table("training", "step (ms)", "waiting for data", "from start to the end of the first step (s)")
    settings = {
        f"{workers} workers, {policy or 'default'} threads": (workers, {"OMP_WAIT_POLICY": policy} if policy else {})
        for workers in WORKERS[1:]
        for policy in ("", "PASSIVE")
    }
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in settings}
    for _ in range(arguments.rounds):
        for name, (workers, environment) in settings.items():
            runs[name].append(training(workers, arguments.steps, environment))
    medians = {n: {key: statistics.median(run[key] for run in found) for key in found[0]} for n, found in runs.items()}
    for name, found in medians.items():
        step, start = f"{1e3 * found['step_seconds']:.0f}", f"{found['seconds_to_first_step']:.1f}"
        waiting.add_row(name, step, f"{found['waiting_share']:.2%}", start)
    held = memory(arguments.rows)
    grown = Table("rows read", "process (MiB)", "two workers (MiB)")
    for sample in held:
        grown.add_row(f"{sample['rows']:,}", f"{sample['reader']:.0f}", f"{sample['workers']:.0f}")
    results: dict[str, Any] = {"rows_per_second": speeds, "workers": WORKERS, "training": medians, "memory": held}
    finish([table, waiting, grown], results, arguments.out)


if __name__ == "__main__":
    main()
