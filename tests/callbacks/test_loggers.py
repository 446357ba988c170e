"""Every logger: a folder for all that a run writes, its settings, its pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_mm.cli import main
from tests.helpers.program import ROOT, SMALL

SAMPLE = "samples/image_text/drawn"


def fit(folder: Path, monkeypatch: pytest.MonkeyPatch, *logger: str) -> Path:
    """The run folder of a fit in a folder that has nothing else; all that the run writes is in there."""
    folder.mkdir()
    (folder / "data").symlink_to(ROOT / "data")
    (folder / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(folder)
    names = ("pages.results_table.ResultsTable", "pages.samples.Samples", "checkpoints.Checkpoints")
    callbacks = [f"--trainer.callbacks+=callbacks.{name}" for name in names]
    data = [
        "--data=configs/data/image_text.yaml",
        "--data.tokenizer=data/tiny/tokenizer.json",
        "--data.loader.workers=0",
    ]
    steps = ["--trainer.max_steps=1", "--model.sampler.steps=1", "--data.loader.val_documents=1"]
    main(["fit", "--config=configs/tiny.yaml", *data, *SMALL, *callbacks, *steps, *logger])
    (config,) = folder.rglob("config.yaml")
    run = config.parent
    assert (run / "validation.jsonl").read_text().count("\n") == 1
    assert list((run / SAMPLE).glob("*.png"))
    assert list((run / "checkpoints").glob("*.ckpt"))
    written = {path.name for path in folder.iterdir()} - {"data", "configs"}
    assert written == {run.relative_to(folder).parts[0]} | written & {"mlflow.db", "wandb"}
    return run


def test_tensorboard_has_pictures_and_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fit(tmp_path / "here", monkeypatch)
    assert run == tmp_path / "here/runs/tiny/version_0"
    events = EventAccumulator(str(run))
    events.Reload()
    assert SAMPLE in events.Tags()["images"]
    assert "hp_metric" not in events.Tags()["scalars"]
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"model.optimizer.lr" in content
    assert yaml.safe_load((run / "hparams.yaml").read_text())["trainer.max_steps"] == 1


def test_without_a_logger_a_run_has_a_folder_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fit(tmp_path / "here", monkeypatch, "--trainer.logger=false")
    assert run.parent == tmp_path / "here/runs/no_logger"


def test_weights_and_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb")
    run = fit(
        tmp_path / "here", monkeypatch, "--trainer.logger=configs/logger/wandb.yaml", "--trainer.logger.offline=true"
    )
    live = wandb.run
    try:
        assert run == tmp_path / "here/runs/lit-mm" / live.id
        assert live.config["model.optimizer.lr"] == 0.001
        assert live.summary["val/loss"] > 0
        assert live.summary[SAMPLE]["_type"].startswith("image")
        assert live.summary["validation"]["_type"] == "table-file"
    finally:
        wandb.finish()


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")  # of its database, which a part of the library does without
    run = fit(tmp_path / "here", monkeypatch, "--trainer.logger=configs/logger/mlflow.yaml")
    client = mlflow.MlflowClient("sqlite:///runs/mlflow.db")
    logged = client.get_run(run.name)
    assert float(logged.data.params["model.optimizer.lr"]) == 0.001
    assert logged.data.metrics["val/loss"] > 0
    artifacts = {item.path for item in client.list_artifacts(run.name)}
    assert {"images", "samples", "validation.json"} <= artifacts
