"""What `Use a checkpoint` of docs/getting-started.md says: validate and predict run on one."""

import json
from pathlib import Path

import pytest
from PIL import Image

from lit_mm.cli import main
from tests.docs.pages import commands
from tests.helpers.program import ROOT

COMMANDS = commands(ROOT / "docs" / "getting-started.md")


def run_on(checkpoint: Path, command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's line for this subcommand, with this checkpoint and a log folder of its own."""
    monkeypatch.chdir(ROOT)
    line = next(c for c in COMMANDS if c[0] == command and c[2].endswith(".ckpt"))
    args = [str(checkpoint) if arg.endswith(".ckpt") else arg for arg in line]
    main([*args, f"--trainer.logger.save_dir={folder}", f"--trainer.callbacks+={WRITERS[command]}"])


WRITERS = {
    "validate": "callbacks.pages.results_table.ResultsTable",
    "predict": "callbacks.pages.prediction_writer.PredictionWriter",
}


def test_validate_runs(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_on(trained, "validate", tmp_path, monkeypatch)
    (file,) = tmp_path.rglob("validation.jsonl")
    results = json.loads(file.read_text())
    assert results["step"] == 3
    for source in ("text", "image_text", "video", "action_video"):
        assert results[f"val/{source}/text_loss"] > 0
    assert 0 < results["val/text/bits_per_byte"] < 4
    assert results["val/action_video/flow_loss"] > 0
    assert list(tmp_path.rglob("config_validate.yaml"))


def test_predict_answers_every_prompt(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_on(trained, "predict", tmp_path, monkeypatch)
    (file,) = tmp_path.rglob("answers.jsonl")
    answers = [json.loads(line) for line in file.read_text().splitlines()]
    assert {answer["wanted"] for answer in answers} == {"image", "text", "frames"}
    for answer in answers:
        if answer["wanted"] == "text":
            assert isinstance(answer["answer"], str)
            continue
        for name in answer["answer"]:
            with Image.open(file.parent / name) as picture:
                assert picture.size == (64, 64)
                if name.endswith(".gif"):
                    assert picture.n_frames == 4 + len(answer["actions"])
    with pytest.raises(SystemExit, match="already holds answers"):
        main(
            [
                "predict",
                f"--ckpt_path={trained}",
                "--data.prompts=configs/prompts/tiny.yaml",
                f"--trainer.logger.save_dir={tmp_path}",
                "--trainer.callbacks+=callbacks.pages.prediction_writer.PredictionWriter",
                f"--trainer.callbacks.folder={file.parent}",
            ]
        )
