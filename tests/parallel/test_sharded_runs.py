"""A run on two sharded processes is the run on one: losses, gradients, averages, validation, checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from lit_mm.parallel.checkpoint_files import CheckpointFiles, is_sharded
from tests.helpers.program import SMALL
from tests.helpers.recorder import read
from tests.helpers.runs import run_all

BACKBONES = ("dense", "modality", "experts")
STEPS, SAVED = 4, 2
SIZES = [a for a in SMALL if "hidden_dim" not in a and "rows" not in a and "val_check" not in a]
SHARDED = ["--trainer.devices=2", "--trainer.strategy=fsdp2", "--data.loader.rows=2"]
WHOLE = ["--data.loader.rows=4"]


def arguments(folder: Path, backbone: str, *more: str, command: str = "fit") -> list[str]:
    """A short run of four rows a step whose weights are averaged and which clips every gradient."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        command,
        "--config=configs/tiny.yaml",
        f"--model.backbone=configs/backbone/{backbone}.yaml",
        *SIZES,
        "--data.loader.workers=0",
        f"--trainer.max_steps={STEPS}",
        f"--trainer.val_check_interval={STEPS}",
        "--trainer.gradient_clip_val=0.5",
        "--model.schedule.warmup_steps=2",
        f"--trainer.logger.save_dir={folder}",
        "--trainer.callbacks+=tests.helpers.recorder.Recorder",
        f"--trainer.callbacks.folder={folder}",
        "--trainer.callbacks+=callbacks.results_table.ResultsTable",
        "--trainer.callbacks+=callbacks.weight_averaging.WeightAveraging",
        "--trainer.callbacks.decay=0.7",
        "--trainer.callbacks+=ModelCheckpoint",
        f"--trainer.callbacks.dirpath={folder}",
        f"--trainer.callbacks.every_n_train_steps={SAVED}",
        "--trainer.callbacks.save_top_k=-1",
        "--trainer.callbacks.filename={step}",
        *more,
    ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each backbone on one process and on two."""
    folder = tmp_path_factory.mktemp("runs")
    run_all(folder, [arguments(folder / f"{name}_1", name, *WHOLE) for name in BACKBONES])
    run_all(folder, [arguments(folder / f"{name}_2", name, *SHARDED) for name in BACKBONES], ranks=2)
    return folder


def numbers(folder: Path, name: str) -> list[float]:
    """One recorded value per step, averaged over the processes."""
    steps = zip(*read(folder), strict=True)
    return [sum(float.fromhex(rank[name]) for rank in step) / len(step) for step in steps]


def validation(folder: Path) -> dict[str, float]:
    (file,) = folder.rglob("validation.jsonl")
    return json.loads(file.read_text().splitlines()[-1])


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return CheckpointFiles().load_checkpoint(checkpoint, weights_only=False)["state_dict"]


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
def test_two_sharded_processes_do_what_one_does(runs: Path, backbone: str) -> None:
    one, two = runs / f"{backbone}_1", runs / f"{backbone}_2"
    assert numbers(two, "loss") == pytest.approx(numbers(one, "loss"), rel=1e-5)
    assert numbers(two, "gradient_norm") == pytest.approx(numbers(one, "gradient_norm"), rel=1e-4)
    assert min(numbers(one, "gradient_norm")) > 0.5, "every gradient is clipped"
    assert validation(two) == pytest.approx(validation(one), rel=1e-4)
    last = f"step={STEPS}.ckpt"
    assert is_sharded(two / last)
    ours, theirs = weights(two / last), weights(one / last)
    assert ours.keys() == theirs.keys()
    assert any(name.startswith("averaged.") for name in ours)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-5, msg=name)
