"""Mistakes end the program before the first step, with one sentence that names the key or file and what is right."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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


WITH_EXPERTS = [a for a in SMALL if "hidden_dim" not in a]
WITH_EXPERTS.insert(0, "--model.backbone=configs/backbone/experts.yaml")


def experts(capsys: pytest.CaptureFixture[str], *args: str, first: str = "fit") -> str:
    """What the program says last when it refuses a mixture of experts."""
    with pytest.raises(SystemExit) as exit_:
        main([first, "--config=configs/tiny.yaml", *WITH_EXPERTS, "--trainer.max_steps=1", *args])
    assert exit_.value.code not in (0, None)
    return exit_.value.code if isinstance(exit_.value.code, str) else capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (
            ["--model.backbone.feed_forward.active=40"],
            ["feed_forward.active is 40", "experts: 32 only 30", "41 or more"],
        ),
        (["--model.backbone.feed_forward.granularity=64"], ["granularity is 64", "width is 4", "multiple of 8"]),
        (["--model.backbone.feed_forward.shared=all"], ["shared", "all", "modality"]),
    ],
)
def test_experts_that_cannot_hold_are_refused(
    args: list[str],
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(ROOT)
    said = experts(capsys, *args, f"--trainer.logger.save_dir={tmp_path}")
    for word in words:
        assert word in said
    assert "Traceback" not in said


def test_a_checkpoint_with_another_number_of_experts_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    logs = f"--trainer.logger.save_dir={tmp_path}"
    saving = [
        "--trainer.callbacks+=ModelCheckpoint",
        f"--trainer.callbacks.dirpath={tmp_path}",
        "--trainer.callbacks.every_n_train_steps=1",
    ]
    main(["fit", "--config=configs/tiny.yaml", *WITH_EXPERTS, logs, *saving, "--trainer.max_steps=1"])
    (checkpoint,) = tmp_path.glob("*.ckpt")
    more = "--model.backbone.feed_forward.experts=40"
    for first in ("fit", "validate"):
        said = experts(capsys, logs, f"--ckpt_path={checkpoint}", more, first=first)
        # of 32 and of 40 experts, two are shared
        assert "the checkpoint's 'model.backbone.layers.0.feed_forward.router.weight' is (30, 64)" in said
        assert "the configured model's is (38, 64)" in said
        assert "Traceback" not in said


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A picture folder of which one file in five is cut in the middle."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    lines = []
    for i in range(10):
        file = folder / f"{i}.png"
        noise = np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(file)
        if i % 5 == 3:
            file.write_bytes(file.read_bytes()[:4000])
        lines.append(json.dumps({"file_name": file.name, "caption": f"picture {i}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_breaks_while_being_read_is_named(
    workers: int,
    pictures: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    reading = [f"--data.sources.image_text.train={pictures}", f"--data.loader.workers={workers}"]
    said = complaint(capsys, monkeypatch, tmp_path, *reading, "--trainer.max_steps=20")
    assert said.startswith("error: '")
    assert f"{pictures}/3.png" in said or f"{pictures}/8.png" in said
    assert "broke while being read" in said


def test_broken_files_may_be_skipped_but_not_too_many(
    pictures: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    reading = [f"--data.sources.image_text.train={pictures}", "--data.loader.on_error=skip"]
    said = complaint(capsys, monkeypatch, tmp_path, *reading, "--trainer.max_steps=20")
    assert "image_text" in said
    assert "more than 1 %" in said
