"""A run trains on videos and actions in several layouts at once, and shows and logs what is theirs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_mm.cli import main
from tests.data_modules.test_video_layouts import write_frames
from tests.data_modules.video_files import moving_picture, write_video
from tests.helpers.lerobot import lerobot_3
from tests.helpers.program import ROOT, SMALL
from tests.helpers.tars import write_tar


def test_a_mixture_of_layouts_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    video = write_video(tmp_path / "0.mp4", moving_picture(10), g="4").read_bytes()
    write_tar(tmp_path / "tars/0.tar", [("0.mp4", video), ("0.txt", b"a square that moves")])
    write_frames(tmp_path / "frames" / "0", moving_picture(10))
    lerobot_3(tmp_path / "robot")
    clips = {"fps": 5, "frames": 2}
    sources = {
        "told": ("video.VideoSource", "tars", clips | {"captions": "txt"}),
        "frames": ("video.VideoSource", "frames", clips | {"frame_rate": 10}),
        "robot": (
            "action_video.ActionVideoSource",
            "robot",
            {"text": "go {action[0]:+.1f}, {task}", "context": 1, "horizon": 2},
        ),
    }
    mixture = {
        "class_path": "data_modules.mixture.MixtureDataModule",
        "init_args": {
            "tokenizer": str(ROOT / "data/tiny/tokenizer.json"),
            "loader": {"workers": 1, "cache": str(tmp_path / "cache")},
            "weights": dict.fromkeys(sources, 1),
            "sources": {
                name: {
                    "class_path": f"data_modules.{module}",
                    "init_args": {"train": str(tmp_path / folder), "val": str(tmp_path / folder)} | options,
                }
                for name, (module, folder, options) in sources.items()
            },
        },
    }
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(mixture))
    monitors = ("mixture_monitor.MixtureMonitor", "training_monitor.TrainingMonitor", "update_monitor.UpdateMonitor")
    callbacks = [f"--trainer.callbacks+=callbacks.monitors.{name}" for name in monitors]
    callbacks += ["--trainer.callbacks.UpdateMonitor.every_n_steps=2"]
    steps = [
        "--trainer.max_steps=2",
        "--trainer.log_every_n_steps=2",
        "--trainer.val_check_interval=2",
        f"--trainer.logger.save_dir={tmp_path}",
    ]
    main(["fit", "--config=configs/tiny.yaml", f"--data={tmp_path / 'data.yaml'}", *SMALL, *callbacks, *steps])
    (events,) = {file.parent for file in tmp_path.rglob("events.*")}
    accumulator = EventAccumulator(str(events))
    accumulator.Reload()
    logged = set(accumulator.Tags()["scalars"])
    assert {"val/frames/flow_loss", "val/robot/flow_loss"} <= logged
    assert {"val/told/flow_loss", "val/told/text_loss"} & logged, "some clips are drawn, some told"
    assert {f"data/{name}/seconds_a_document" for name in sources} <= logged
    assert {"data/tokens", "gradients/text", "gradients/visual", "updates/shared"} <= logged
    for split in ("train", "val"):
        assert any(name.startswith(f"{split}/flow_loss_at/") for name in logged)
