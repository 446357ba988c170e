"""Jobs in processes of their own, which end when this one ends."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Collection, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from rich.progress import track

from lit_mm.mistake import Mistake

Job = tuple[Any, ...]  # a function and its arguments


def run_jobs(jobs: Collection[Job], scratch: Path, workers: int, title: str) -> Iterator[tuple[Job, Any]]:
    """Run all jobs, with a progress bar, and yield each with its result as soon as it is there.

    Args:
        jobs: a function of a module, and its arguments.
        scratch: folder in which each process works in a folder of its own; removed at the end.
        workers: number of processes.
        title: of the progress bar.

    Raises:
        Mistake: there are no workers.
    """
    if workers < 1:
        raise Mistake(f"workers: {workers} was given; at least one process is needed")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_begin_worker, initargs=(scratch,)) as pool:
        running = {pool.submit(*job): job for job in jobs}
        try:
            for future in track(as_completed(running), title, total=len(running), transient=True):
                yield running[future], future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    shutil.rmtree(scratch)


def _begin_worker(scratch: Path) -> None:
    """Work in a folder of its own, where the engine may leave its files, and end with the parent however it ends.

    The engine is a process too and would wait for its worker for ever, so the two form a group that ends as one.
    """
    os.setpgid(0, 0)
    own = scratch / str(os.getpid())
    own.mkdir(parents=True)
    os.chdir(own)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.killpg(0, signal.SIGKILL)
