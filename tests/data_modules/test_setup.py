"""What a run opens, when, and where what it makes is kept."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import datasets
import pytest

from data_modules.dataset import DocumentFormat
from data_modules.index.keys import cache_folder
from data_modules.mixing.loader_config import LoaderConfig
from data_modules.reading import cached
from data_modules.text import TextDataModule
from lit_mm.mistake import MissingFile, Mistake


def write(path: Path, count: int = 3) -> Path:
    path.write_text("".join(json.dumps({"text": f"the cat {i}"}) + "\n" for i in range(count)))
    return path


def write_array(lines: Path, count: int) -> None:
    """In place of lines a JSON array, which `datasets` reads."""
    lines.unlink(missing_ok=True)
    lines.with_suffix(".json").write_text(json.dumps([{"text": f"the cat {i}"} for i in range(count)]))


def module(folder: Path, format: DocumentFormat, **loader: object) -> TextDataModule:
    path = str(format.tokenizer.file)
    return TextDataModule(
        train=str(folder / "train.json*"),
        val=str(folder / "val.json*"),
        tokenizer=path,
        loader=LoaderConfig(workers=0, **loader),  # type: ignore[arg-type]
        image_size=32,
        tokens_per_frame=4,
    )


def test_validation_needs_its_own_data_alone(tmp_path: Path, document_format: DocumentFormat) -> None:
    write(tmp_path / "val.jsonl")
    data = module(tmp_path, document_format)
    data.setup("validate")
    (loader,) = data.val_dataloader()
    assert sum(len(batch.row_numbers) for batch in loader) > 0
    with pytest.raises(MissingFile, match="data.train"):
        data.setup("fit")
    write(tmp_path / "train.jsonl", 7)
    data.setup("fit")
    assert [len(data.datasets[split]["text"]) for split in ("train", "val")] == [7, 3]


def test_predictions_need_no_data(tmp_path: Path, document_format: DocumentFormat) -> None:
    data = module(tmp_path, document_format)
    data.setup("predict")
    assert data.format is not None


def test_the_cache_is_where_it_is_said(tmp_path: Path, document_format: DocumentFormat) -> None:
    for name in ("train", "val"):
        write(tmp_path / f"{name}.jsonl")
    before = datasets.config.HF_DATASETS_CACHE
    module(tmp_path, document_format, cache=str(tmp_path / "cache")).setup("fit")
    assert list((tmp_path / "cache").rglob("*.safetensors"))
    assert not list(cache_folder(None).rglob("*.*"))
    for name in ("train", "val"):
        write_array(tmp_path / f"{name}.jsonl", 3)
    module(tmp_path, document_format, cache=str(tmp_path / "cache")).setup("fit")
    assert list((tmp_path / "cache").rglob("*.arrow"))
    assert not list(before.rglob("*.arrow"))


def test_what_is_lost_is_a_share() -> None:
    with pytest.raises(Mistake, match=r"data.loader.max_lost is 5; it is a share, from 0 to 1"):
        LoaderConfig(max_lost=5)


def slow(batch: dict[str, list[str]], notes: str) -> dict[str, list]:
    """Writes down that it was called."""
    with open(notes, "a") as file:
        file.write("called\n")
    return {"text": batch["text"]}


def make(words: datasets.Dataset, notes: str) -> None:
    cached.mapped(words, slow, {"notes": notes}, words.features, "slow")


def test_of_processes_that_need_the_same_one_makes_it(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl")
    words = datasets.load_dataset("json", data_files=str(tmp_path / "a.jsonl"), split="train")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=make, args=(words, str(tmp_path / "notes"))) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert (tmp_path / "notes").read_text() == "called\n"


@pytest.mark.parametrize("rows", [10, 50])
def test_what_takes_long_shows_how_far_it_is(
    rows: int,
    tmp_path: Path,
    document_format: DocumentFormat,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cached, "LARGE", 20)
    for name in ("train", "val"):
        write_array(tmp_path / f"{name}.jsonl", rows)
    module(tmp_path, document_format).setup("fit")
    assert ("data.train: tokenizing" in capfd.readouterr().err) == (rows > 20)
