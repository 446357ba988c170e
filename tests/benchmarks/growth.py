"""How step time and memory grow with row length, width, experts, sources and processes.

Each table ends with the exponent of a power law through its points: 0 costs nothing, 1 is in proportion, 2 is quadratic.

Run: `python -m tests.benchmarks.growth`, after `make data`. All but processes are the model of configs/model/tiny.yaml on
one thread; processes run configs/tiny.yaml with a thread each, so more of them than there are cores only take turns.
"""

from __future__ import annotations

import ctypes
import gc
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from data_modules.mixing.sampler import DrawStream, RowPlanner
from lit_mm.backbone import ExpertFeedForward, ModalityFeedForward
from lit_mm.backbone.masks import AttentionBackend
from lit_mm.packing import pack_rows
from lit_mm.sequence import Document, PackedBatch, PackedRow, Text
from tests.benchmarks.interleaved import interleaved
from tests.benchmarks.our_model import Size, TrainingStep, lit_model, with_latents
from tests.benchmarks.report import finish, options
from tests.benchmarks.tiny_data import tiny_data
from tests.helpers.documents import FakeDataset
from tests.helpers.program import ROOT, environment

POSITIONS = 4096  # of a step, whatever the row length
LENGTHS = (256, 512, 1024, 2048, 4096)
WIDTHS = (128, 256, 512, 1024)
EXPERTS = (8, 16, 32, 64, 128)
SOURCES = (1, 4, 16, 64)
RANKS = (1, 2, 4)
WARM_UP, RUN_STEPS = 3, 8
TINY = Size()
Found = dict[int, dict[str, float]]


def mixture(length: int, rows: int, count: int = 2) -> list[PackedBatch]:
    """Batches of the tiny mixture."""
    data = tiny_data(f"--data.loader.row_length={length}", f"--data.loader.rows={rows}")
    batches = iter(data.training_rows())
    return [with_latents(next(batches), TINY.channels) for _ in range(count)]


