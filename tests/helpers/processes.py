"""A function of a test on several processes that talk by gloo."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import multiprocessing


def on_processes(function: Callable[..., Any], count: int, folder: Path, *arguments: Any) -> list[Any]:
    """What it returns on each of them: `function(rank, *arguments)`, a function of a module that can be imported.

    The module is imported once, in a process that all others are forked from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    multiprocessing.set_forkserver_preload([function.__module__])
    started = multiprocessing.start_processes(
        _run, (function, count, str(folder), arguments), count, join=False, start_method="forkserver"
    )
    end = time.monotonic() + 120
    try:
        while not started.join(timeout=1):
            assert time.monotonic() < end, "they waited on"
    finally:
        for process in started.processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(count)]


def _run(rank: int, function: Callable[..., Any], count: int, folder: str, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count, timeout=timedelta(seconds=60))
    torch.save(function(rank, *arguments), Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
