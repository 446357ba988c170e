"""Every YAML under configs/ is valid against the real signatures."""

from pathlib import Path
from typing import Any

import pytest

from lit_mm.cli import LitCLI
from tests.helpers.program import ROOT

CONFIGS = ROOT / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))
RUNS = (".", "paper", "rae", "vae", "siglip", "experiment")  # folders whose files are whole runs
COMPLETE = sorted(p for folder in RUNS for p in (CONFIGS / folder).glob("*.yaml"))
PARTS = {
    "backbone": "--model.backbone",
    "vision": "--model.vision",
    "model": "--model",
    "data": "--data",
    "source": "--data.sources.text",
    "trainer": "--trainer",
    "callbacks": "--trainer.callbacks",
    "logger": "--trainer.logger",
    "profiler": "--trainer.profiler",
    "prompts": "--data.prompts",
    "steering": "--data.steering",
}
pytestmark = pytest.mark.usefixtures("build_once")
NOT_ALONE = {"loader.yaml": "--data.loader", "mixture.yaml": "--data"}


def parse(monkeypatch: pytest.MonkeyPatch, args: list[str], folder: Path = ROOT) -> Any:
    """The configuration that `lit-mm` would run in a folder, without running it."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(LitCLI, "before_instantiate_classes", lambda self: (_ for _ in ()).throw(Parsed(self.config)))
    with pytest.raises(Parsed) as parsed:
        LitCLI(args=args)
    return parsed.value.config[args[0]]


class Parsed(Exception):
    def __init__(self, config: Any) -> None:
        self.config = config


def command(file: Path) -> list[str]:
    if file in COMPLETE:
        alone = file.name == "tiny.yaml" or file.parent.name == "paper"
        first = [] if alone else [f"--config={CONFIGS / 'tiny.yaml'}"]
        return [*first, f"--config={file}"]
    option = NOT_ALONE.get(file.name, PARTS[file.parent.name])
    return [f"--config={CONFIGS / 'tiny.yaml'}", f"{option}={file}"]


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(CONFIGS)))
def test_parses(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parse(monkeypatch, ["predict" if file.parent.name == "prompts" else "fit", *command(file)])


@pytest.mark.parametrize("subcommand", ["validate", "predict"])
@pytest.mark.parametrize("file", [CONFIGS / "tiny.yaml", CONFIGS / "lab.yaml"], ids=lambda p: p.stem)
def test_other_subcommands_take_what_fit_takes(file: Path, subcommand: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parse(monkeypatch, [subcommand, *command(file)])


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(CONFIGS)))
def test_says_how_it_is_run(file: Path) -> None:
    comments = [line for line in file.read_text().splitlines() if line.startswith("#")]
    assert any("lit-mm " in line for line in comments)


def test_one_line_swaps_reach_their_target(monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse(
        monkeypatch,
        [
            "fit",
            "--config=configs/tiny.yaml",
            "--data=configs/data/text_only.yaml",
            "--model.backbone=configs/backbone/dense.yaml",
            "--model.vision=configs/vision/pixels.yaml",
            "--model.backbone.dim=128",
            "--data.loader.rows=3",
            "--model.optimizer.lr=0.5",
        ],
    )
    model, data = config.model.init_args, config.data
    assert data.class_path.endswith("TextDataModule")
    assert data.init_args.loader.rows == 3
    assert model.backbone.init_args.dim == 128
    assert model.backbone.init_args.feed_forward.class_path.endswith("DenseFeedForward")
    assert model.vision.class_path.endswith("Pixels")
    assert model.optimizer.init_args.lr == 0.5


def test_the_paper_s_configurations_are_what_it_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """The auxiliary balance loss is on, pairs have a direction each, half of the tokens is text."""
    config = parse(monkeypatch, ["fit", "--config=configs/paper/experts.yaml"])
    assert config.model.init_args.backbone.init_args.feed_forward.init_args.balance_weight > 0
    weights, sources = config.data.init_args.weights, config.data.init_args.sources
    assert sum(weights.values()) == pytest.approx(1)
    assert weights["text"] == 0.5
    directions = {name: s.init_args.caption_first for name, s in sources.items() if "ImageText" in s.class_path}
    assert directions == {"described": 0, "drawn": 1}


def test_an_autoencoder_of_the_paper_sees_random_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    """As RAE's code trains: resized to 384, and 256 cut out anywhere."""
    config = parse(monkeypatch, ["fit", "--config=configs/rae/siglip2_base.yaml"])
    crop = config.data.init_args.crop
    assert (crop.rule, crop.short_side, config.model.init_args.rae.image_size) == ("random", 384, 256)


def test_changing_one_weight_keeps_the_other_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse(monkeypatch, ["fit", "--config=configs/tiny.yaml", "--data.weights.text=0.9"])
    assert config.data.init_args.weights["text"] == 0.9
    assert set(config.data.init_args.sources) == {"text", "image_text", "video", "action_video"}
