"""A checkpoint alone is enough, and whatever is given beside it wins over what is inside."""

from pathlib import Path

import pytest
import torch
import yaml

from lit_mm.cli import main
from tests.helpers.program import ROOT
from tests.helpers.recorder import read


def resume(checkpoint: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, *args: str) -> tuple[list, dict]:
    """Go on from `checkpoint` without naming any config; what was recorded per step, and the run's config.yaml."""
    monkeypatch.chdir(ROOT)
    main(
        [
            "fit",
            f"--ckpt_path={checkpoint}",
            "--trainer.max_steps=5",
            f"--trainer.logger.save_dir={folder}",
            "--trainer.callbacks=[]",
            "--trainer.callbacks+=tests.helpers.recorder.Recorder",
            f"--trainer.callbacks.folder={folder}",
            *args,
        ]
    )
    (config,) = folder.rglob("config.yaml")
    return read(folder)[0], yaml.safe_load(config.read_text())


def test_without_a_config_the_checkpoints_own_is_used(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, config = resume(trained, tmp_path, monkeypatch)
    assert [step["step"] for step in steps] == [4, 5]
    assert config["model"]["init_args"]["backbone"]["init_args"]["dim"] == 64
    assert steps[0]["weight_decay"] == 0.1


def test_the_command_line_wins_over_the_checkpoint(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, config = resume(
        trained,
        tmp_path,
        monkeypatch,
        "--model.optimizer.lr=0.25",
        "--model.optimizer.weight_decay=0.5",
        "--model.schedule.warmup_steps=4",
        "--model.schedule.final_share=1.0",
    )
    assert config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.25
    assert config["model"]["init_args"]["backbone"]["init_args"]["dim"] == 64
    assert [step["weight_decay"] for step in steps] == [0.5, 0.5]
    # Read after the schedule has moved on: step 5 is the first after the warm-up of four.
    assert [float.fromhex(step["learning_rate"]) for step in steps] == [0.25, 0.25]


def test_the_frozen_tokenizer_is_named_in_the_checkpoint_and_not_stored(trained: Path) -> None:
    checkpoint = torch.load(trained, weights_only=False)
    assert checkpoint["vision"] == "pixels:64/16"
    assert not [name for name in checkpoint["state_dict"] if name.startswith("vision.")]
