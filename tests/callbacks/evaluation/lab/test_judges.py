"""Judges that are shown the truth find all of it right, and those that are shown something else find less."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torchvision.io import decode_image

from callbacks.evaluation.lab.answers import Answers
from callbacks.evaluation.lab.describes import Describes
from callbacks.evaluation.lab.draws import Draws
from callbacks.evaluation.lab.imagines import Imagines
from callbacks.evaluation.lab.obeys import Obeys
from callbacks.pages.results_table import ResultsTable
from data_modules.action_video import ActionVideoDataModule
from data_modules.base import LoaderConfig
from lit_mm.generation.decoding import Decoder
from lit_mm.mistake import MissingFile, Mistake
from lit_mm.module import LitMultimodal
from tests.helpers.oracle import Oracle
from tests.helpers.program import ROOT
from tests.helpers.small_model import small_model
from tests.helpers.small_world import write_small_world

HORIZONS = (1, 2, 4)


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
        tokenizer=str(ROOT / "data/tiny/tokenizer.json"), steering=str(ROOT / "configs/steering/crafter.yaml"),
    )  # fmt: skip


def trained() -> LitMultimodal:
    """As far as the velocity head shows."""
    module = small_model()
    module.configure_model()
    torch.nn.init.ones_(module.model.velocity_head.linear.weight)
    return module


def judged(folder: Path, run: Path, module: LitMultimodal | None = None) -> dict[str, float]:
    data = str(folder)
    judges = [Draws(data), Describes(data), Answers(data), Imagines(data, horizons=HORIZONS), Obeys(data, cases=60)]
    trainer = Trainer(
        accelerator="cpu", logger=False, callbacks=[*judges, ResultsTable()], default_root_dir=run,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    module = module or trained()
    trainer.validate(module, walks_of(folder), verbose=False)
    (line,) = (run / "validation.jsonl").read_text().splitlines()
    found = json.loads(line)
    return {name.removeprefix("val/lab/"): value for name, value in found.items() if name.startswith("val/lab/")}


SAID = ("draws/facts", "draws/pictures", "describes/precision", "describes/recall", "describes/descriptions")
DONE = ("obeys/keys", "obeys/blocked", "obeys/triples", "obeys/sentences", "obeys/walk_to")
SEEN = tuple(f"imagines/{what}@{steps}" for what in ("tiles", "seen", "new", "creatures") for steps in HORIZONS)


def test_the_truth_is_found_all_right(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    oracle = Oracle(folder)
    monkeypatch.setattr(Decoder, "generate", lambda decoder, requests: oracle.generate(decoder, requests))
    found = judged(folder, tmp_path)
    for name in (*SAID, *DONE, *SEEN, "answers/right", "draws/reencoded_tiles", "draws/reencoded_facts"):
        assert found[name] == 1.0, name
    assert found["draws/unreadable_tiles"] == found["describes/outside_grammar"] == 0.0
    assert found["draws/facts_cases"] == 24
    assert found["obeys/sentences_cases"] == 60
    assert {f"obeys/sentences_{way}" for way in ("left", "right", "up", "down", "still")} <= found.keys()
    assert 0.1 < found["answers/frequent"] < 1
    assert found["imagines/seen_copied@1"] < 1, "a copied frame is not what follows"
    assert found["imagines/new_copied@4"] < 0.7
    assert "│ lab          │ draws/facts" in (shown := capsys.readouterr().out)
    assert "100.0 % [86.2, 100.0] n=24" in shown
    for judge in ("draws", "describes", "answers", "imagines", "obeys"):
        sheet = decode_image(str(tmp_path / "lab" / judge / "step_0000000.png"))
        assert sheet.shape[0] == 3 and sheet.float().std() > 20


def test_what_is_true_of_something_else_is_found_wrong(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = Oracle(folder, later=1)
    monkeypatch.setattr(Decoder, "generate", lambda decoder, requests: oracle.generate(decoder, requests))
    found = judged(folder, tmp_path)
    assert found["draws/facts"] < 0.7
    assert found["draws/pictures"] < 0.2
    assert found["describes/precision"] < 0.7
    assert found["answers/right"] < 0.6
    for name in DONE:
        assert found[name] < 0.1, name
    assert found["imagines/seen@1"] < 0.8
    assert found["draws/reencoded_tiles"] == 1.0, "which is the tokenizer's alone"
