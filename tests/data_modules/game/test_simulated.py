"""`predict` on the game itself: what it writes is what the simulator shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.io import decode_image

from data_modules.game.simulated import SimulatedDataModule
from data_modules.game.simulator import Simulator, View
from lit_mm.cli import main
from lit_mm.mistake import Mistake
from tests.helpers.program import ROOT

TRAIN = str(ROOT / "data/tiny/action_video/train")
DATA = {"train": TRAIN, "unit": 32, "context": 2, "frame_step": 2, "horizon": 4, "image_size": 64}


@pytest.mark.slow
def test_roll_outs_are_written_beside_what_is_truly_seen(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    main(
        [
            "predict",
            f"--ckpt_path={trained}",
            "--data=configs/data/simulated.yaml",
            "--data.context=2",
            "--data.maps=[map14]",
            "--data.keys=[LEFT, W+RIGHT]",
            "--data.steps=2",
            "--model.sampler.steps=1",
            "--trainer.callbacks+=callbacks.pages.prediction_writer.PredictionWriter",
            f"--trainer.callbacks.folder={tmp_path / 'out'}",
        ]
    )
    records = [json.loads(line) for line in (tmp_path / "out/answers.jsonl").read_text().splitlines()]
    assert [record["name"] for record in records] == ["map14-0-wander", "map14-0-LEFT", "map14-0-W+RIGHT"]
    case = Simulator("map14", View(64, 32, 2, 1, 8), 1.5).case(0, 2, (("LEFT",), ("W", "RIGHT")), 2)
    for record in records:
        walk = case.walks[record["name"].removeprefix("map14-0-")]
        assert record["actions"] == walk.actions
        shown, truth = (
            torch.stack([decode_image(str(tmp_path / "out" / part["picture"])) for part in record[kind]])
            for kind in ("shown", "truth")
        )
        assert torch.equal(shown, case.context)
        assert torch.equal(truth, walk.frames[1:])
        assert record["answer"] == [f"{record['name']}.{i}.png" for i in range(2)] + [f"{record['name']}.gif"]
    left, right = (record["actions"][0] for record in records[1:])
    assert "dyaw=+" in left
    assert "dyaw=-" in right
    page = (tmp_path / "out/index.html").read_text()
    assert all(part["picture"].replace("+", "%2B") in page for record in records for part in record["truth"])
    assert (tmp_path / "out/map14-0.sheet.png").exists()


def test_maps_that_were_trained_on_are_refused() -> None:
    data = SimulatedDataModule(maps=("map01",), **DATA)  # type: ignore[arg-type]
    with pytest.raises(Mistake, match="names 'map01', but '.*map01.*' of it is trained on"):
        data.predict_dataloader()


@pytest.mark.parametrize("keys", [("W", "JUMP"), ("W+JUMP",)])
def test_unknown_keys_are_refused(keys: Any) -> None:
    with pytest.raises(Mistake, match=r"data.keys has '.*JUMP'; the game has the keys W, "):
        SimulatedDataModule(keys=keys, **DATA)  # type: ignore[arg-type]
