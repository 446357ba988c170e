"""A kind of data alone, on the command line: it takes what its source takes, and what every run takes."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningDataModule

from data_modules.action_video import ActionVideoDataModule, ActionVideoSource
from data_modules.conversation import ConversationDataModule, ConversationSource
from data_modules.game.simulated import SimulatedDataModule
from data_modules.image_text import ImageTextDataModule, ImageTextSource
from data_modules.interleaved import InterleavedDataModule, InterleavedSource
from data_modules.mixing.mixture import Mixture
from data_modules.mixture import MixtureDataModule
from data_modules.text import TextDataModule, TextSource
from data_modules.video import VideoDataModule, VideoSource
from lit_mm.cli import LitCLI, main
from lit_mm.command_line.parser import ConfigParser
from lit_mm.mistake import Mistake
from tests.helpers.program import ROOT, SMALL

pytestmark = pytest.mark.usefixtures("build_once")
RUN = {"tokenizer", "loader", "image_size", "tokens_per_frame", "prompts", "steering", "template"}
SIMULATED = {"maps", "cases", "keys", "steps", "gamma", "game_seed"}
KINDS: dict[type, tuple[type, set[str]]] = {
    TextDataModule: (TextSource, set()),
    ImageTextDataModule: (ImageTextSource, set()),
    VideoDataModule: (VideoSource, set()),
    ActionVideoDataModule: (ActionVideoSource, set()),
    ConversationDataModule: (ConversationSource, set()),
    InterleavedDataModule: (InterleavedSource, set()),
    SimulatedDataModule: (ActionVideoSource, SIMULATED),
    MixtureDataModule: (Mixture, set()),
}


def path_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


@pytest.mark.parametrize("kind", KINDS)
def test_it_takes_what_its_source_takes(kind: type) -> None:
    parser = ConfigParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data")
    given = ["--data.train=x"]
    if kind is MixtureDataModule:
        given = [f"--data.sources.one={path_of(TextSource)}", "--data.sources.one.train=x", "--data.weights.one=1"]
    data = parser.parse_args([f"--data={path_of(kind)}", *given]).data
    source, more = KINDS[kind]
    assert data.class_path == path_of(kind)
    assert data.init_args.as_dict().keys() == RUN | more | inspect.signature(source).parameters.keys()
    if kind is MixtureDataModule:
        (one,) = data.init_args.sources.values()
        assert one.init_args.as_dict().keys() == inspect.signature(TextSource).parameters.keys()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            ["--data.sources.text", path_of(TextDataModule)],
            f"data.sources.text is '{path_of(TextDataModule)}', which is no Source; give {path_of(TextSource)}",
        ),
        (
            ["--data", path_of(VideoSource)],
            f"data is '{path_of(VideoSource)}', which is no LightningDataModule; give {path_of(VideoDataModule)}",
        ),
        (["--data.sources.text.loader.rows", "3"], "data.sources.text.loader.rows is unknown"),
    ],
)
def test_the_one_in_place_of_the_other_is_told(given: list[str], told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(Mistake) as raised:
        LitCLI(args=["fit", "--config=configs/tiny.yaml", *given])
    assert str(raised.value).startswith(told)


@pytest.mark.slow
def test_it_trains_and_goes_on_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = [f"--data={path_of(TextDataModule)}", "--data.train=data/tiny/text/train", "--data.val=data/tiny/text/val"]
    common = [*SMALL, "--data.loader.workers=0", "--data.tokenizer=data/tiny/tokenizer.json"]
    common += [f"--trainer.logger.save_dir={tmp_path}", "--trainer.callbacks+=callbacks.checkpoints.Checkpoints"]
    common += ["--trainer.callbacks.every_n_train_steps=1", "--trainer.callbacks.save_last=link"]
    common = ["--config=configs/tiny.yaml", *text, *common]
    main(["fit", *common, "--trainer.max_steps=2"])
    (last,) = {file.resolve() for file in tmp_path.rglob("last.ckpt")}
    place = torch.load(last, weights_only=False)["TextDataModule"]["plan"]
    assert place["sources"].keys() == {"text"}
    assert place["rows"] == 4
    main(["validate", f"--ckpt_path={last}"])
    main(["fit", f"--ckpt_path={last}", "--trainer.max_steps=3"])
    (later,) = {file.resolve() for file in tmp_path.rglob("last.ckpt")}
    assert torch.load(later, weights_only=False)["TextDataModule"]["plan"]["rows"] == 6
