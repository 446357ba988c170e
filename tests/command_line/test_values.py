"""What a value given on the command line replaces, and what it leaves as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from jsonargparse import Namespace

from lit_mm.cli import LitCLI
from tests.helpers.program import ROOT

MINE = """
class_path: data_modules.mixture.MixtureDataModule
init_args:
  tokenizer: data/tiny/tokenizer.json
  loader: {row_length: 300}
  weights: {mine: 1.0}
  sources:
    mine: {class_path: data_modules.text.TextSource, init_args: {train: a, val: b}}
"""
EARLIER = """
data:
  class_path: data_modules.mixture.MixtureDataModule
  init_args: {prompts: configs/prompts/tiny.yaml, steering: configs/steering/turning.yaml}
"""

pytestmark = pytest.mark.usefixtures("build_once")


class Parsed(Exception):
    pass


def parse(monkeypatch: pytest.MonkeyPatch, *args: str) -> Namespace:
    """The configuration that a fit would run, without running it."""

    def stop(cli: LitCLI) -> None:
        raise Parsed(cli.config.fit, cli.parser.dump(cli.config, skip_none=False))

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["lit-mm"])
    monkeypatch.setattr(LitCLI, "before_instantiate_classes", stop)
    with pytest.raises(Parsed) as parsed:
        LitCLI(args=["fit", "--config=configs/tiny.yaml", *args])
    config, dumped = parsed.value.args
    config.dumped = yaml.safe_load(dumped)["fit"]
    return config


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text(MINE)
    return file


def test_data_of_a_file_replaces_the_data_of_earlier_files(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = tmp_path / "earlier.yaml"
    earlier.write_text(EARLIER)
    args = [f"--config={earlier}", f"--data={mine}", "--data.loader.rows=8"]
    data = parse(monkeypatch, *args).data.init_args
    assert data.prompts is None
    assert data.steering is None
    assert list(data.sources) == ["mine"]
    assert data.weights == {"mine": 1.0}
    assert (data.loader.rows, data.loader.row_length, data.loader.val_documents) == (8, 300, None)


def test_files_given_by_config_are_merged(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = tmp_path / "later.yaml"
    later.write_text(yaml.safe_dump({"data": yaml.safe_load(MINE)}))
    data = parse(monkeypatch, f"--config={later}").data.init_args
    assert list(data.sources) == ["mine"]
    assert (data.loader.rows, data.loader.row_length) == (4, 300), (
        "what the later file does not say is that of the earlier"
    )


def test_a_part_of_the_model_and_one_source_are_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    adamw = tmp_path / "adamw.yaml"
    adamw.write_text("class_path: torch.optim.AdamW\ninit_args: {lr: 0.5}")
    config = parse(monkeypatch, f"--model.optimizer={adamw}", "--data.sources.text=configs/source/video.yaml")
    optimizer = config.model.init_args.optimizer.init_args
    assert (optimizer.lr, optimizer.weight_decay, optimizer.fused) == (0.5, 0.01, None)
    sources = config.data.clone(with_meta=False).init_args.sources  # where a file was named is no part of it
    assert list(sources) == ["text", "image_text", "video", "action_video"]
    assert sources["text"] == sources["video"]


def test_a_file_without_a_class_changes_what_it_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "loader.yaml"
    file.write_text("rows: 9")
    loader = parse(monkeypatch, f"--data.loader={file}").data.init_args.loader
    assert (loader.rows, loader.row_length) == (9, 512)


@pytest.mark.parametrize("callbacks", ["default", "long_run"])
def test_one_callback_is_changed_by_its_name(callbacks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [f"--trainer.callbacks=configs/callbacks/{callbacks}.yaml"]
    before = parse(monkeypatch, *given).dumped["trainer"]["callbacks"]
    changes = ["--trainer.callbacks.Checkpoints.every_n_train_steps=100", "--trainer.callbacks.Samples.documents", "2"]
    after = parse(monkeypatch, *given, *changes).dumped["trainer"]["callbacks"]
    for callback in before:
        if callback["class_path"].endswith(".Checkpoints"):
            callback["init_args"]["every_n_train_steps"] = 100
        if callback["class_path"].endswith(".Samples"):
            callback["init_args"]["documents"] = 2
    assert after == before


def test_callbacks_that_were_added_are_changed_by_name_too_and_the_last_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    args = [
        "--trainer.callbacks+=callbacks.weight_averaging.WeightAveraging",
        "--trainer.callbacks.decay=0.5",
        "--trainer.callbacks.Checkpoints.save_top_k=3",
        "--trainer.callbacks.WeightAveraging.decay=0.75",
    ]
    config = parse(monkeypatch, *args)
    last = config.trainer.callbacks[-1]
    assert (last.class_path, last.init_args.decay) == ("callbacks.weight_averaging.WeightAveraging", 0.75)
    saved = tmp_path / "config.yaml"  # what a run writes is run again as it was
    saved.write_text(yaml.safe_dump({k: v for k, v in config.dumped.items() if k != "config"}))
    assert parse(monkeypatch, f"--config={saved}").dumped["trainer"] == config.dumped["trainer"]
