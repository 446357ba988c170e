"""Roll-outs along held-out episodes: what came is the truth, and no simulator is asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from callbacks.evaluation import roll_outs
from callbacks.evaluation.episode_roll_outs import EpisodeRollOuts
from data_modules.action_video import ActionVideoDataModule
from data_modules.mixing.loader_config import LoaderConfig
from lit_mm.generation.roll_out import RollOut
from lit_mm.mistake import Mistake
from lit_mm.vision import Pixels
from tests.data_modules.video_files import decode_all, moving_picture, write_video
from tests.helpers.program import ROOT
from tests.helpers.small_model import Thumbnails, small_model

LENGTHS = (14, 18)  # frames of the episodes, at 10 a second
STEP = 2  # frames of each


def command(episode: int, frame: int) -> float:
    return episode + frame / 100


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Episodes whose commands tell every step from every other."""
    folder = tmp_path_factory.mktemp("episodes")
    for number, count in enumerate(LENGTHS):
        write_video(folder / f"{number}.mp4", moving_picture(count, 64, 64, seed=number), rate=10, g="4")
        table = pd.DataFrame({"speed": [command(number, i) for i in range(count)]})
        table.to_csv(folder / f"{number}.csv", index=False)
    return folder


def validate(callback: EpisodeRollOuts, folder: Path, out: Path, **options: Any) -> dict[str, float]:
    vision = Pixels()
    data = ActionVideoDataModule(
        train=str(folder),
        val=str(folder),
        text="go {speed.first:.2f}",
        context=2,
        horizon=4,
        tokenizer=str(ROOT / "data/tiny/tokenizer.json"),
        loader=LoaderConfig(row_length=256, rows=1, workers=0, val_documents=2),
        image_size=vision.image_size,
        tokens_per_frame=vision.num_tokens,
        **{"frame_step": STEP} | options,
    )
    logger = TensorBoardLogger(out, name="run", version=0)
    trainer = Trainer(
        accelerator="cpu", logger=logger, callbacks=[callback], enable_progress_bar=False, enable_model_summary=False
    )
    module = small_model()
    trainer.validate(module, data, verbose=False)
    return {name.removeprefix("val/action_video/"): v for name, v in module.validation_results.items()}


def truth(folder: Path) -> list[Tensor]:
    """(frames, 3, 64, 64) of each episode, with nothing but PyAV."""
    return [torch.from_numpy(np.stack(decode_all(f))).permute(0, 3, 1, 2) for f in sorted(folder.glob("*.mp4"))]


@pytest.mark.parametrize("options", [{"frame_step": STEP}, {"frame_step": 1, "fps": 5}], ids=str)
def test_what_came_is_without_error(
    options: dict[str, Any], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    episodes = truth(folder)

    def roll(decoder: Any, asked: Sequence[RollOut]) -> list[Tensor]:
        """The frame behind the last one of the commands, whatever the context shows."""
        drawn = []
        for one in asked:
            speeds = [float(action.removeprefix("go ")) for action in one.actions]
            at = [(episode, round((speed - episode) * 100)) for speed in speeds for episode in [int(speed)]]
            drawn.append(decoder.vision.encode(torch.stack([episodes[e][frame + STEP] for e, frame in at])))
        return drawn

    monkeypatch.setattr(roll_outs, "roll_out", roll)
    seconds = "fps" in options
    unit, horizons = ("seconds", (0.2, 0.6)) if seconds else ("steps", (1, 3))
    found = validate(
        EpisodeRollOuts(6, horizons, unit, draws=2, network=Thumbnails()), folder, tmp_path, **options
    )  # fmt: skip
    for name in ("0.2s", "0.6s") if seconds else ("1", "3"):
        assert found[f"latent@{name}"] == pytest.approx(0, abs=1e-6)
        assert found[f"latent_mean@{name}"] == pytest.approx(0, abs=1e-6)
        assert found[f"ssim@{name}"] == pytest.approx(1, abs=1e-4)
        assert found[f"frechet_thumbnails@{name}"] == pytest.approx(0, abs=1e-3)
        assert found[f"frechet_thumbnails_copy@{name}"] > 0
        assert found[f"latent_shuffled@{name}"] > 0.001
    name = "0.6s" if seconds else "3"
    written = json.loads((tmp_path / "run/version_0/roll_outs/step_0000000.json").read_text())
    assert written["steps"][name] == 3
    places = [case.rpartition(", frame ") for case in written["cases"]]
    assert len({path for path, _, _ in places}) == 2, "both episodes are asked for"
    copied = []
    for path, _, frame in places:
        episode = episodes[int(Path(path).stem)]
        last, came = (episode[int(frame) + ahead].float() / 255 for ahead in (0, 3 * STEP))
        copied.append(-10 * (last - came).square().mean().log10())
    assert found[f"psnr_copy@{name}"] == pytest.approx(float(torch.stack(copied).mean()), abs=0.01)
    assert (tmp_path / "run/version_0/roll_outs/step_0000000.png").stat().st_size > 1000


def test_the_model_itself_is_rolled_out(folder: Path, tmp_path: Path) -> None:
    found = validate(EpisodeRollOuts(3, (1, 2), network=Thumbnails()), folder, tmp_path)
    assert all(np.isfinite(found[f"{m}{way}@2"]) for m in ("psnr", "thumbnails") for way in ("", "_copy", "_shuffled"))
    assert found["psnr@2"] < found["psnr_copy@2"], "a model that knows nothing is worse than a copy"


def test_what_cannot_be_compared_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="looks 30 steps ahead, but source 'action_video' has no two places"):
        validate(EpisodeRollOuts(horizons=(30,), network=Thumbnails()), folder, tmp_path)
    with pytest.raises(Mistake, match="counts in seconds, but source 'action_video' does not say how many frames"):
        validate(EpisodeRollOuts(unit="seconds", network=Thumbnails()), folder, tmp_path)
    for options, message in [
        ({"cases": 1}, "has 1 cases"),
        ({"horizons": (0.5,)}, r"has the horizons \[0.5\]; give whole steps"),
        ({"draws": 0}, "has 0 draws"),
    ]:
        with pytest.raises(Mistake, match=message):
            EpisodeRollOuts(**options)  # type: ignore[arg-type]
