"""A run's folder belongs to one run at a time, and nothing in it is overwritten."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lit_mm.command_line.run_folder import claim, new_folder
from lit_mm.command_line.save_config import settings
from lit_mm.mistake import Mistake
from lit_mm.training.run_folder import run_folder
from tests.helpers.program import SMALL, run, start
from tests.helpers.runs import as_torchrun, run_all
from tests.helpers.toy_runs import ToyModule, toy_trainer


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
    assert "--ckpt_path last: there is no checkpoint in" in run(*arguments(tmp_path, 3), "--ckpt_path=last")
    (last,) = tmp_path.rglob("last.ckpt")
    assert last.resolve().name == "step=3.ckpt", "the last step is saved, whatever its number"
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"}
    assert "has checkpoints of an earlier run: give --ckpt_path last" in run(*arguments(tmp_path, 3), expect=1)
    assert {path: path.read_bytes() for path in before} == before
    files = {path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"}
    assert files == set(before), "the refused run left nothing"
    run(*arguments(tmp_path, 4), "--ckpt_path=last")
    assert last.resolve().name == "step=4.ckpt"

    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"}
    earlier = shutil.copy(last, last.with_name("earlier.ckpt"))
    os.utime(earlier, (0, 0))
    run("fit", f"--ckpt_path={earlier}", "--trainer.max_steps=5")
    run("fit", f"--config={last.parents[1] / 'config.yaml'}", "--trainer.max_steps=2")
    steps = {path.resolve().parents[1].name: path.resolve().name for path in tmp_path.rglob("last.ckpt")}
    wanted = {"version_0": "step=4.ckpt", "version_1": "step=5.ckpt", "version_2": "step=2.ckpt"}
    assert steps == wanted, "an earlier checkpoint and a configuration start runs of their own"
    assert {path: path.read_bytes() for path in before} == before


def loggers(folder: Path) -> list[Any]:
    return [TensorBoardLogger(folder, name="board"), CSVLogger(folder, name="csv"), False]


def fit(trainer: Trainer, module: ToyModule, fresh: bool = True) -> None:
    with new_folder(trainer, fit=True, fresh=fresh):
        trainer.fit(module)


@pytest.mark.parametrize("which", range(3))
def test_a_mistake_before_the_first_step_leaves_no_folder(tmp_path: Path, which: int) -> None:
    class Mistaken(ToyModule):
        def on_train_start(self) -> None:  # after the loggers
            raise Mistake("no")

    class LaterMistaken(ToyModule):
        def on_train_batch_end(self, *_: object) -> None:
            raise Mistake("no")

    for module, left in ((Mistaken(), False), (LaterMistaken(), True)):
        trainer = toy_trainer(tmp_path / "none" / type(module).__name__, logger=loggers(tmp_path)[which])
        with pytest.raises(Mistake, match="no"):
            fit(trainer, module)
        folder = run_folder(trainer)
        assert folder is not None
        assert folder.exists() == left


@pytest.mark.slow
def test_nor_does_one_of_several_processes_that_torchrun_started(tmp_path: Path) -> None:
    """There the logger of the first has made the folder, with its first events, before the data are read."""
    command = ["fit", "--config=configs/tiny.yaml", "--data=configs/data/text_only.yaml", *SMALL]
    several = ["--data.column=body", "--trainer.devices=2", "--trainer.strategy=ddp"]
    folder = tmp_path / "logs"
    run = [*command, *several, f"--trainer.logger.save_dir={folder}", "--data.loader.workers=0"]
    assert "has no column 'body'" in run_all(tmp_path, [run], ranks=2, expect=1)
    assert not list(folder.glob("tiny/*"))


@pytest.mark.parametrize("taken", [False, True])
def test_what_the_logger_of_one_of_several_made_is_left_if_another_run_has_taken_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    for name, value in as_torchrun(0, 2).items():
        monkeypatch.setenv(name, value)
    trainer = toy_trainer(tmp_path, logger=loggers(tmp_path)[0], devices=2, strategy="ddp")
    others: list[BaseProcess] = []

    def refused() -> None:
        trainer.logger.log_metrics({"loss": 1.0}, 0)
        if taken:
            others.append(holder(Path(trainer.logger.log_dir)))
        trainer.logger.finalize("failed")  # as Lightning does
        raise Mistake("no")

    with pytest.raises(Mistake, match="no"), new_folder(trainer, fit=True, fresh=True):
        refused()
    assert Path(trainer.logger.log_dir).exists() == taken
    for other in others:
        other.kill()
        other.join()


def holder(folder: Path) -> BaseProcess:
    """Another process, once it has claimed the folder."""
    fork = multiprocessing.get_context("fork")
    claimed = fork.Event()

    def hold() -> None:
        claim(folder, fresh=True)
        claimed.set()
        time.sleep(60)

    process = fork.Process(target=hold)
    process.start()
    assert claimed.wait(60)
    return process


@pytest.mark.parametrize("which", range(2))
def test_runs_that_start_together_have_folders_of_their_own(tmp_path: Path, which: int) -> None:
    one, other = (toy_trainer(tmp_path, logger=loggers(tmp_path)[which], max_steps=1) for _ in range(2))
    with new_folder(one, fit=True, fresh=True), new_folder(other, fit=True, fresh=True):
        assert [run_folder(trainer).name for trainer in (one, other)] == ["version_0", "version_1"]


def test_a_run_that_goes_on_keeps_what_csv_logged(tmp_path: Path) -> None:
    for _ in range(2):
        logger = CSVLogger(tmp_path, name="csv", version=0)
        fit(toy_trainer(tmp_path, logger=logger, max_steps=2, log_every_n_steps=1), ToyModule(), fresh=False)
    assert {file.name for file in tmp_path.rglob("*.csv")} == {"metrics.csv", "metrics_1.csv"}


def test_settings_are_named_as_on_the_command_line() -> None:
    checkpoints = {"class_path": "callbacks.checkpoints.Checkpoints", "init_args": {"save_top_k": 2, "monitor": None}}
    model = {"class_path": "lit_mm.module.LitMultimodal", "init_args": {"optimizer": {"lr": 0.1}, "betas": [0.9, 0.95]}}
    assert settings({"model": model, "trainer": {"callbacks": [checkpoints]}, "config": ["a.yaml"]}) == {
        "model": "lit_mm.module.LitMultimodal",
        "model.optimizer.lr": 0.1,
        "model.betas": "[0.9, 0.95]",
        "trainer.callbacks.Checkpoints": "callbacks.checkpoints.Checkpoints",
        "trainer.callbacks.Checkpoints.save_top_k": 2,
    }
