"""A run's folder belongs to one run at a time, and nothing in it is overwritten."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from lit_mm.command_line.run_folder import claim
from tests.helpers.program import SMALL, run, start


def arguments(folder: Path, steps: int) -> list[str]:
    return [
        "fit",
        "--config=configs/tiny.yaml",
        *SMALL,
        f"--trainer.max_steps={steps}",
        f"--trainer.logger.save_dir={folder}",
        "--trainer.logger.version=0",
        "--trainer.callbacks+=callbacks.checkpoints.Checkpoints",
        "--trainer.callbacks.every_n_train_steps=2",
        "--trainer.callbacks.save_last=link",
        "--trainer.callbacks.filename={step}",
    ]


@pytest.mark.slow
def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    process = start(*arguments(tmp_path, 1000))
    try:
        end = time.monotonic() + 100
        while not list(tmp_path.rglob("*.ckpt")):
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < end
            time.sleep(0.1)
        (config,) = tmp_path.rglob("config.yaml")
        before = config.read_bytes()
        output = run(*arguments(tmp_path, 7), "--ckpt_path=last", expect=1)
        assert "another run writes to" in output
        assert f"process {process.pid} on " in output
        assert config.read_bytes() == before
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    claim(tmp_path / "tiny/version_0", fresh=False)  # a run that was killed does not keep it


@pytest.mark.slow
def test_a_fresh_run_does_not_overwrite_an_earlier_one(tmp_path: Path) -> None:
    run(*arguments(tmp_path, 3), "--ckpt_path=last")  # there is none: it starts at the beginning
    (last,) = tmp_path.rglob("last.ckpt")
    assert last.resolve().name == "step=3.ckpt", "the last step is saved, whatever its number"
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"}
    assert "has checkpoints of an earlier run: give --ckpt_path last" in run(*arguments(tmp_path, 3), expect=1)
    assert {path: path.read_bytes() for path in before} == before
    run(*arguments(tmp_path, 4), "--ckpt_path=last")
    assert last.resolve().name == "step=4.ckpt"
