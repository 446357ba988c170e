"""Texts of JSON Lines and Parquet are tokenized part by part, and are the same whatever the parts."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import random
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_modules.dataset import BrokenFile, DocumentFormat, Draw
from data_modules.index import text_files
from data_modules.index.__main__ import main
from data_modules.index.keys import cache_folder
from data_modules.reading import files
from data_modules.reading.files import Tolerance
from data_modules.reading.row_files import read_rows
from data_modules.text import TextDataModule, TextDataset
from lit_mm.mistake import Mistake
from lit_mm.tokenizer import Tokenizer
from tests.helpers.program import ROOT


def texts(count: int, seed: int = 0) -> list[str]:
    """Texts of one to 400 words, some of them the same."""
    rng = random.Random(seed)
    words = ["the", "cat", "sat", "Bär", "日本語", "🐈", "line\nbreak", 'quote "']
    return [" ".join(rng.choices(words, k=rng.choice([1, 5, 20, 400]))) for _ in range(count)]


def lines(these: list[str]) -> bytes:
    return "".join(json.dumps({"text": one}, ensure_ascii=False) + "\n" for one in these).encode()


def load(path: object, format: DocumentFormat, on_error: str = "raise", **options: Any) -> TextDataset:
    module = TextDataModule(str(path), **options)
    module.tolerance = Tolerance(on_error, 0.2)
    dataset = module.dataset("train", "web", format)
    assert dataset is not None
    return dataset


def read(dataset: TextDataset, format: DocumentFormat) -> list[str]:
    """The texts, glued together from their windows."""
    t = format.tokenizer
    ids = [i for n in range(len(dataset)) for i in dataset.document(Draw(n, 0, 0)).segments[0].ids.tolist()]
    bounds = np.flatnonzero(np.array(ids) == t.bos_id).tolist()
    return [t.decode(ids[a + 1 : b - 1]) for a, b in zip(bounds, [*bounds[1:], len(ids)], strict=True)]


def write(kind: str, folder: Path, these: list[str]) -> Path:
    """A file of each kind; compressed ones of two pieces, as tools that append to them leave them."""
    half, content = len(these) // 2, {"text": these, "id": list(range(len(these)))}
    if kind == "parquet":
        pq.write_table(pa.table(content), folder / "a.parquet", row_group_size=7)
        return folder / "a.parquet"
    zstd = pa.Codec("zstd")
    pack = {"jsonl": bytes, "json.gz": gzip.compress, "jsonl.zst": lambda b: zstd.compress(b, asbytes=True)}[kind]
    file = folder / f"a.{kind}"
    file.write_bytes(pack(lines(these[:half])) + pack(lines(these[half:])))
    return file


@pytest.mark.parametrize("size", [150, 1000, 1 << 27])
@pytest.mark.parametrize("kind", ["jsonl", "json.gz", "jsonl.zst", "parquet"])
def test_parts(
    kind: str, size: int, tmp_path: Path, document_format: DocumentFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However a file is cut into parts, every text is in one of them."""
    monkeypatch.setattr(text_files, "PART", size)
    these = texts(12 if size == 150 else 40)
    dataset = load(write(kind, tmp_path, these), document_format, window=16)
    assert read(dataset, document_format) == these
    tokens = [len(document_format.tokenizer.encode(one)) for one in these]
    assert int(dataset.lengths[0].sum()) == sum(tokens) + 2 * len(these)
    assert dataset.longest == int(dataset.lengths[0].max()) <= 16
    assert dataset.bytes_per_token == pytest.approx(sum(len(one.encode()) for one in these) / sum(tokens))


