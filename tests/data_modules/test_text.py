"""Text of every file format becomes the same documents; nothing of it is lost, and broken lines are named."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_modules.dataset import BrokenFile, DocumentFormat, Draw
from data_modules.reading.files import Tolerance
from data_modules.text import TextDataset, TextSource
from lit_mm.mistake import MissingFile, Mistake

TEXTS = ["the cat sat on the mat", "Ein Bär aß Öl – 日本語 🐈", "one\ntwo\n\nthree  four\t", "a red cube " * 40, "x"]


def write_jsonl(path: Path, texts: list[str], key: str = "text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"name": "n", key: t}) + "\n" for t in texts), encoding="utf-8")
    return path


def write_txt(folder: Path, texts: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, text in enumerate(texts):
        (folder / f"{i}.txt").write_text(text, encoding="utf-8")
    return folder


def write_parquet(path: Path, texts: list[str]) -> Path:
    pq.write_table(pa.table({"id": list(range(len(texts))), "text": texts}), path)
    return path


def load(
    path: object, format: DocumentFormat, on_error: str = "raise", window: int = 512, column: str = "text"
) -> TextDataset:
    module = TextSource(str(path), window=window, column=column)
    module.tolerance = Tolerance(on_error)
    dataset = module.dataset("train", "speeches", format)
    assert dataset is not None
    return dataset


def ids_of(dataset: TextDataset) -> list[list[int]]:
    return [dataset.document(Draw(i, 0, 0)).segments[0].ids.tolist() for i in range(len(dataset))]


def texts_of(dataset: TextDataset, format: DocumentFormat) -> list[str]:
    """Glue the windows together and split at the delimiters, with the tokenizer alone."""
    t = format.tokenizer
    texts: list[list[int]] = []
    for i in [i for window in ids_of(dataset) for i in window]:
        if i == t.bos_id:
            texts.append([])
        elif i != t.eos_id:
            texts[-1].append(i)
    return [t.decode(ids) for ids in texts]


@pytest.mark.parametrize("kind", ["jsonl", "txt", "parquet", "folder of jsonl", "pattern"])
def test_every_format_gives_the_texts_back(kind: str, tmp_path: Path, document_format: DocumentFormat) -> None:
    path = {
        "jsonl": lambda: write_jsonl(tmp_path / "a.jsonl", TEXTS),
        "txt": lambda: write_txt(tmp_path / "txt", TEXTS),
        "parquet": lambda: write_parquet(tmp_path / "a.parquet", TEXTS),
        "folder of jsonl": lambda: (
            [
                write_jsonl(tmp_path / "d" / "1.jsonl", TEXTS[:2]),
                write_jsonl(tmp_path / "d" / "deeper" / "2.jsonl", TEXTS[2:]),
            ][0].parent
        ),
        "pattern": lambda: (
            [
                write_jsonl(tmp_path / "part-0.jsonl", TEXTS[:2]),
                write_jsonl(tmp_path / "part-1.jsonl", TEXTS[2:]),
                write_jsonl(tmp_path / "other.jsonl", ["not this"]),
            ][0].parent
            / "part-*.jsonl"
        ),
    }[kind]()
    dataset = load(path, document_format, window=16)
    assert texts_of(dataset, document_format) == TEXTS


def test_windows(tmp_path: Path, document_format: DocumentFormat) -> None:
    dataset = load(write_jsonl(tmp_path / "a.jsonl", TEXTS), document_format, window=16)
    windows = ids_of(dataset)
    t = document_format.tokenizer
    assert dataset.lengths.dtype == np.int32
    assert [len(w) for w in windows] == dataset.lengths[0].tolist()
    assert max(map(len, windows)) <= 16
    assert min(map(len, windows)) > 1, "a window of one token has nothing to predict"
    assert [i for w in windows for i in w].count(t.bos_id) == len(TEXTS)
    assert all(t.bos_id not in w[1:] and t.eos_id not in w[:-1] for w in windows)
    assert windows[0][0] == t.bos_id
    assert windows[-1][-1] == t.eos_id


def test_a_document_is_read_and_may_be_split(tmp_path: Path, document_format: DocumentFormat) -> None:
    dataset = pickle.loads(pickle.dumps(load(write_jsonl(tmp_path / "a.jsonl", TEXTS), document_format)))
    document = dataset.document(Draw(0, 0, 0))
    assert dataset.splittable
    assert document.source == "speeches"
    assert document.segments[0].loss
    t = document_format.tokenizer
    assert document.segments[0].ids.tolist() == [t.bos_id, *t.encode(TEXTS[0]), t.eos_id]


def test_bytes_per_token(tmp_path: Path, document_format: DocumentFormat) -> None:
    dataset = load(write_jsonl(tmp_path / "a.jsonl", TEXTS), document_format, window=16)
    tokens = sum(len(document_format.tokenizer.encode(t)) for t in TEXTS)
    assert dataset.bytes_per_token == pytest.approx(sum(len(t.encode()) for t in TEXTS) / tokens)


def test_changed_file_or_window_is_not_taken_from_the_cache(tmp_path: Path, document_format: DocumentFormat) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ["the cat"])
    load(path, document_format)
    write_jsonl(path, ["a blue ball"])
    assert texts_of(load(path, document_format), document_format) == ["a blue ball"]
    assert len(load(path, document_format, window=3)) > 1


def break_line(path: Path, number: int, content: bytes) -> Path:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number - 1] = content + b"\n"
    path.write_bytes(b"".join(lines))
    return path


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"text": "caf\xe9"}', "is not UTF-8"),
        (b'{"text": "cut', "is not a JSON object"),
        (b'{"text": null}', "has no string in 'text'"),
        (b'{"text": 7}', "has no string in 'text'"),
        (b'{"name": "no text", "tex": 1}', "has no column 'text'; there are name and tex$"),
        (b"7", "is not a JSON object$"),
    ],
)
def test_broken_line(
    content: bytes, reason: str, tmp_path: Path, document_format: DocumentFormat, caplog: pytest.LogCaptureFixture
) -> None:
    texts = [f"text number {i}" for i in range(200)]
    path = break_line(write_jsonl(tmp_path / "a.jsonl", texts), 17, content)
    with pytest.raises(BrokenFile, match=f"line 17 {reason}") as caught:
        load(path, document_format)
    assert caught.value.path == str(path)
    with caplog.at_level(logging.WARNING):
        dataset = load(path, document_format, on_error="skip")
    assert texts_of(dataset, document_format) == texts[:16] + texts[17:]
    assert dataset.skipped_at_setup == 1
    assert "1 of 200" in caplog.text


def test_a_cut_gz_is_named_and_read_up_to_there(tmp_path: Path, document_format: DocumentFormat) -> None:
    texts = [f"{i} {hashlib.sha256(str(i).encode()).hexdigest()}" for i in range(3000)]
    for name in ("0", "1"):
        plain = write_jsonl(tmp_path / name, texts)
        (tmp_path / f"{name}.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    file = tmp_path / "1.jsonl.gz"
    content = file.read_bytes()
    half = len(content) // 2
    file.write_bytes(content[:half] + bytes(200) + content[half + 200 :])
    with pytest.raises(BrokenFile, match=r"1.jsonl.gz' broke while being read: (after )?line \d+ "):
        load(tmp_path / "*.gz", document_format)
    file.write_bytes(content[:half])
    with pytest.raises(BrokenFile, match=r"after line \d+ it cannot be read") as caught:
        load(tmp_path / "*.gz", document_format)
    assert caught.value.path == str(file)
    dataset = load(tmp_path / "*.gz", document_format, "skip")
    read = texts_of(dataset, document_format)
    assert read == texts + texts[: len(read) - 3000]
    assert 3500 < len(read) < 5500
    assert dataset.skipped_at_setup == 1


def test_the_count_of_skipped_lines_survives_the_cache(tmp_path: Path, document_format: DocumentFormat) -> None:
    path = break_line(write_jsonl(tmp_path / "a.jsonl", ["the cat"] * 200), 3, b"\xff")
    assert [load(path, document_format, "skip").skipped_at_setup for _ in range(2)] == [1, 1]


def test_too_many_broken_lines(tmp_path: Path, document_format: DocumentFormat) -> None:
    path = break_line(write_jsonl(tmp_path / "a.jsonl", ["the cat"] * 50), 3, b"\xff")
    with pytest.raises(Mistake, match=r"data.train: 1 of 50 .* more than 1 %.*line 3"):
        load(path, document_format, on_error="skip")


@pytest.mark.parametrize("kind", ["txt", "parquet"])
def test_broken_file(kind: str, tmp_path: Path, document_format: DocumentFormat) -> None:
    for i in range(120):
        write_parquet(tmp_path / f"{i:03}.parquet", ["a cat"]) if kind == "parquet" else None
        (tmp_path / f"{i:03}.txt").write_text("a cat") if kind == "txt" else None
    broken = tmp_path / f"007.{kind}"
    broken.write_bytes(b"\xff\xfe\xfa" if kind == "txt" else broken.read_bytes()[:-30])
    with pytest.raises(BrokenFile) as caught:
        load(tmp_path, document_format)
    assert caught.value.path == str(broken)
    dataset = load(tmp_path, document_format, on_error="skip")
    assert dataset.skipped_at_setup == 1
    assert texts_of(dataset, document_format) == ["a cat"] * 119


def test_rows_of_different_shapes_are_fine(tmp_path: Path, document_format: DocumentFormat) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one", "meta": 1}\n{"text": "two", "meta": {"a": [1]}}\n{"text": "three"}\n')
    assert texts_of(load(path, document_format), document_format) == ["one", "two", "three"]


def test_bad_input_is_said_in_one_sentence(tmp_path: Path, document_format: DocumentFormat) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingFile, match=r"data.train: there is no file or folder '.*nothing'"):
        load(tmp_path / "nothing", document_format)
    with pytest.raises(MissingFile, match=r"data.train: '.*empty' holds no .jsonl, .* or .txt.gz file"):
        load(tmp_path / "empty", document_format)
    with pytest.raises(Mistake, match=r"no column 'body'; there are name and text"):
        load(path, document_format, column="body")
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "n.parquet")
    with pytest.raises(Mistake, match="has a column 'text' of int64, but a string"):
        load(tmp_path / "n.parquet", document_format)
    write_parquet(tmp_path / "mixed.parquet", TEXTS)
    with pytest.raises(Mistake, match="there are JSON and Parquet files"):
        load(tmp_path, document_format)
    with pytest.raises(Mistake, match="holds no text"):
        load(write_jsonl(tmp_path / "b" / "a.jsonl", ["", ""]), document_format)
    with pytest.raises(Mistake, match="is not a Hub name"):
        load("hf://nobody", document_format)
    with pytest.raises(Mistake, match="window: 2 tokens"):
        TextSource("x", window=2)


def test_no_validation_split(document_format: DocumentFormat) -> None:
    assert TextSource("x").dataset("val", "speeches", document_format) is None


def test_hub_without_network_is_one_sentence(document_format: DocumentFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise ConnectionError("Couldn't reach\n the Hub")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    with pytest.raises(Mistake, match=r"'hf://a/b' cannot be loaded from the Hugging Face Hub: Couldn't reach the"):
        load("hf://a/b", document_format)
