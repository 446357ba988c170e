"""Running `python -m lit_mm` as its own process, on a model small enough for tests."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Callable

from tests.helpers.forked import ROOT, Process, wait_for_all

SMALL = [
    "--model.vision=configs/vision/pixels.yaml",
    "--model.backbone.dim=64",
    "--model.backbone.depth=2",
    "--model.backbone.heads=2",
    "--model.backbone.kv_heads=1",
    "--model.backbone.feed_forward.hidden_dim=128",
    "--data.loader.row_length=256",
    "--data.loader.rows=2",
    "--data.loader.val_documents=4",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.callbacks=[]",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.val_check_interval=1000",
]


_RUNS = itertools.count()


def environment() -> dict[str, str]:
    """With a port of its own for every run: one that Lightning finds free may be taken by a test beside this one.

    They lie below those that the system hands out.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    port = 20_000 + 500 * worker + next(_RUNS)
    settings = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "PYTHONFAULTHANDLER": "1"}
    settings["MASTER_PORT"] = str(port)
    # Where a test ran the program with a process group within its own process, Lightning has left these behind.
    left = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR")
    return {**{name: value for name, value in os.environ.items() if name not in left}, **settings}


def start(*args: str) -> Process:
    """The program in a process group of its own."""
    return Process("lit_mm", *args, env=environment())


def run(*args: str, expect: int = 0) -> str:
    """Run it to the end; its output. Fails the test if it exits otherwise than expected."""
    return wait_for_all([start(*args)], expect)


def kill_when(process: Process, condition: Callable[[], bool], timeout: float = 120.0) -> None:
    """SIGKILL the process and its children once `condition()` holds. Fails the test if they end before, or too late."""
    end = time.monotonic() + timeout
    while not (due := condition()) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    output, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, f"it ended before it was killed: {output}"
    assert due, f"it never came as far as it was to be killed at: {output}"