def test_windows_are_as_even_as_can_be(tmp_path: Path, document_format: DocumentFormat) -> None:
    """The reference cuts each text on its own; the places of 300 windows and more are sums of lengths."""
    these = texts(60)
    (tmp_path / "a.jsonl").write_bytes(lines(these[:31]))
    (tmp_path / "b.jsonl").write_bytes(b"")
    (tmp_path / "c.jsonl").write_bytes(lines(these[31:]))
    dataset = pickle.loads(pickle.dumps(load(tmp_path, document_format, window=37)))
    t, at = document_format.tokenizer, 0
    for one in these:
        whole = [t.bos_id, *t.encode(one), t.eos_id]
        count = -(-len(whole) // 37)
        for i in range(count):
            wanted = whole[len(whole) * i // count : len(whole) * (i + 1) // count]
            assert dataset.document(Draw(at, 0, 0)).segments[0].ids.tolist() == wanted
            assert dataset.lengths[0, at] == len(wanted)
            at += 1
    assert at == len(dataset) > 300


def test_windows_longer_than_two_bytes_can_say(tmp_path: Path, document_format: DocumentFormat) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(["x" * 100_000, "the cat"]))
    dataset = load(tmp_path, document_format, window=90_000)
    assert dataset.lengths[0].tolist()[:2] == [50001, 50001]
    whole = load(tmp_path, document_format, window=200_000)
    assert whole.lengths[0, 0] == 100_002
    assert read(whole, document_format) == ["x" * 100_000, "the cat"]


def made() -> set[str]:
    return {f.name for f in (cache_folder(None) / "files").rglob("*.safetensors")}


def test_another_window_tokenizes_nothing(tmp_path: Path, document_format: DocumentFormat) -> None:
    for n in range(3):
        (tmp_path / f"{n}.jsonl").write_bytes(lines(texts(5, n)))
    load(tmp_path, document_format)
    before = made()
    assert len(before) == 3
    load(tmp_path, document_format, window=9)
    assert made() == before
    os.utime(tmp_path / "1.jsonl")
    load(tmp_path, document_format)
    assert len(made() - before) == 1
    assert len(load(tmp_path, document_format, column="text")) > 0


def test_an_index_of_another_tokenizer_is_not_used(tmp_path: Path, document_format: DocumentFormat) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(texts(5)))
    load(tmp_path, document_format)
    other = DocumentFormat(Tokenizer(ROOT / "data/tiny/tokenizer.json"), 32, 4)
    assert read(load(tmp_path, other), other) == read(load(tmp_path, document_format), document_format) == texts(5)
    assert len(made()) == 2


def test_an_edited_reader_reads_again(
    tmp_path: Path, document_format: DocumentFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(texts(5)))
    load(tmp_path, document_format)
    before = made()
    monkeypatch.setattr("data_modules.index.text_index._AT_ONCE", 17)
    load(tmp_path, document_format)
    assert len(made() - before) == 1


@pytest.mark.parametrize("kind", ["jsonl", "json.gz", "jsonl.zst", "parquet"])
def test_what_is_broken_is_named_with_its_line_in_the_file(
    kind: str, tmp_path: Path, document_format: DocumentFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "PART", 200)
    these = texts(20)
    file = write(kind, tmp_path, these)
    if kind == "parquet":
        pq.write_table(pa.table({"text": [*these[:16], None, *these[16:]]}), file, row_group_size=3)
        said = r"row 16 has nothing in column 'text'"
    else:
        content = lines(these[:16]) + b'{"text": "caf\xe9"}\n' + lines(these[16:])
        zstd = pa.Codec("zstd")
        pack = {"jsonl": bytes, "json.gz": gzip.compress, "jsonl.zst": lambda b: zstd.compress(b, asbytes=True)}[kind]
        file.write_bytes(pack(content))
        said = "line 17 is not UTF-8"
    with pytest.raises(BrokenFile, match=said):
        load(file, document_format)
    dataset = load(file, document_format, "skip")
    assert read(dataset, document_format) == these
    assert dataset.skipped_at_setup == 1


def test_zeros_behind_the_end_of_a_gz_are_nothing(tmp_path: Path, document_format: DocumentFormat) -> None:
    """As tapes and block devices leave them, also between two pieces; gzip's own program reads over them."""
    these = texts(20)
    padded = gzip.compress(lines(these[:9])) + bytes(512) + gzip.compress(lines(these[9:])) + bytes(10240)
    (tmp_path / "a.jsonl.gz").write_bytes(padded)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"the cat") + bytes(10240))
    assert read(load(tmp_path / "a.jsonl.gz", document_format), document_format) == these
    assert [row for row, _ in read_rows(tmp_path / "b.txt.gz", ("text",))] == [["the cat"]]
    (tmp_path / "a.jsonl.gz").write_bytes(padded + b"no gzip")
    with pytest.raises(BrokenFile, match="after line 20 it cannot be read: Not a gzipped file"):
        load(tmp_path / "a.jsonl.gz", document_format)


