"""Two hosts train as one does; if one is lost the other ends by itself, and both go on from the last checkpoint."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from lit_mm.parallel.checkpoint_files import read_header
from lit_mm.parallel.sharding import make_mesh
from tests.helpers.hosts import Host, torchrun, two_hosts
from tests.helpers.processes import on_processes
from tests.helpers.recorder import read
from tests.helpers.runs import run_all, write_runs
from tests.parallel.test_sharded_runs import OWN, WHOLE, arguments, numbers, weights

STEPS = 8
LAST = f"step={STEPS}.ckpt"
SIZE = [f"--trainer.max_steps={STEPS}", f"--trainer.val_check_interval={STEPS}"]
NODES = ["--trainer.num_nodes=2", "--trainer.devices=1", "--data.loader.rows=2", *SIZE]
SHARDED = [*NODES, *OWN, "--trainer.strategy.timeout=0:00:15"]
COPIES = [*NODES, *OWN, "--trainer.strategy.copies=nodes"]


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[Host]]:
    with contextlib.ExitStack() as made:
        try:
            both = made.enter_context(two_hosts())
        except FileNotFoundError:
            pytest.skip("hosts are network namespaces, and this machine has no `ip` (iproute2) to make them")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"hosts are network namespaces, and this machine makes none: {error.stderr.strip()}")
        yield both


def finish(processes: list[subprocess.Popen], folder: Path) -> None:
    for rank, process in enumerate(processes):
        assert process.wait(timeout=150) == 0, (folder / f"host_{rank}").read_text()


@pytest.fixture(scope="module")
def runs(hosts: list[Host], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same rows in one process; and on two hosts, the model sharded over both or with a copy on each."""
    folder = tmp_path_factory.mktemp("nodes")
    two = [arguments(folder / "sharded", "dense", *SHARDED), arguments(folder / "copies", "dense", *COPIES)]
    write_runs(folder / "two.json", two)
    finish(torchrun(hosts, folder, "tests.helpers.runs", str(folder / "two.json")), folder)
    run_all(folder, [arguments(folder / "one", "dense", *WHOLE, *SIZE)])
    return folder


@pytest.mark.long
@pytest.mark.parametrize("name", ["sharded", "copies"])
def test_two_hosts_do_what_one_process_does(runs: Path, name: str) -> None:
    assert len(numbers(runs / "one", "loss")) == STEPS
    assert numbers(runs / name, "loss") == pytest.approx(numbers(runs / "one", "loss"), rel=1e-5)
    assert numbers(runs / name, "gradient_norm") == pytest.approx(numbers(runs / "one", "gradient_norm"), rel=1e-4)


def half_saved(folder: Path) -> bool:
    """Whether a checkpoint is being written while there is an older one."""
    return (folder / "last.ckpt").exists() and any(folder.glob(".*.part"))


@pytest.mark.long
def test_a_lost_host_ends_the_run_and_both_go_on_from_the_last_checkpoint(
    runs: Path, hosts: list[Host], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    program = ["lit_mm", *arguments(folder, "dense", *SHARDED, "--trainer.callbacks.save_last=true")]
    processes = torchrun(hosts, tmp_path, *program)
    end = time.monotonic() + 120
    while not half_saved(folder):
        assert [process.poll() for process in processes] == [None, None], (tmp_path / "host_0").read_text()
        assert time.monotonic() < end, "it never came as far as saving twice"
        time.sleep(0.005)
    left, lost = hosts
    lost.unplug()  # first, so that no connection is seen to close
    lost.kill()
    assert processes[0].wait(timeout=90) == 1
    assert "Timed out waiting 15000ms" in (tmp_path / "host_0").read_text()
    assert not left.processes()

    unbroken = read(runs / "sharded")
    saved = read_header(folder / "last.ckpt")["global_step"]
    trained = read(folder)
    assert 0 < saved <= min(len(rank) for rank in trained) < STEPS
    assert trained == [rank[: len(ours)] for rank, ours in zip(unbroken, trained, strict=True)]
    for file in folder.glob("rank*.jsonl"):
        file.unlink()
    lost.plug_in()
    finish(torchrun(hosts, tmp_path, *program, "--ckpt_path=last"), tmp_path)
    assert read(folder) == [rank[saved:] for rank in unbroken]
    ours, theirs = weights(folder / LAST), weights(runs / "sharded" / LAST)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    assert not any(folder.glob(".*")), "nothing half-written is left"


def one_of_four(rank: int) -> None:
    """The first of four processes, in two copies of two shards, waits for others that never come."""
    mesh = make_mesh("cpu", processes=4, copies=2, timeout=timedelta(seconds=3))
    assert dist.get_process_group_ranks(mesh.get_group("copy")) == [rank % 2, rank % 2 + 2]
    assert dist.get_process_group_ranks(mesh.get_group("shard")) == [rank // 2 * 2, rank // 2 * 2 + 1]
    if rank == 0:
        for name in ("copy", "shard"):
            with pytest.raises(RuntimeError, match="Timed out waiting 3000ms"):
                dist.all_reduce(torch.ones(1), group=mesh.get_group(name))


@pytest.mark.long
def test_the_timeout_is_that_of_copies_and_shards_too(tmp_path: Path) -> None:
    on_processes(one_of_four, 4, tmp_path)
