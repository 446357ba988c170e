"""Mistakes end the program before the first step, with one sentence that names the key or file and what is right."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lit_mm.cli import main
from tests.helpers.program import ROOT, SMALL

pytestmark = pytest.mark.usefixtures("build_once")
EXPERTS = ["--model.backbone=configs/backbone/experts.yaml", *(a for a in SMALL if a.startswith("--model.backbone"))]
EXPERTS.remove("--model.backbone.feed_forward.hidden_dim=128")


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
        (["--data.sources.text.train=nowhere"], ["data.sources.text.train: ", "nowhere"]),
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
        (["--data.loader.rows=0"], ["data.loader.rows is 0; use 1 or more"]),
        (["--trainer.strategy=dpp"], ["trainer.strategy is 'dpp'; did you mean 'ddp'?"]),
        (["--trainer.log_every_n_steps=0"], ["trainer.log_every_n_steps is 0; use 1 or more"]),
        (["--model.text_weight=-1"], ["model.text_weight is -1.0; use 0 or more"]),
        (["--model.flow_weight=-0.5"], ["model.flow_weight is -0.5; use 0 or more"]),
        (["--trainer.val_check_interval=0"], ["trainer.val_check_interval is 0; use a number of steps"]),
        (["--model.optimizer.lr=-1"], ["model.optimizer: AdamW refuses its arguments: Invalid learning rate: -1.0"]),
        (
            [
                "--trainer.callbacks+=EarlyStopping",
                "--trainer.callbacks.monitor=val/lss",
                "--trainer.num_sanity_val_steps=1",
            ],
            ["EarlyStopping has monitor 'val/lss', which is not measured; did you mean 'val/loss'? there are val/"],
        ),
        (["--trainer.devices=x"], ["trainer: ", "devices", "int > 0"]),
        (
            ["--trainer.callbacks+=callbacks.weight_averaging.WeightAveraging", "--trainer.callbacks.decay=2"],
            ["the decay of WeightAveraging is 2.0; use a number from 0 to 1"],
        ),
        (["--model.vocab_size=100"], ["model.vocab_size", "100", "8192"]),
        (["--model.vision.image_size=60"], ["60", "16"]),
        (["--data.tokenizer=configs/tiny.yaml"], ["configs/tiny.yaml", "tokenizer.json"]),
        (["--data.tokenizer=nowhere.json"], ["data.tokenizer: no file 'nowhere.json'"]),
        (["--model.backbone.depht=3"], ["depht"]),
        (["--model.backbone.heads=3"], ["heads"]),
        (["--model.backbone.attention_backend=block"], ["attention_backend is block; it takes one of", "'blocks'"]),
        (["--trainer.profiler=nowhere.yaml"], ["profiler", "simple"]),
        (["--trainer.precision=bf16-true"], ["trainer.precision is 'bf16-true'", "use one of 32-true, bf16-mixed"]),
        (["--trainer.strategy=fsdp"], ["trainer.strategy is 'fsdp'", "use 'fsdp2'"]),
        (["--trainer.gradient_clip_algorithm=value"], ["gradient_clip_algorithm is 'value'", "use 'norm'"]),
        (
            [*EXPERTS, "--model.backbone.feed_forward.active=40"],
            ["feed_forward.active is 40", "experts: 32 only 30", "41 or more"],
        ),
        (
            [*EXPERTS, "--model.backbone.feed_forward.granularity=64"],
            ["granularity is 64", "width is 4", "multiple of 8"],
        ),
        ([*EXPERTS, "--model.backbone.feed_forward.shared=all"], ["shared", "all", "modality"]),
    ],
    ids=lambda value: value[-1].lstrip("-") if value[-1].startswith("--") else None,
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


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("model: [1, 2\ntrainer: {", ["wrong.yaml' is not YAML (line 2: expected ',' or ']'"]),
        ("trainer:\n\tmax_steps: 1", ["wrong.yaml' is not YAML (line 2: found character"]),
        ("trainer: {default_root_dir: caf\xe9}", ["wrong.yaml' is not YAML in UTF-8"]),
        ("- 1", ["wrong.yaml' holds no keys; write some"]),
        (
            "trainer: {max_steps: '${nowhere.at.all}'}",
            ["has a ${…} in trainer.max_steps that leads", "'nowhere.at.all' not found"],
        ),
    ],
    ids=["open bracket", "tab", "latin 1", "list", "interpolation"],
)
def test_a_file_that_is_no_configuration_is_named(
    content: str,
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_bytes(content.encode("latin-1" if "\xe9" in content else "utf-8"))
    said = complaint(capsys, monkeypatch, tmp_path, f"--config={file}")
    assert said.startswith("error: ")
    assert "\n" not in said
    for word in words:
        assert word in said


@pytest.mark.parametrize("first", ["fit", "validate"])
@pytest.mark.parametrize(
    ("model", "other", "words"),
    [
        ([], "--model.backbone.dim=32", ["64", "32"]),
        (  # of 32 and of 40 experts, two are shared
            EXPERTS,
            "--model.backbone.feed_forward.experts=40",
            ["'model.backbone.layers.0.feed_forward.router.weight' is (30, 64)", "model's is (38, 64)"],
        ),
    ],
    ids=["width", "experts"],
)
def test_a_checkpoint_of_another_shape_is_refused(
    model: list[str],
    other: str,
    words: list[str],
    first: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(ROOT)
    saving = [
        f"--trainer.logger.save_dir={tmp_path}",
        "--trainer.callbacks+=ModelCheckpoint",
        f"--trainer.callbacks.dirpath={tmp_path}",
        "--trainer.callbacks.every_n_train_steps=1",
    ]
    main(["fit", "--config=configs/tiny.yaml", *SMALL, *model, *saving, "--trainer.max_steps=1"])
    (checkpoint,) = tmp_path.glob("*.ckpt")
    said = complaint(capsys, monkeypatch, tmp_path, *model, f"--ckpt_path={checkpoint}", other, first=first)
    assert "Traceback" not in said
    for word in ["the checkpoint's", *words]:
        assert word in said


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
    pictures: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    reading = [f"--data.sources.image_text.train={pictures}", "--data.loader.on_error=skip"]
    said = complaint(capsys, monkeypatch, tmp_path, *reading, "--trainer.max_steps=20")
    assert "image_text" in said
    assert "more than 1 %" in said
    assert caplog.text.count(f"a document of 'image_text' is left out: '{pictures}/") == 1


@pytest.mark.parametrize("first", ["fit", "validate", "predict"])
def test_ids_of_another_text_tokenizer_are_refused(
    first: str, trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of the same size, with two words exchanged."""
    tokenizer = json.loads((ROOT / "data/tiny/tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    one, other = list(vocabulary)[300:302]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    file = tmp_path / "tokenizer.json"
    file.write_text(json.dumps(tokenizer))
    data = ["--data=configs/data/image_text.yaml", f"--data.tokenizer={file}"]  # few texts
    said = complaint(capsys, monkeypatch, tmp_path, f"--ckpt_path={trained}", *data, first=first)
    assert "trained on the ids of another text tokenizer" in said


@pytest.mark.parametrize("first", ["fit", "validate", "predict"])
@pytest.mark.parametrize(("path", "what"), [("nowhere.ckpt", "does not exist"), ("tests", "is no complete checkpoint")])
def test_a_checkpoint_that_is_none_is_named(
    first: str,
    path: str,
    what: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    said = complaint(capsys, monkeypatch, tmp_path, f"--ckpt_path={path}", first=first)
    assert said.startswith(f"error: --ckpt_path: '{path}' {what}; give a ")


def test_a_checkpoint_of_other_code_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "other.pt"
    torch.save({"state_dict": {"weight": torch.zeros(2)}, "epoch": 3}, file)
    said = complaint(capsys, monkeypatch, tmp_path, f"--ckpt_path={file}")
    assert "other.pt' was not written by lit-mm" in said
