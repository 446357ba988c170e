"""A run's folder belongs to one run at a time, and stays only if the run did something."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lit_mm.mistake import Mistake, mistake_in
from lit_mm.parallel.checkpoint_files import complete_checkpoints

_STARTED = ("config*.yaml", "hparams.yaml", ".lock", "events.out.tfevents.*")  # written before a run does anything
_made: set[Path] = set()  # by this process
_held: dict[Path, IO[str]] = {}  # until this process ends, however it ends


def new_without_logger() -> str:
    """Name of a folder for a run without a logger, which no other run has."""
    return f"runs/no_logger/{time.strftime('%Y-%m-%d_%H-%M-%S')}_{os.getpid()}"


def make(folder: Path) -> None:
    """Make a run's folder, and remember it if it was not there."""
    if not folder.is_dir():
        with _writing(folder):
            folder.mkdir(parents=True)
        _made.add(folder.resolve())


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Mistake(
            f"the run folder '{folder}' cannot be written to ({error.strerror}); name another with "
            "--trainer.logger.init_args.save_dir, or --trainer.default_root_dir where there is no logger"
        ) from error


@contextmanager
def new_folder(trainer: Trainer, fit: bool, fresh: bool) -> Iterator[None]:
    """Make the run's folder before its loggers write there; after a mistake leave none that holds nothing.

    Runs that are started at the same time get folders of their own. With loggers that number their runs elsewhere,
    `claim` alone makes the folder; where something else than this program has started several processes, the logger of
    the first does, before it is claimed.

    Args:
        trainer: that of the run.
        fit: whether the folder is to be claimed.
        fresh: whether the run starts without a checkpoint.

    Raises:
        Mistake: see `claim`.
    """
    together = trainer.world_size > 1 and _started_with_others(trainer)
    numbered = together and trainer.is_global_zero and _numbers_anew(trainer)
    try:
        if not together:
            folder = _numbered(trainer)
            if fit and folder is not None:
                claim(folder, fresh)
        yield
    except Exception as error:
        mistaken = mistake_in(error) is not None or isinstance(error, MisconfigurationException)
        if mistaken and trainer.global_step == 0:
            if numbered:
                _own(Path(trainer.loggers[0].log_dir))  # type: ignore[arg-type]
            for folder in _made:
                _discard(folder)
        raise
    finally:
        _made.clear()


def _started_with_others(trainer: Trainer) -> bool:
    """Whether torchrun, SLURM or this program itself has started this process beside others, which are here too."""
    environment = getattr(trainer.strategy, "cluster_environment", None)
    return environment is not None and environment.creates_processes_externally


def _numbers_anew(trainer: Trainer) -> bool:
    """Whether the run's folder is one that its logger has yet to make."""
    logger = trainer.logger
    if not isinstance(logger, TensorBoardLogger | CSVLogger):
        return False
    return logger._version is None or not Path(logger.log_dir).exists()


def _own(folder: Path) -> None:
    """Remember a folder that a logger has made, unless it is another run's by now."""
    with suppress(Mistake):
        claim(folder, fresh=False)
        _made.add(folder.resolve())


def _numbered(trainer: Trainer) -> Path | None:
    """The folder of a run without a logger, or of one that numbers runs by folders, made if the number is new."""
    logger = trainer.logger
    if logger is None:
        return Path(trainer.default_root_dir)
    if not isinstance(logger, TensorBoardLogger | CSVLogger):
        return None
    given = logger._version is not None
    while True:
        folder = Path(logger.log_dir)
        with _writing(folder), suppress(FileExistsError):
            folder.mkdir(parents=True)
            _made.add(folder.resolve())
            return folder
        if given or not folder.is_dir():
            if isinstance(logger, CSVLogger):
                _keep_metrics(folder)
            return folder
        logger._version = None  # another run has just taken it


def _keep_metrics(folder: Path) -> None:
    """CSVLogger would delete what an earlier part of the run has logged."""
    file = folder / "metrics.csv"
    if file.exists():
        number = 1 + len(list(folder.glob("metrics_*.csv")))
        file.rename(folder / f"metrics_{number}.csv")
        rank_zero_info(f"metrics so far: {folder / f'metrics_{number}.csv'}")


def _discard(folder: Path) -> None:
    files = [file for file in folder.rglob("*") if not file.is_dir()]
    if all(any(file.match(pattern) for pattern in _STARTED) for file in files):
        shutil.rmtree(folder, ignore_errors=True)
        _held.pop(folder, None)


def claim(folder: Path, fresh: bool) -> None:
    """Take a folder for this process.

    Args:
        folder: of the run; made if it is not there.
        fresh: whether the run starts without a checkpoint.

    Raises:
        Mistake: another process writes there, or the run is fresh and the folder has checkpoints of an earlier one.
    """
    folder = folder.resolve()
    if fresh and complete_checkpoints(folder / "checkpoints") and folder not in _held:
        raise Mistake(
            f"the run folder '{folder}' has checkpoints of an earlier run: give --ckpt_path last to go on with it, or "
            "another --trainer.logger.init_args.version"
        )
    if folder not in _held:
        make(folder)
        _held[folder] = _lock(folder)


def _lock(folder: Path) -> IO[str]:
    with _writing(folder):
        file = (folder / ".lock").open("a+", encoding="utf-8")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not inherited by children, and ends with the process
    except OSError as error:
        file.seek(0)
        raise Mistake(
            f"another run writes to '{folder}' ({file.read().strip() or 'just started'}): wait for it, or give another "
            "--trainer.logger.init_args.version"
        ) from error
    with _writing(folder):
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
    return file
