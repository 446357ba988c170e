"""Roll-outs against the real simulator: a perfect imagination scores perfectly, a blind one at chance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from callbacks.evaluation import roll_outs
from callbacks.evaluation.game import planning_evaluation
from callbacks.evaluation.game.planning_evaluation import PlanningEvaluation
from callbacks.evaluation.game.world_model import WorldModelEvaluation
from data_modules.action_video import ActionVideoDataModule
from data_modules.game.simulator import Case, Simulator, View
from data_modules.mixing.loader_config import LoaderConfig
from lit_mm.generation.planning import CrossEntropyMethod
from lit_mm.generation.roll_out import RollOut
from lit_mm.mistake import Mistake
from lit_mm.module import LitMultimodal
from lit_mm.vision import Pixels
from tests.helpers.program import ROOT
from tests.helpers.small_model import Thumbnails, small_model

SOURCE = "action_video"


@pytest.fixture
def data() -> ActionVideoDataModule:
    vision = Pixels()
    return ActionVideoDataModule(
        train=str(ROOT / "data/tiny/action_video/train/freedoom2_map01_0*.mp4"),
        val=str(ROOT / "data/tiny/action_video/val/freedoom2_map14_00.mp4"),
        unit=32,
        frame_step=2,
        horizon=4,
        tokenizer=str(ROOT / "data/tiny/tokenizer.json"),
        loader=LoaderConfig(row_length=256, rows=1, workers=0, val_documents=2),
        image_size=vision.image_size,
        tokens_per_frame=vision.num_tokens,
    )


@pytest.fixture
def module() -> LitMultimodal:
    return small_model()


def validate(callback: Any, module: LitMultimodal, data: ActionVideoDataModule, folder: Path) -> dict[str, float]:
    from lightning.pytorch.loggers import TensorBoardLogger

    logger = TensorBoardLogger(folder, name="run", version=0)
    trainer = Trainer(
        accelerator="cpu", logger=logger, callbacks=[callback], enable_progress_bar=False, enable_model_summary=False
    )
    trainer.validate(module, data, verbose=False)
    return {name.removeprefix(f"val/{SOURCE}/"): v for name, v in module.validation_results.items()}


@pytest.fixture
def remembered(monkeypatch: pytest.MonkeyPatch) -> list[Case]:
    """All cases that the simulator makes."""
    made: list[Case] = []
    original = Simulator.case

    def case(self: Simulator, *args: Any, **kwargs: Any) -> Case:
        made.append(original(self, *args, **kwargs))
        return made[-1]

    monkeypatch.setattr(Simulator, "case", case)
    return made


def evaluation(**settings: Any) -> WorldModelEvaluation:
    return WorldModelEvaluation(
        **{
            "maps": ("map14", "map17"),
            "cases": 2,
            "horizons": (1, 2),
            "key_steps": 2,
            "draws": 2,
            "network": Thumbnails(),
            **settings,
        }
    )


def test_a_perfect_imagination_is_without_error(
    module: LitMultimodal,
    data: ActionVideoDataModule,
    remembered: list[Case],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def roll(decoder: Any, asked: Sequence[RollOut]) -> list[Tensor]:
        """What the simulator shows after these actions from this context."""
        drawn = []
        for one in asked:
            walks = [w for c in remembered if torch.equal(c.context, one.context) for w in c.walks.values()]
            truth = [w for w in walks if w.actions[: len(one.actions)] == list(one.actions)]
            frames = truth[0].frames[1 : len(one.actions) + 1] if truth else walks[0].frames[1:].flip(0)
            drawn.append(decoder.vision.encode(frames)[: len(one.actions)])
        return drawn

    monkeypatch.setattr(roll_outs, "roll_out", roll)
    found = validate(evaluation(), module, data, tmp_path)
    for horizon in (1, 2):
        assert found[f"latent@{horizon}"] == pytest.approx(0, abs=1e-6)
        assert found[f"latent_mean@{horizon}"] == pytest.approx(0, abs=1e-6)
        assert found[f"thumbnails@{horizon}"] == pytest.approx(0, abs=1e-6)
        assert found[f"ssim@{horizon}"] == pytest.approx(1, abs=1e-4)
        assert found[f"latent_shuffled@{horizon}"] > 0.001
        assert found[f"fidelity_turns@{horizon}"] == 1
        assert found[f"fidelity_moves@{horizon}"] == 1
        assert found[f"fidelity_turns_pairs@{horizon}"] >= 4 * 2 * 4  # cases, turns, other keys: walls stop no turn
    truth = torch.stack([case.walks["wander"].frames[2] for case in remembered]).float()
    last = torch.stack([case.context[-1] for case in remembered]).float()
    copied = (-10 * ((truth - last) / 255).square().mean((1, 2, 3)).log10()).mean()
    assert found["psnr_copy@2"] == pytest.approx(float(copied), abs=0.01)


def test_a_blind_imagination_tells_no_keys_apart(
    module: LitMultimodal, data: ActionVideoDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The context's last frame whatever is done: nothing is strictly closer to the truth than anything else."""
    monkeypatch.setattr(
        roll_outs,
        "roll_out",
        lambda decoder, asked: [
            decoder.vision.encode(one.context[-1:]).expand(len(one.actions), -1, -1) for one in asked
        ],
    )
    found = validate(evaluation(), module, data, tmp_path)
    assert found["fidelity_turns@2"] == 0
    for measure in ("latent", "psnr", "ssim", "thumbnails"):
        assert found[f"{measure}@2"] == pytest.approx(found[f"{measure}_copy@2"], abs=1e-5)


