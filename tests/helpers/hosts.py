"""Two hosts with one file system: network namespaces of this machine, joined by a pair of virtual Ethernet devices."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.helpers.program import ROOT, environment

_DEVICE = "eth0"


@dataclass
class Host:
    """One of them."""

    name: str
    address: str
    started: list[subprocess.Popen] = field(default_factory=list)

    def start(self, output: Path, port: str, *command: str) -> subprocess.Popen:
        """A command on this host; what it writes goes to a file."""
        env = {**environment(), "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": _DEVICE}
        with output.open("w") as file:
            enter = ["ip", "netns", "exec", self.name]
            process = subprocess.Popen([*enter, *command], cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT)
        self.started.append(process)
        return process

    def plug_in(self) -> None:
        """Connect it, and let it speak to itself."""
        for device in ("lo", _DEVICE):
            _ip("-n", self.name, "link", "set", device, "up")

    def unplug(self) -> None:
        """Cut its link: from now on nothing tells the other host what happens on this one."""
        _ip("-n", self.name, "link", "set", _DEVICE, "down")

    def processes(self) -> list[int]:
        """All that run on it."""
        return [int(process) for process in _ip("netns", "pids", self.name).split()]

    def kill(self) -> None:
        """SIGKILL all of them."""
        while processes := self.processes():
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        while self.started:
            self.started.pop().wait()


def _ip(*args: str) -> str:
    return subprocess.run(["ip", *args], check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def two_hosts() -> Iterator[list[Host]]:
    """Make them; afterwards kill what still runs on them and remove them.

    Raises:
        FileNotFoundError: the machine has no `ip`.
        subprocess.CalledProcessError: it does not let us make network namespaces.
    """
    hosts = [Host(f"lit_mm_{os.getpid()}_{number}", f"10.77.0.{number}") for number in (1, 2)]
    with contextlib.ExitStack() as made:
        for host in hosts:
            _ip("netns", "add", host.name)
            made.callback(_ip, "netns", "delete", host.name)
            made.callback(host.kill)
        first, second = (host.name for host in hosts)
        _ip("link", "add", _DEVICE, "netns", first, "type", "veth", "peer", "name", _DEVICE, "netns", second)
        for host in hosts:
            _ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", _DEVICE)
            host.plug_in()
        yield hosts


def torchrun(hosts: list[Host], folder: Path, *module: str) -> list[subprocess.Popen]:
    """Start a module with its arguments in one process on every host; host N writes its output to `folder/host_N`."""
    port = environment()["MASTER_PORT"]
    meet = [f"--nnodes={len(hosts)}", f"--master-addr={hosts[0].address}", f"--master-port={port}"]
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=1", *meet]
    return [
        host.start(folder / f"host_{rank}", port, *start, f"--node-rank={rank}", "-m", *module)
        for rank, host in enumerate(hosts)
    ]
