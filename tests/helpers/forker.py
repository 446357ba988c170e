"""`python -m tests.helpers.forker FOLDER`: imports the program, does a step of a run, and forks processes when asked to.

A fresh Python needs twelve seconds of processor time until the first step of a run, nearly all of them to import
libraries. Here one process needs them, for all tests of a session. What is forked from it runs as if Python had just
started it: as `__main__`, with its own session, arguments, environment and output, and it ends as Python ends.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import random
import runpy
import signal
import socket
import sys
import tempfile
import threading
import warnings
from pathlib import Path
from typing import Any

LIBRARIES = ("lit_mm", "callbacks", "data_modules")
OTHERS = ("pytest", "torch.distributed.fsdp", "torch.distributed.checkpoint", "tests.helpers.recorder")


def warm_up() -> None:
    """Import everything, and train and save the smallest model, which fills the caches of the command line's parser."""
    for library in LIBRARIES:
        package = importlib.import_module(library)
        for module in pkgutil.walk_packages(package.__path__, f"{library}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    for name in OTHERS:
        importlib.import_module(name)
    from tqdm import tqdm

    from lit_mm.cli import main
    from tests.helpers.program import SMALL

    tqdm.monitor_interval = 0  # no thread, which would not be forked

    saving = ["--trainer.callbacks+=ModelCheckpoint", "--trainer.callbacks+=callbacks.pages.results_table.ResultsTable"]
    small = [*SMALL, "--data.loader.workers=0", "--trainer.max_steps=1", "--trainer.limit_val_batches=1"]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        main(["fit", "--config=configs/tiny.yaml", *small, *saving, f"--trainer.logger.save_dir={folder}"])
    for module in list(sys.modules.values()):
        vars(module).get("__warningregistry__", {}).clear()  # what was warned of here is warned of again
    assert threading.active_count() == 1, threading.enumerate()
    gc.collect()
    gc.freeze()


def serve(folder: Path) -> dict[str, Any] | None:
    """Fork until the session of tests has ended; what is forked returns with what it is to do."""
    owner = int((folder / "owner").read_text())
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "unready"))
        listener.listen(100)
        (folder / "unready").rename(folder / "socket")
        listener.settimeout(2)
        warm_up()
        while Path(f"/proc/{owner}").exists():
            reap()
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            with connection:
                if not os.fork():
                    listener.close()
                    return keep(connection)
    return None


def reap() -> None:
    """Take note of keepers that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def keep(connection: socket.socket) -> dict[str, Any]:
    """Fork once more, and say over the connection what is forked, and in the end what came of it."""
    with connection.makefile("rw") as talk:
        wanted = json.loads(talk.readline())
        if process := os.fork():
            print(process, file=talk, flush=True)
            _, status = os.waitpid(process, 0)
            print(os.waitstatus_to_exitcode(status), file=talk, flush=True)
            os._exit(0)
    return wanted


def become(wanted: dict[str, Any]) -> None:
    """Take on its arguments, environment and output."""
    from lightning.pytorch.utilities import rank_zero_only

    os.setsid()
    os.environ.clear()
    os.environ.update(wanted["env"])
    output = os.open(wanted["output"], os.O_WRONLY | os.O_APPEND)
    for standard in (1, 2):
        os.dup2(output, standard)
    os.close(output)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    random.seed()
    sys.argv = [wanted["module"], *wanted["args"]]
    rank_zero_only.rank = int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0)))  # read at import


if __name__ == "__main__":
    wanted = serve(Path(sys.argv[1]))
    if wanted:
        become(wanted)
        runpy.run_module(wanted["module"], run_name="__main__", alter_sys=True)