def test_a_cut_zst_is_read_up_to_there(tmp_path: Path, document_format: DocumentFormat) -> None:
    these = [f"{i} {random.Random(i).random()}" for i in range(20_000)]
    file = write("jsonl.zst", tmp_path, these)
    content = file.read_bytes()
    file.write_bytes(content[: 3 * len(content) // 4])
    with pytest.raises(BrokenFile, match=r"after line \d+ it cannot be read: Truncated compressed stream"):
        load(file, document_format)
    found = read(load(file, document_format, "skip"), document_format)
    assert found == these[: len(found)]
    assert 10_000 < len(found) < 20_000


def test_rows_of_a_parquet_file_that_is_cut_are_guessed(tmp_path: Path, document_format: DocumentFormat) -> None:
    for n in range(10):
        pq.write_table(pa.table({"text": texts(50)}), tmp_path / f"{n}.parquet")
    broken = tmp_path / "3.parquet"
    broken.write_bytes(broken.read_bytes()[:-30])
    assert load(tmp_path, document_format, "skip").skipped_at_setup == pytest.approx(50, rel=0.3)


def test_half_a_surrogate_pair_is_no_text(tmp_path: Path, document_format: DocumentFormat) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(texts(9)) + b'{"text": "\\ud800"}\n')
    with pytest.raises(BrokenFile, match="line 10 has half of a character in 'text'"):
        load(tmp_path, document_format)


def test_a_json_array_is_read_as_a_table(tmp_path: Path, document_format: DocumentFormat) -> None:
    these = texts(4)
    (tmp_path / "a.json").write_text(json.dumps([{"text": one} for one in these], indent=1))
    assert read(load(tmp_path, document_format), document_format) == these


def test_a_byte_order_mark_and_blank_lines(tmp_path: Path, document_format: DocumentFormat) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + lines(["the cat"]) + b"\n  \r\n" + lines(["", "x"])[:-1])
    dataset = load(tmp_path, document_format)
    assert read(dataset, document_format) == ["the cat", "x"]
    assert dataset.skipped_at_setup == 0


def test_a_misspelt_column_is_said_before_anything_is_read(tmp_path: Path, document_format: DocumentFormat) -> None:
    for kind in ("jsonl", "parquet"):
        (tmp_path / kind).mkdir()
        write(kind, tmp_path / kind, texts(4))
        with pytest.raises(Mistake, match=r"data\.train: '.*' has no column 'body'; there are .*text"):
            load(tmp_path / kind, document_format, column="body")
    assert made() == set()


def test_texts_of_a_storage(tmp_path: Path, document_format: DocumentFormat) -> None:
    these = texts(12)
    memory = fsspec.filesystem("memory")
    for kind in ("jsonl", "json.gz", "jsonl.zst", "parquet"):
        memory.pipe(f"/texts/{kind}/a.{kind}", write(kind, tmp_path, these).read_bytes())
        assert read(load(f"memory://texts/{kind}", document_format), document_format) == these


def test_an_array_of_jobs(tmp_path: Path, document_format: DocumentFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs share one large file; a run finds all of it made."""
    monkeypatch.setattr(text_files, "PART", 300)
    (tmp_path / "a.jsonl").write_bytes(lines(texts(40)))
    config = tmp_path / "run.yaml"
    tokenizer = document_format.tokenizer.file
    config.write_text(
        f"data: {{class_path: data_modules.text.TextDataModule, init_args: {{tokenizer: {tokenizer}, "
        f"train: {tmp_path / 'a.jsonl'}}}}}"
    )
    for part in ("1/3", "2/3", "3/3"):
        main([str(config), "--part", part])
    before = made()
    assert len(before) > 10
    assert read(load(tmp_path / "a.jsonl", document_format), document_format) == texts(40)
    assert made() == before


def test_nothing_is_said_of_files_that_are_whole(
    tmp_path: Path, document_format: DocumentFormat, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(texts(4)))
    load(tmp_path, document_format, "skip")
    assert not [record for record in caplog.records if record.name == files.__name__]
