"""Makes the indexes that are missing, on all cores, and says how long it will take."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from data_modules.index.keys import key_of_texts
from data_modules.index.sidecars import Indexer, Indexing, Sidecar
from data_modules.reading.cache_folder import writable

View = TypeVar("View")
logger = logging.getLogger(__name__)

SAID_EVERY = 60.0  # seconds between lines of a log that shows no progress bar
ALONE = 5.0  # seconds that one process indexes before it starts others, which takes them as long


def missing_of(sidecars: Sequence[Sidecar]) -> list[Sidecar]:
    """Those that are still to be made."""
    return [sidecar for sidecar in sidecars if not sidecar.is_there()]


def make_missing(indexing: Indexing, title: str, lock: Path | None) -> None:
    """Make the indexes that are not there yet.

    Args:
        indexing: all that are needed.
        title: of the progress bar.
        lock: file that one process of all nodes holds while it makes them, and the others wait for; None where each
            has files of its own.

    Raises:
        BrokenFile: a file cannot be read at all.
        Mistake: an index cannot be written.
    """
    missing = missing_of(indexing.sidecars)
    if not missing:
        return
    if lock is None:
        _make(missing, indexing.indexer, title)
        return
    writable(lock.parent, "XDG_CACHE_HOME")
    with FileLock(lock):
        _make(missing_of(missing), indexing.indexer, title)


def opened_view(opening: Callable[[], View], making: Callable[[], None], indexing: Indexing, title: str) -> View:
    """What opens all indexes of a source as one; what of it is not there yet is made first.

    Args:
        opening: opens it, or raises OSError or ValueError where it was not made yet, or is not whole.
        making: makes it from the indexes.
        indexing: the indexes.
        title: of the progress bar.

    Raises:
        BrokenFile: a file cannot be read at all.
        Mistake: nothing can be written.
    """
    try:
        return opening()
    except (OSError, ValueError):
        cache = indexing.sidecars[0].cache
        make_missing(indexing, title, cache / "locks" / key_of_texts(s.name for s in indexing.sidecars))
        making()
        return opening()


def _make(missing: Sequence[Sidecar], indexer: Indexer, title: str) -> None:
    if not missing:
        return
    total = sum(sidecar.work for sidecar in missing)
    with _progress(title, total, len(missing)) as progress:
        waiting, start = list(missing), time.monotonic()
        while waiting and (time.monotonic() - start < ALONE or cores() == 1 or len(waiting) == 1):
            sidecar = waiting.pop(0)
            sidecar.make(indexer)
            progress.advance(sidecar.work)
        for sidecar in _made_by_others(waiting, indexer):
            progress.advance(sidecar.work)


def _made_by_others(missing: Sequence[Sidecar], indexer: Indexer) -> Iterator[Sidecar]:
    """Yields each index once another process has made it."""
    if not missing:
        return
    processes = min(cores(), len(missing))
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _begin, (indexer,)) as pool:
        running: dict[Future[None], Sidecar] = {pool.submit(_make_one, sidecar): sidecar for sidecar in missing}
        try:
            for future in as_completed(running):
                future.result()
                yield running[future]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


_indexer: list[Indexer] = []  # of a process that makes indexes


def _begin(indexer: Indexer) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # there is a process for every core
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that waits for this one ends it
    _indexer[:] = [indexer]


def _make_one(sidecar: Sidecar) -> None:
    sidecar.make(_indexer[0])


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Progress:
    """Bytes that are read, as a bar on a terminal, and elsewhere as a line a minute."""

    def __init__(self, title: str, total: int, files: int, bar: Progress) -> None:
        self._title, self._total, self._files, self._bar = title, max(1, total), files, bar
        self._task = bar.add_task(title, total=files)
        self._start, self._said, self._bytes, self._done = time.monotonic(), 0.0, 0, 0

    def advance(self, size: int) -> None:
        """One more file of `size` bytes is done."""
        self._bytes += size
        self._done += 1
        self._bar.advance(self._task)
        spent = time.monotonic() - self._start
        due = ALONE if not self._said else self._said + SAID_EVERY
        if self._bar.disable and self._done < self._files and spent >= due:
            self._said = spent
            left = spent * (self._total - self._bytes) / max(1, self._bytes)
            logger.info(
                "%s: %d of %d files are indexed, about %s to go", self._title, self._done, self._files, duration(left)
            )


def duration(seconds: float) -> str:
    """`40 s`, `12 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextmanager
def _progress(title: str, total: int, files: int) -> Iterator[_Progress]:
    console = Console(stderr=True)
    logger.info("%s: indexing %d files of %.3g GB", title, files, total / 1e9)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)
    with bar:
        yield _Progress(title, total, files, bar)