def test_the_model_itself_is_rolled_out_and_written_down(
    module: LitMultimodal, data: ActionVideoDataModule, tmp_path: Path
) -> None:
    found = validate(evaluation(maps=("map14",)), module, data, tmp_path)
    assert all(0 <= found[f"fidelity_{name}@1"] <= 1 for name in ("turns", "moves"))
    folder = tmp_path / "run/version_0/world_model"
    written = json.loads((folder / "step_0000000.json").read_text())
    assert written["latent@2"] == found["latent@2"]
    assert (folder / "step_0000000.png").stat().st_size > 1000


def test_what_an_earlier_validation_wrote_stays(
    module: LitMultimodal, data: ActionVideoDataModule, tmp_path: Path
) -> None:
    small = evaluation(maps=("map14",), horizons=(1,), key_steps=1, draws=1)
    validate(small, module, data, tmp_path)
    folder = tmp_path / "run/version_0/world_model"
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    validate(small, module, data, tmp_path)
    assert {file.name for file in folder.iterdir()} == {*before, "step_0000000-1.json", "step_0000000-1.png"}
    assert all((folder / name).read_bytes() == content for name, content in before.items())


def test_one_case_has_no_other_to_take_actions_from() -> None:
    with pytest.raises(Mistake, match="1 maps and 1 cases on each; .* give two or more in all"):
        evaluation(maps=("map14",), cases=1)


def test_a_map_named_twice_is_refused(module: LitMultimodal, data: ActionVideoDataModule, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="maps names 'map14' twice"):
        validate(evaluation(maps=("map14", "map14")), module, data, tmp_path)


@pytest.mark.parametrize(
    "callback",
    [evaluation(maps=("map01",)), PlanningEvaluation(CrossEntropyMethod((1, 0, 0), (1, 1, 1)), maps=("map01",))],
)
def test_a_map_that_was_trained_on_is_refused(
    callback: Any, module: LitMultimodal, data: ActionVideoDataModule, tmp_path: Path
) -> None:
    with pytest.raises(Mistake, match="map01.*trained on"):
        validate(callback, module, data, tmp_path)


def test_plans_are_carried_out_in_the_simulator(
    module: LitMultimodal, data: ActionVideoDataModule, tmp_path: Path
) -> None:
    """With a model that knows nothing: the errors are those of the ways it chose, followed again by hand."""
    method = CrossEntropyMethod((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), samples=4, elites=2, steps=2)
    callback = PlanningEvaluation(method, maps=("map14",), cases=1, repeats=2, network=Thumbnails())
    found = validate(callback, module, data, tmp_path)
    record = json.loads((tmp_path / "run/version_0/planning/step_0000000.json").read_text())["cases"][0]
    view = View(64, 32, 4, 2, 4)
    simulator = Simulator("map14", view, 1.5)
    case = simulator.case(0, 2)
    true = planning_evaluation._poses(case.walks["wander"].poses)
    errors = []
    for way in record["ways"]:
        walk = simulator.follow(case.beginning, [(way[0], way[1], 0.0), (way[0], way[1], way[2])])
        errors.append((planning_evaluation._poses(walk.poses)[:, :2] - true[:, :2]).square().sum(1).mean().sqrt())
    assert found["planning_ate"] == pytest.approx(float(torch.stack(errors).mean()), abs=1e-4)
    assert {f"planning_{e}{w}" for e in ("ate", "rpe") for w in ("", "_random", "_straight", "_still")} <= found.keys()
