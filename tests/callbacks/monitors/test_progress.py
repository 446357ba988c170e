"""How far a fit is: a bar on a terminal, lines of text in a file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelSummary, ProgressBar, TQDMProgressBar

from callbacks.monitors import progress
from callbacks.monitors.data_table import DataTable
from callbacks.monitors.parameter_table import ParameterTable
from callbacks.monitors.progress import ProgressLines, StepBar
from callbacks.pages.results_table import ResultsTable
from lit_mm.cli import main
from lit_mm.command_line.trainer_callbacks import completed_callbacks
from tests.helpers.program import ROOT, SMALL
from tests.helpers.toy_runs import ToyModule, toy_trainer


def numbers(line: str) -> dict[str, float]:
    """Values by name of one line of progress."""
    return {name: float(value) for name, value in re.findall(r"(loss|text|flow) ([\d.]+)(?:  |$)", line)}


def fit(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> list[str]:
    """Lines of progress of a fit of the small model."""
    callbacks = ["monitors.training_monitor.TrainingMonitor", "pages.results_table.ResultsTable"]
    listed = [f"--trainer.callbacks+=callbacks.{name}" for name in callbacks]
    settings = [f"--trainer.logger.save_dir={folder}", "--data.loader.workers=0", "--trainer.log_every_n_steps=1"]
    main(["fit", "--config=configs/tiny.yaml", *SMALL, *listed, *settings, *arguments])
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]


def test_a_log_tells_losses_of_whole_steps_and_of_validations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    two = fit(capsys, tmp_path, "--trainer.max_steps=1", "--data.loader.rows=2", "--trainer.accumulate_grad_batches=2")
    one = fit(capsys, tmp_path, "--trainer.max_steps=1", "--data.loader.rows=4", "--trainer.limit_val_batches=0")
    assert re.fullmatch(r"step 1/1  loss \S+  text \S+  flow \S+  [\d,]+ tokens/s", one[0]), one
    losses = numbers(one[0])
    assert losses["loss"] == pytest.approx(losses["text"] + 3 * losses["flow"], rel=1e-3)
    assert numbers(two[0]) == pytest.approx(losses, rel=1e-3), "the same four rows, in one micro-batch or in two"
    assert len(one) == 1, "nothing was validated"
    (file,) = tmp_path.rglob("validation.jsonl")
    (found,) = map(json.loads, file.read_text().splitlines())
    assert found.pop("step") == 1
    assert re.match(r"step 1/1  validation  \S+ \S+  ", two[1])
    assert f"  loss {found['val/loss']:.4g}  " in two[1]
    assert f"  text (text {found['val/text/text_loss']:.4g})  " in two[1]
    assert re.search(r"  took 0:0\d:\d\d$", two[1])


def test_time_left_is_that_of_the_steps_left_or_of_the_clock(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ToyModule()
    monkeypatch.setattr(progress.time, "monotonic", lambda: 10.0 * module.global_step)  # ten seconds a step
    toy_trainer(tmp_path, ProgressLines(), max_steps=8, val_check_interval=4).fit(module)
    lines = capsys.readouterr().out.splitlines()
    told = [re.sub(r"loss [\d.e-]+", "loss X", line) for line in lines if "validation" not in line]
    times = ["0:01:00", "0:00:40", "0:00:20", "0:00:00"]
    assert told == [f"step {2 * i + 2}/8  loss X  ETA {time}" for i, time in enumerate(times)]
    assert "step 4/8  validation  loss 4  took 0:00:00" in lines


def test_a_run_without_end_tells_its_step_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Ends(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
            trainer.should_stop = trainer.global_step >= 4

    toy_trainer(tmp_path, ProgressLines(), Ends(), limit_val_batches=0).fit(ToyModule())
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == ["step 2", "step 4"]


def test_the_bar_counts_steps_also_in_a_run_that_was_gone_on_with(tmp_path: Path) -> None:
    seen = []

    class Look(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
            task = trainer.progress_bar_callback.progress.tasks[0]
            seen.append((task.description.split("]")[-1].strip(), task.completed, task.total))

    options = {"enable_progress_bar": True, "accumulate_grad_batches": 2}
    first = toy_trainer(tmp_path, StepBar(), Look(), max_steps=2, **options)
    first.fit(ToyModule())
    first.save_checkpoint(tmp_path / "two.ckpt")
    toy_trainer(tmp_path, StepBar(), Look(), max_steps=3, **options).fit(ToyModule(), ckpt_path=tmp_path / "two.ckpt")
    at_two, at_three = [("Training", n, 2) for n in (0, 1, 1, 2)], [("Training", n, 3) for n in (2, 3)]
    assert seen == at_two + at_three


def shown(terminal: bool, monkeypatch: pytest.MonkeyPatch, **flags: object) -> set[type]:
    """Kinds of the callbacks that a trainer of these settings has, of those that show something."""
    monkeypatch.setattr("lit_mm.command_line.trainer_callbacks.on_terminal", lambda: terminal)
    flags = {"enable_progress_bar": None, "enable_model_summary": None, "callbacks": None} | flags
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, **completed_callbacks(Namespace(flags))
    )
    kinds = (ProgressBar, ModelSummary, ProgressLines)
    return {type(callback) for callback in trainer.callbacks if isinstance(callback, kinds)}


def test_the_trainers_flags_say_what_is_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert shown(True, monkeypatch) == {StepBar, ParameterTable, ProgressLines}
    assert shown(False, monkeypatch) == {ParameterTable, ProgressLines}
    off = {"enable_progress_bar": False, "enable_model_summary": False}
    assert shown(True, monkeypatch, **off) == {ProgressLines}
    assert shown(True, monkeypatch, callbacks=[TQDMProgressBar(), ModelSummary()], **off) == {ProgressLines}
    assert shown(True, monkeypatch, callbacks=TQDMProgressBar()) == {TQDMProgressBar, ParameterTable, ProgressLines}
    assert "already configured" not in caplog.text


def test_early_stopping_comes_before_those_that_ask_whether_a_validation_is_the_last() -> None:
    named = [ResultsTable(), EarlyStopping("val/loss")]
    callbacks = completed_callbacks(Namespace(callbacks=named, enable_progress_bar=False, enable_model_summary=False))
    assert [type(callback) for callback in callbacks["callbacks"]] == [
        EarlyStopping,
        ResultsTable,
        DataTable,
        ProgressLines,
    ]
