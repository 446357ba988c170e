"""Mistakes end the program before the first step, with one sentence that names the key or file and what is right."""

from pathlib import Path

import pytest

from lit_mm.cli import main
from tests.helpers.program import ROOT, SMALL


def complaint(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *args: str, first: str = "fit"
) -> str:
    """What the program says last when it is run with these arguments and refuses."""
    monkeypatch.chdir(ROOT)
    logs = f"--trainer.logger.save_dir={tmp_path}"
    with pytest.raises(SystemExit) as exit_:
        main([first, "--config=configs/tiny.yaml", *SMALL, logs, "--trainer.max_steps=1", *args])
    said = exit_.value.code if isinstance(exit_.value.code, str) else capsys.readouterr().err
    assert exit_.value.code not in (0, None)
    return said


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--data.sources.text.train=nowhere"], ["nowhere"]),
        (["--data.sources.text.column=body"], ["body", "text"]),
        (["--data.sources.image_text.caption_column=title"], ["title", "caption"]),
        (["--data.weights.speech=0.5"], ["data.weights", "speech", "text"]),
        (["--data.weights.text=-1"], ["data.weights.text", "-1"]),
        (
            [f"--data.weights.{s}=0" for s in ("text", "image_text", "video", "action_video")],
            ["data.weights", "positive"],
        ),
        (["--data.loader.row_length=16"], ["data.loader.row_length", "16", "frame"]),
        (["--data.loader.row_length=64"], ["data.loader.row_length", "64", "video"]),
        (["--model.vocab_size=100"], ["model.vocab_size", "100", "8192"]),
        (["--model.vision.image_size=60"], ["60", "16"]),
        (["--data.tokenizer=configs/tiny.yaml"], ["configs/tiny.yaml", "tokenizer.json"]),
        (["--data.tokenizer=nowhere.json"], ["nowhere.json"]),
        (["--model.backbone.depht=3"], ["depht"]),
        (["--model.backbone.heads=3"], ["heads"]),
    ],
    ids=lambda value: value[0].lstrip("-") if value[0].startswith("--") else None,
)
def test_one_sentence_names_the_mistake(
    args: list[str],
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    said = complaint(capsys, monkeypatch, tmp_path, *args)
    for word in words:
        assert word in said
    assert "Traceback" not in said


def test_a_checkpoint_of_another_shape_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    logs = f"--trainer.logger.save_dir={tmp_path}"
    saving = [
        "--trainer.callbacks+=ModelCheckpoint",
        f"--trainer.callbacks.dirpath={tmp_path}",
        "--trainer.callbacks.every_n_train_steps=1",
    ]
    main(["fit", "--config=configs/tiny.yaml", *SMALL, logs, *saving, "--trainer.max_steps=1"])
    (checkpoint,) = tmp_path.glob("*.ckpt")
    said = complaint(
        capsys, monkeypatch, tmp_path, f"--ckpt_path={checkpoint}", "--model.backbone.dim=32", first="validate"
    )
    assert "64" in said
    assert "32" in said
    assert "checkpoint" in said
