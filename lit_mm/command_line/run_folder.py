"""A run's folder belongs to one run at a time."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from typing import IO

from lit_mm.mistake import Mistake
from lit_mm.parallel.checkpoint_files import complete_checkpoints

_held: dict[Path, IO[str]] = {}  # until this process ends, however it ends


def claim(folder: Path, fresh: bool) -> None:
    """Take a folder for this process.

    Args:
        folder: of the run; made if it is not there.
        fresh: whether the run starts without a checkpoint.

    Raises:
        Mistake: another process writes there, or the run is fresh and the folder has checkpoints of an earlier one.
    """
    folder = folder.resolve()
    if folder not in _held:
        folder.mkdir(parents=True, exist_ok=True)
        _held[folder] = _lock(folder)
    if fresh and complete_checkpoints(folder / "checkpoints"):
        raise Mistake(
            f"the run folder '{folder}' has checkpoints of an earlier run: give --ckpt_path last to go on with it, or "
            "another --trainer.logger.init_args.version"
        )


def _lock(folder: Path) -> IO[str]:
    file = (folder / ".lock").open("a+")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not inherited by children, and ends with the process
    except OSError as error:
        file.seek(0)
        raise Mistake(
            f"another run writes to '{folder}' ({file.read().strip() or 'just started'}): wait for it, or give another "
            "--trainer.logger.init_args.version"
        ) from error
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file
