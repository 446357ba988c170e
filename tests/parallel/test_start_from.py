"""A new run starts from the weights of another, and from nothing else of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lit_mm.cli import main
from lit_mm.export import export
from lit_mm.mistake import Mistake
from lit_mm.parallel.checkpoint_files import CheckpointFiles
from lit_mm.parallel.exported import read_weights
from lit_mm.parallel.starting_weights import load_starting_weights
from tests.helpers.program import ROOT, SMALL
from tests.helpers.runs import run_all


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    export(trained, folder)
    return folder


def arguments(folder: Path, *more: str) -> list[str]:
    """A run whose steps change no weight, saved after each."""
    return [
        "fit",
        "--config=configs/tiny.yaml",
        *SMALL,
        "--data.loader.workers=0",
        "--model.optimizer.lr=0",
        "--trainer.max_steps=1",
        f"--trainer.logger.save_dir={folder}",
        "--trainer.callbacks+=callbacks.weight_averaging.WeightAveraging",
        "--trainer.callbacks.decay=0.5",
        "--trainer.callbacks+=ModelCheckpoint",
        f"--trainer.callbacks.dirpath={folder}",
        "--trainer.callbacks.every_n_train_steps=1",
        "--trainer.callbacks.save_top_k=-1",
        "--trainer.callbacks.filename={step}",
        *more,
    ]


def saved(folder: Path, step: int) -> dict[str, Any]:
    return CheckpointFiles().load_checkpoint(folder / f"step={step}.ckpt", weights_only=False)


def check_weights(checkpoint: dict[str, Any], exported: Path) -> None:
    wanted, _ = read_weights(exported)
    found = checkpoint["state_dict"]
    assert len(found) == 2 * len(wanted)
    for name, value in wanted.items():
        assert torch.equal(found[f"model.{name}"], value), name
        assert torch.equal(found[f"averaged.{name}"], value), name


def test_weights_are_the_others_and_all_else_is_new(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    main(arguments(tmp_path / "fresh"))
    main(arguments(tmp_path / "run", f"--model.start_from={exported}"))
    checkpoint, fresh = saved(tmp_path / "run", 1), saved(tmp_path / "fresh", 1)
    check_weights(checkpoint, exported)
    assert not torch.equal(
        checkpoint["state_dict"]["model.text_head.linear.weight"], fresh["state_dict"]["model.text_head.linear.weight"]
    )
    assert checkpoint["global_step"] == 1
    assert checkpoint["MixtureDataModule"] == fresh["MixtureDataModule"], "the same rows come next"
    assert all(state["step"] == 1 for state in checkpoint["optimizer_states"][0]["state"].values())


def test_the_shipped_model_is_known_by_its_name() -> None:
    with pytest.raises(Mistake, match=r"describe the model of model\.start_from, as in '.*weights/lab/config\.yaml'"):
        load_starting_weights(nn.Linear(1, 1), "lab", "another tokenizer", "another")


def test_a_checkpoint_wins(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    main(arguments(tmp_path))
    before = saved(tmp_path, 1)["state_dict"]
    went_on = [f"--model.start_from={exported}", f"--ckpt_path={tmp_path / 'step=1.ckpt'}", "--trainer.max_steps=2"]
    main(arguments(tmp_path, *went_on))
    after = saved(tmp_path, 2)
    assert after["global_step"] == 2
    assert all(torch.equal(after["state_dict"][name], value) for name, value in before.items())


@pytest.mark.slow
def test_each_of_two_processes_keeps_its_shards(exported: Path, tmp_path: Path) -> None:
    sharded = ["--trainer.devices=2", "--trainer.strategy=fsdp2", "--data.loader.rows=1"]
    run_all(tmp_path, [arguments(tmp_path, f"--model.start_from={exported}", *sharded)], ranks=2)
    check_weights(saved(tmp_path, 1), exported)


def test_a_folder_without_weights_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit, match="model.start_from is 'nowhere', which holds no 'model.safetensors'; give a "):
        main(arguments(tmp_path, "--model.start_from=nowhere"))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (["--model.backbone.feed_forward.hidden_dim=192"], r"'backbone\.layers.* is \(.*128.*the configured.*192"),
        (["--model.backbone.depth=3"], r"has 2 layers \('backbone\.layers'\), the configured model 3"),
        (
            ["--model.vision=configs/vision/rae_tiny.yaml"],
            "trained on the visual tokens of '.*', but model.vision is '",
        ),
    ],
)
def test_weights_of_another_model_are_refused(
    other: list[str], said: str, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit, match=f"error: .*{said}.*describe the model of model.start_from, as in '.*config"):
        main(arguments(tmp_path, f"--model.start_from={exported}", *other))
