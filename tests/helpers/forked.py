"""Processes that start at once, forked from one that has imported the program: see `tests.helpers.forker`."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = "LIT_MM_TESTS"  # environment variable: a folder of this session of tests, which tests/conftest.py makes
_LONGEST = 60.0  # seconds until there is an answer


class Process:
    """A module that runs with arguments, in a session of its own; used as `subprocess.Popen` is.

    Args:
        module: run as `python -m` does.
        args: its arguments.
        env: all its environment variables.

    Attributes:
        stdout: what it writes to its output and its errors.
    """

    def __init__(self, module: str, *args: str, env: dict[str, str]) -> None:
        folder = Path(os.environ[FOLDER])
        self.returncode: int | None = None
        with tempfile.NamedTemporaryFile("w", prefix="output_", dir=folder, delete=False) as file:
            self.stdout = open(file.name, errors="replace")  # noqa: SIM115
        self._connection = _connect(folder)
        request = {"module": module, "args": args, "env": env, "output": file.name}
        self._connection.sendall(json.dumps(request).encode() + b"\n")
        self._answers = self._connection.makefile()
        self.pid = self._answer()

    def _answer(self) -> int:
        line = self._answers.readline()
        assert line, (Path(os.environ[FOLDER]) / "log").read_text()
        return int(line)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, or -N if signal N ended it.

        Raises:
            subprocess.TimeoutExpired: it still runs after so many seconds.
        """
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                assert timeout is not None
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            self.returncode = self._answer()
        return self.returncode

    def poll(self) -> int | None:
        """The same, or None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """Wait for its end; what it has written and nobody has read."""
        self.wait(timeout)
        return self.stdout.read(), None

    def send_signal(self, number: int) -> None:
        """To this process alone."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send it SIGKILL."""
        self.send_signal(signal.SIGKILL)


def wait_for_all(processes: list[Process], expect: int = 0, timeout: float = 300.0) -> str:
    """What they wrote. Fails the test if one ends otherwise than expected, or not in so many seconds."""
    end = time.monotonic() + timeout
    try:
        while (codes := [process.poll() for process in processes]).count(None):
            assert {*codes} <= {None, expect}, "".join(process.stdout.read() for process in processes)
            assert time.monotonic() < end, "".join(process.stdout.read() for process in processes)
            time.sleep(0.02)
    finally:
        for process in processes:
            process.kill()
    output = "".join(process.stdout.read() for process in processes)
    assert codes == [expect] * len(processes), output
    return output


def _connect(folder: Path) -> socket.socket:
    """The first of a session starts what all are forked from."""
    try:
        (folder / "started").touch(exist_ok=False)
    except FileExistsError:
        pass
    else:
        with (folder / "log").open("w") as log:
            subprocess.Popen(
                [sys.executable, "-m", "tests.helpers.forker", str(folder)],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
    connection, end = socket.socket(socket.AF_UNIX), time.monotonic() + _LONGEST
    while True:
        try:
            connection.connect(str(folder / "socket"))
            return connection
        except FileNotFoundError:
            assert time.monotonic() < end, "nothing was started"
            time.sleep(0.05)
        except ConnectionRefusedError:
            raise AssertionError((folder / "log").read_text()) from None
