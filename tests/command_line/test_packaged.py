"""Files of the package are found by the names they have in the repository, from any folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lit_mm.cli import LitCLI
from lit_mm.command_line.packaged import packaged_arguments
from lit_mm.packaged import packaged
from tests.helpers.program import ROOT

PACKAGE = ROOT / "lit_mm"


class Parsed(Exception):
    pass


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parse(monkeypatch: pytest.MonkeyPatch, *args: str) -> Any:
    """What `lit-mm fit` would run in the working folder."""

    def stop(cli: LitCLI) -> None:
        raise Parsed(cli.config)

    monkeypatch.setattr(LitCLI, "before_instantiate_classes", stop)
    with pytest.raises(Parsed) as parsed:
        LitCLI(args=["fit", *args])
    return parsed.value.args[0]["fit"]


def test_only_what_the_working_folder_lacks_and_the_package_has(elsewhere: Path) -> None:
    assert packaged("configs/tiny.yaml", elsewhere) == str(PACKAGE / "configs/tiny.yaml")
    assert packaged("lit_mm/weights/lab", elsewhere) == str(PACKAGE / "weights/lab")
    for text in ("configs/absent.yaml", "tiny.yaml", "configs", "my configs/tiny.yaml", "draw: configs/tiny.yaml"):
        assert packaged(text, elsewhere) == text
    (elsewhere / "configs").mkdir()
    (elsewhere / "configs/tiny.yaml").touch()
    assert packaged("configs/tiny.yaml", elsewhere) == "configs/tiny.yaml"
    given = ["fit", "--model.vision=configs/vision/pixels.yaml", "--data.weights.text=0.6"]
    assert packaged_arguments(given) == [given[0], f"--model.vision={PACKAGE}/configs/vision/pixels.yaml", given[2]]


def test_within_a_configuration_of_the_user(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file beside the configuration comes first, then the working folder's, then the package's."""
    mine = elsewhere / "runs/mine.yaml"
    (mine.parent / "configs/trainer").mkdir(parents=True)
    (mine.parent / "configs/trainer/gpu.yaml").write_text("{max_steps: 7}\n")
    mine.write_text("trainer: configs/trainer/gpu.yaml\ndata: configs/data/lab.yaml\n")
    options = ("--model.backbone", "configs/backbone/dense.yaml", "--model.vision=configs/vision/pixels.yaml")
    config = parse(monkeypatch, "--config", "configs/tiny.yaml", "--config", str(mine), *options)
    assert config.trainer.max_steps == 7
    assert config.data.init_args.steering == str(PACKAGE / "configs/steering/crafter.yaml")
    assert config.model.init_args.backbone.init_args.feed_forward.class_path.endswith("DenseFeedForward")
    assert config.model.init_args.vision.class_path.endswith("Pixels")


def test_in_the_repository_paths_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a checkpoint's configuration is of use on another machine."""
    monkeypatch.chdir(ROOT)
    config = parse(monkeypatch, "--config", "configs/lab.yaml")
    assert config.data.init_args.steering == "configs/steering/crafter.yaml"
