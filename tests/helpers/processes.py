"""A function of a test on several processes that talk by gloo."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tests.helpers.forked import Process, wait_for_all
from tests.helpers.program import environment


def on_processes(function: Callable[..., Any], count: int, folder: Path, *arguments: Any) -> list[Any]:
    """What it returns on each of them: `function(rank, *arguments)`, a function of a module that can be imported."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save((function, count, arguments), folder / "call.pt")
    module, env = "tests.helpers.processes", environment()
    wait_for_all([Process(module, str(folder), str(rank), env=env) for rank in range(count)])
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(count)]


def call(folder: Path, rank: int) -> None:
    """One of them."""
    function, count, arguments = torch.load(folder / "call.pt", weights_only=False)
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count, timeout=timedelta(seconds=60))
    torch.save(function(rank, *arguments), folder / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    call(Path(sys.argv[1]), int(sys.argv[2]))
