"""Judges that are shown the truth find all of it right, and those that are shown something else find less."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torchvision.io import decode_image

from callbacks.evaluation.lab.answers import Answers
from callbacks.evaluation.lab.describes import Describes
from callbacks.evaluation.lab.draws import Draws
from callbacks.evaluation.lab.imagines import Imagines
from callbacks.evaluation.lab.judge import LabJudge
from callbacks.evaluation.lab.obeys import Obeys
from callbacks.pages.results_table import ResultsTable
from data_modules.action_video import ActionVideoDataModule
from data_modules.base import DocumentDataModule
from data_modules.mixing.loader_config import LoaderConfig
from data_modules.text import TextDataModule
from lit_mm.generation.decoding import Decoder
from lit_mm.mistake import MissingFile, Mistake
from lit_mm.module import LitMultimodal
from lit_mm.vision import Pixels
from tests.helpers.oracle import Oracle
from tests.helpers.program import ROOT
from tests.helpers.small_model import small_model
from tests.helpers.small_world import write_small_world

TOKENIZER = str(ROOT / "data/tiny/tokenizer.json")
HORIZONS = (1, 2, 4)
SAID = ("draws/facts", "draws/pictures", "describes/precision", "describes/recall", "describes/descriptions")
DONE = ("obeys/keys", "obeys/blocked", "obeys/triples", "obeys/sentences", "obeys/walk_to")
SEEN = tuple(
    f"imagines/{what}@{steps}" for what in ("tiles", "seen", "tiles/new", "tiles/creatures") for steps in HORIZONS
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "world"
    write_small_world(path)
    return path


def walks_of(folder: Path) -> ActionVideoDataModule:
    walks = str(folder / "action_video/test")
    return ActionVideoDataModule(
        train=walks, val=walks, actions="told", context=2, horizon=1, targets=1, image_size=64, tokens_per_frame=16,
        loader=LoaderConfig(row_length=128, rows=1, workers=0, val_documents=1),
        tokenizer=TOKENIZER, steering=str(ROOT / "configs/steering/crafter.yaml"),
    )  # fmt: skip


def trained() -> LitMultimodal:
    """As far as the velocity head shows."""
    module = small_model()
    module.configure_model()
    torch.nn.init.ones_(module.model.velocity_head.linear.weight)
    return module


def in_place_of_the_model(monkeypatch: pytest.MonkeyPatch, oracle: Oracle) -> None:
    monkeypatch.setattr(Decoder, "generate", lambda decoder, requests: oracle.generate(decoder, requests))
    for judge in ("imagines", "obeys"):
        monkeypatch.setattr(f"callbacks.evaluation.lab.{judge}.roll_out", oracle.roll_out)


def judges_of(data: str) -> list[LabJudge]:
    return [Draws(data), Describes(data), Answers(data), Imagines(data, horizons=HORIZONS), Obeys(data, cases=25)]


def judged(run: Path, module: LitMultimodal, data: DocumentDataModule, judges: list[LabJudge]) -> dict[str, float]:
    trainer = Trainer(
        accelerator="cpu", logger=False, callbacks=[*judges, ResultsTable()], default_root_dir=run,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.validate(module, data, verbose=False)
    (line,) = (run / "validation.jsonl").read_text().splitlines()
    found = json.loads(line)
    return {name.removeprefix("val/lab/"): value for name, value in found.items() if name.startswith("val/lab/")}


def test_the_truth_is_found_all_right(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    oracle = Oracle(folder)
    in_place_of_the_model(monkeypatch, oracle)
    found = judged(tmp_path, trained(), walks_of(folder), judges_of(str(folder)))
    for name in (*SAID, *DONE, *SEEN, "answers/right", "draws/reencoded_tiles", "draws/reencoded_facts"):
        assert found[name] == 1.0, name
    assert found["draws/unreadable_tiles"] == found["describes/outside_grammar"] == 0.0
    assert found["draws/facts_cases"] == 24
    assert found["obeys/sentences_cases"] == 25
    assert {f"obeys/sentences/{way}" for way in ("left", "right", "up", "down", "still")} <= found.keys()
    assert 0.1 < found["answers/frequent"] < 1
    assert found["imagines/seen_copied@1"] < 1, "a copied frame is not what follows"
    assert found["imagines/tiles/new_copied@4"] < 0.7
    assert "│ lab          │ draws/facts" in (shown := capsys.readouterr().out)
    assert "100.0 % [86.2, 100.0] n=24" in shown
    for part in ("draws/facts/side", "answers/right/count", "obeys/keys/W", "imagines/tiles/new@1"):
        assert part in found
        assert part not in shown, "only in the file, and where a run is shown again"
    for main in ("imagines/seen@1", "obeys/walk_to_by_chance", "describes/recall_another"):
        assert f"│ {main} " in shown
    for judge in ("draws", "describes", "answers", "imagines", "obeys"):
        sheet = decode_image(str(tmp_path / "lab" / judge / "step_0000000.png"))
        assert sheet.float().std() > 20


def test_what_is_true_of_something_else_is_found_wrong(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = Oracle(folder, later=1)
    in_place_of_the_model(monkeypatch, oracle)
    found = judged(tmp_path, trained(), walks_of(folder), judges_of(str(folder)))
    assert found["draws/facts"] < 0.7
    assert found["draws/pictures"] < 0.3
    assert found["describes/precision"] < 0.7
    assert found["answers/right"] < 0.6
    for name in DONE:  # some keys do the same where both ways are blocked
        assert found[name] < 0.6, name
    assert found["imagines/seen@1"] < 0.8
    assert found["draws/reencoded_tiles"] == 1.0, "which is the tokenizer's alone"


def test_a_model_that_never_drew_is_asked_for_texts_alone(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = str(folder)
    judges: list[LabJudge] = [Draws(data), Imagines(data), Obeys(data), Answers(data, cases=3)]
    found = judged(tmp_path, small_model(), walks_of(folder), judges)
    assert {name.split("/")[0] for name in found} == {"answers"}
    assert found["answers/right_cases"] == 3
    said = [r.message for r in caplog.records if "never trained to draw a picture" in r.message]
    assert [message.split()[0].rpartition(".")[2] for message in said] == ["Draws", "Imagines", "Obeys"]


def test_walks_are_left_out_without_a_source_of_actions(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "text.txt").write_text("a text")
    text = str(tmp_path / "text.txt")
    data = TextDataModule(
        train=text, val=text, tokenizer=TOKENIZER, loader=LoaderConfig(row_length=128, rows=1, workers=0),
        image_size=64, tokens_per_frame=16,
    )  # fmt: skip
    assert judged(tmp_path, trained(), data, [Imagines(str(folder)), Obeys(str(folder))]) == {}
    assert sum("`data` has no source of video with actions" in r.message for r in caplog.records) == 2


def test_what_cannot_be_judged_is_said_before_a_fit(folder: Path, tmp_path: Path) -> None:
    trainer, module = Trainer(accelerator="cpu", logger=False), small_model()
    with pytest.raises(MissingFile, match=r"no folder '.*nowhere/drawing/test' .* data_modules.recipes crafter --out"):
        Draws(str(tmp_path / "nowhere")).setup(trainer, module, "fit")
    with pytest.raises(MissingFile, match="reading/hidden"):
        Describes(str(folder), split="hidden").setup(trainer, module, "validate")
    module.vision = Pixels(32, 16)
    with pytest.raises(Mistake, match="judges pictures of 64 pixels a side, .* but the model's have 32"):
        Answers(str(folder)).setup(trainer, module, "fit")
    for stream, judge in (("reading", Describes), ("questions", Answers)):
        spoilt = shutil.copytree(folder, tmp_path / stream)
        lines = (spoilt / stream / "test/metadata.jsonl").read_text()
        (spoilt / stream / "test/metadata.jsonl").write_text(
            lines.replace("Y", "x").replace("H", "x").replace("A", "x")
        )
        with pytest.raises(Mistake, match=rf"{stream}/test/metadata.jsonl' is not for this version's judges \(.*'x"):
            judge(str(spoilt)).setup(trainer, small_model(), "fit")
    with pytest.raises(Mistake, match="cases is 0"):
        Draws(str(folder), cases=0)
    with pytest.raises(Mistake, match="horizons"):
        Imagines(str(folder), horizons=(0, 1))