def one_text(length: int) -> list[PackedBatch]:
    """A batch of rows that hold one long text each."""
    ids = torch.randint(16, TINY.vocabulary, (length,), generator=torch.Generator().manual_seed(0))
    rows = [PackedRow((Document((Text(ids),), "text"),), n, n) for n in range(POSITIONS // length)]
    shape = {"length": length, "tokens_per_frame": 16, "image_size": 0, "pad_id": 0}
    return [with_latents(pack_rows(rows, sources=("text",), **shape), TINY.channels)]  # type: ignore[arg-type]


def step(batches: list[PackedBatch], size: Size = TINY, backend: AttentionBackend = "auto", **experts: Any) -> Any:
    """A training step of the tiny model, or of one of another size."""
    feed_forward: Any = partial(ModalityFeedForward, hidden_dim=3 * size.dim)
    if experts:
        feed_forward = partial(ExpertFeedForward, active=6, granularity=8, **experts)
    return TrainingStep(lit_model(size, feed_forward, backend=backend), batches)


def measure(make: Callable[[int], Any], values: tuple[int, ...], rounds: int) -> Found:
    """Median seconds of a step, and the most memory it needs beyond what is held before."""
    steps = {str(value): make(value) for value in values}
    seconds = interleaved(steps, rounds, warm_up=2)
    return {
        value: {"seconds": statistics.median(seconds[str(value)]), "gib": peak(steps[str(value)])} for value in values
    }


def peak(step: Callable[[int], None]) -> float:
    """GiB by which this process grows at most while `step` runs, from when it holds no memory that is not in use."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    step(0)
    return (_status("VmHWM") - before) / 2**20


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def planning(sources: int, rows: int = 4000) -> dict[str, float]:
    """Seconds to plan a row of so many sources, of 512 positions."""
    rng = np.random.default_rng(0)
    names = [f"source {i}" for i in range(sources)]
    datasets = {
        name: FakeDataset(name, rng.integers(20, 260, 1000), splittable=n % 4 == 0) for n, name in enumerate(names)
    }
    streams = {name: DrawStream(name, dataset, seed=0) for name, dataset in datasets.items()}
    planner = RowPlanner(streams, dict.fromkeys(names, 1.0), 512, seed=0)
    planner.next_row()
    begin = time.perf_counter()
    for _ in range(rows):
        planner.next_row()
    return {"seconds": (time.perf_counter() - begin) / rows}


def processes(ranks: int) -> dict[str, float]:
    """A step of configs/tiny.yaml, sharded over so many processes that share its rows."""
    with tempfile.TemporaryDirectory() as folder:
        args = [
            "fit",
            "--config=configs/tiny.yaml",
            f"--trainer.max_steps={WARM_UP + RUN_STEPS}",
            "--trainer.num_sanity_val_steps=0",
            f"--trainer.val_check_interval={WARM_UP + RUN_STEPS + 1}",
            f"--trainer.logger.save_dir={folder}",
            "--trainer.enable_progress_bar=false",
            "--trainer.callbacks=[]",
            "--trainer.callbacks+=tests.benchmarks.step_clock.StepClock",
            f"--trainer.callbacks.file={folder}/clock.json",
            f"--trainer.devices={ranks}",
            "--trainer.strategy=fsdp2",
            f"--data.loader.rows={max(RANKS) // ranks}",
            "--data.loader.workers=0",
        ]
        command = [sys.executable, "-m", "lit_mm", *args]
        run = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
        if run.returncode:
            raise RuntimeError(run.stdout + run.stderr)
        clock = json.loads(Path(folder, "clock.json").read_text())
    seconds = (clock["ended"][-1] - clock["ended"][WARM_UP - 1]) / RUN_STEPS
    return {"seconds": seconds, "gib": clock["peak"] / 2**30}


def exponent(found: Mapping[int, Mapping[str, float]], key: str) -> float:
    """Of the power law nearest to the points, on logarithmic axes."""
    points = [(math.log(value), math.log(max(row[key], 1e-9))) for value, row in found.items()]
    return float(np.polyfit(*zip(*points, strict=True), 1)[0])


def table_of(name: str, found: Found) -> Table:
    """Points, and the exponents below them."""
    has_memory = all("gib" in row for row in found.values())
    table = Table(name, "seconds", "memory (GiB)")
    for value, row in found.items():
        seconds = f"{row['seconds']:.3f}" if row["seconds"] > 0.01 else f"{1e3 * row['seconds']:.3f} ms"
        table.add_row(f"{value:,}", seconds, f"{row['gib']:.2f}" if has_memory else "")
    memory = f"{exponent(found, 'gib'):.2f}" if has_memory else ""
    table.add_row("exponent", f"{exponent(found, 'seconds'):.2f}", memory, style="bold")
    return table


def main() -> None:
    """Print tables and write them as JSON."""
    parser = options(__doc__, "growth", rounds=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rounds, shared = arguments.rounds, mixture(512, 4)
    found: dict[str, Found] = {}
    for backend in ("blocks", "sdpa"):
        make = lambda length, backend=backend: step(mixture(length, POSITIONS // length), backend=backend)  # noqa: E731
        found[f"row length, documents of the mixture, {backend}"] = measure(make, LENGTHS, rounds)
    found["row length, one text a row"] = measure(lambda length: step(one_text(length)), LENGTHS, rounds)
    wide = lambda width: step(shared, Size(width, heads=width // 64, kv_heads=width // 128))  # noqa: E731
    found["width"] = measure(wide, WIDTHS, rounds)
    found["experts, 6 active"] = measure(lambda experts: step(shared, experts=experts), EXPERTS, rounds)
    found["sources"] = {sources: planning(sources) for sources in SOURCES}
    found["processes"] = {ranks: processes(ranks) for ranks in RANKS}
    exponents = {
        name: {key: exponent(points, key) for key in next(iter(points.values()))} for name, points in found.items()
    }
    finish(
        [table_of(name, points) for name, points in found.items()],
        {"points": found, "exponents": exponents},
        arguments.out,
    )


if __name__ == "__main__":
    main()
