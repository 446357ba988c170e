"""A sample of every kind of document in a layout of the field, and a run on the mixture of all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from data_modules.action_dataset import ActionVideoDataset
from data_modules.dataset import DocumentDataset
from data_modules.index.configuration import read_configuration
from data_modules.reading.frame_keys import frame_keys
from data_modules.recipes.everything import everything
from lit_mm.cli import main
from lit_mm.tokenizer import Tokenizer
from tests.helpers.mixed import check_rows
from tests.helpers.program import ROOT, SMALL, kill_when, run, start
from tests.helpers.recorder import read

CONFIG = ROOT / "configs/data/everything.yaml"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to work in, with the data where the configuration looks for them."""
    folder = tmp_path_factory.mktemp("everything")
    everything(folder / "data/everything", pictures=24, texts=24, maps=2, workers=1)
    return folder


@pytest.mark.slow
def test_every_source_is_read(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    settings = ["--data.loader.workers=0", "--data.image_size=64", "--data.tokens_per_frame=16"]
    data = read_configuration(str(CONFIG), settings).data
    data.setup("fit")
    for split in ("train", "val"):
        opened = data.open(split)  # type: ignore[arg-type]
        assert opened.keys() == data.mixture.weights.keys()
        assert all(len(dataset) for dataset in opened.values()), split
    seen: set[str] = set()
    for _, batch in zip(range(12), data.training_rows(), strict=False):
        assert not batch.skipped
        seen |= {batch.sources[i] for i in batch.source_ids.unique().tolist() if i >= 0}
    assert seen == data.mixture.weights.keys()
    check_rows(data)
    shown = {name: frames_of(opened[name]) for name in ("action_video", "lerobot_2", "lerobot_3", "recon", "nwm")}
    for name, (frames, pictures) in shown.items():
        assert frames == shown["action_video"][0], name
        assert (pictures - shown["action_video"][1]).abs().mean() < 3, "JPEGs and videos lose a little"


def frames_of(dataset: DocumentDataset) -> tuple[list[int], torch.Tensor]:
    """Frames of each episode, and some pictures of the first."""
    assert isinstance(dataset, ActionVideoDataset)
    counts = [len(dataset.table.index(row)) for row in range(len(dataset.table))]
    keys = frame_keys(0, np.array([0, counts[0] // 2, counts[0] - 1])).tolist()
    return counts, torch.stack(dataset.pictures.read(keys)).float()


@pytest.mark.slow
def test_a_run_learns_from_all_of_them(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    size = -(-Tokenizer("data/everything/tokenizer.json").vocab_size // 128) * 128
    assert f"--model.vocab_size {size}" in CONFIG.read_text()
    arguments = ["fit", "--config=configs/tiny.yaml", "--data=configs/data/everything.yaml", *SMALL]
    arguments += ["--data.loader.row_length=512", "--data.loader.workers=0", f"--model.vocab_size={size}"]
    main([*arguments, "--trainer.max_steps=2", "--trainer.limit_val_batches=1", f"--trainer.logger.save_dir={made}"])


@pytest.mark.long
def test_a_killed_run_on_all_of_them_goes_on_as_the_unbroken_one(made: Path, tmp_path: Path) -> None:
    for folder in ("data", "source"):
        (tmp_path / folder).mkdir()
        for file in (ROOT / "configs" / folder).glob("*.yaml"):
            content = file.read_text().replace("data/everything", str(made / "data/everything"))
            (tmp_path / folder / file.name).write_text(content)

    def arguments(folder: Path, *more: str) -> list[str]:
        folder.mkdir(exist_ok=True)
        return [
            *("fit", "--config=configs/tiny.yaml", f"--data={tmp_path / 'data' / CONFIG.name}", *SMALL),
            *("--data.loader.row_length=512", "--model.vocab_size=2048", "--trainer.max_steps=8", *more),
            *("--trainer.limit_val_batches=0", f"--trainer.logger.save_dir={folder}"),
            *("--trainer.callbacks+=tests.helpers.recorder.Recorder", f"--trainer.callbacks.folder={folder}"),
            *("--trainer.callbacks+=ModelCheckpoint", f"--trainer.callbacks.dirpath={folder}"),
            *("--trainer.callbacks.every_n_train_steps=4", "--trainer.callbacks.filename={step}"),
        ]

    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    run(*arguments(unbroken))
    process = start(*arguments(killed))
    kill_when(process, lambda: (killed / "rank0.jsonl").exists() and len(read(killed)[0]) >= 6)
    run(*arguments(killed, f"--ckpt_path={killed / 'step=4.ckpt'}"))
    assert len(read(unbroken)[0]) == 8
    assert read(killed) == read(unbroken)
