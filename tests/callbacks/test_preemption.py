"""A run that is asked to stop saves at the end of a step, on all processes, and goes on from there."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.helpers.program import SMALL, run, start
from tests.helpers.recorder import read


def arguments(folder: Path, ranks: int, steps: int) -> list[str]:
    return [
        "fit",
        "--config=configs/tiny.yaml",
        *SMALL,
        f"--trainer.max_steps={steps}",
        f"--trainer.logger.save_dir={folder}",
        "--trainer.logger.version=0",
        f"--trainer.devices={ranks}",
        f"--trainer.strategy={'fsdp2' if ranks > 1 else 'auto'}",
        "--trainer.callbacks+=tests.helpers.recorder.Recorder",
        f"--trainer.callbacks.folder={folder}",
        f"--trainer.callbacks+={'ModelCheckpoint' if ranks == 1 else 'callbacks.checkpoints.Checkpoints'}",
        "--trainer.callbacks.every_n_train_steps=1000",
        f"--trainer.callbacks.save_last={'true' if ranks == 1 else 'link'}",
        "--trainer.callbacks+=callbacks.preemption.Preemption",
        "--trainer.callbacks.every_n_steps=2",
    ]


def child_of(process: int) -> int:
    """The process of the second rank, which the first one started."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    (child,) = [int(c) for c in children if "LOCAL_RANK=1" in Path(f"/proc/{c}/environ").read_text()]
    return child


@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "number"), [(1, signal.SIGTERM), (2, signal.SIGUSR1)])
def test_a_run_that_is_asked_to_stop_saves_and_goes_on(tmp_path: Path, ranks: int, number: signal.Signals) -> None:
    process = start(*arguments(tmp_path, ranks, 1000))
    try:
        end = time.monotonic() + 100
        while not (tmp_path / "rank0.jsonl").exists() or len(read(tmp_path)[0]) < 3:
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < end
            time.sleep(0.05)
        os.kill(process.pid if ranks == 1 else child_of(process.pid), number)  # one process alone is told
        output, _ = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 75, output
    (saved,) = tmp_path.rglob("last.ckpt")
    header = torch.load(saved / "meta.pt" if ranks > 1 else saved, weights_only=False)
    stopped = header["global_step"]
    assert stopped % 2 == 0
    assert [len(rank) for rank in read(tmp_path)] == [stopped] * ranks, "all stop after the step that was saved"
    run(*arguments(tmp_path, ranks, stopped + 2), "--ckpt_path=last")
    steps = list(zip(*read(tmp_path), strict=True))
    rows = [row[0] for step in steps for rank in step for row in rank["rows"]]
    assert rows == list(range(2 * ranks * (stopped + 2))), "no row is lost or read twice"
