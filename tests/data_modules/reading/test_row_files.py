"""Readers that do not differ: the same texts are the same rows in JSON Lines, a list, CSV and Parquet, and a broken row
is named whatever happens to it.
"""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_modules.dataset import BrokenFile, DocumentFormat
from data_modules.image_text import ImageTextSource
from data_modules.reading.files import Tolerance, stamp
from data_modules.reading.records import load_records
from data_modules.reading.row_files import read_rows
from data_modules.text import TextSource
from lit_mm.mistake import Mistake

TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=12)
ROWS = st.lists(TEXTS, min_size=1, max_size=6)
GUESSED = ["None", "NA", "null", "nan", "n/a", "2023", "true", "1e5", "#N/A", "-"]  # what pandas takes for other values


def write(folder: Path, texts: list[str]) -> dict[str, Path]:
    """The same texts in every format."""
    lines = [json.dumps({"id": 1, "text": text}) for text in texts]
    files = {name: folder / f"rows.{name}" for name in ("jsonl", "windows.jsonl", "jsonl.gz", "json", "csv")}
    files["jsonl"].write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    files["windows.jsonl"].write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    files["jsonl.gz"].write_bytes(gzip.compress("\n".join(lines).encode()))
    files["json"].write_text(json.dumps([json.loads(line) for line in lines], indent=1), encoding="utf-8")
    for name, options in {"csv": {}, "semicolon.csv": {"delimiter": ";"}, "tab.csv": {"delimiter": "\t"}}.items():
        files[name] = folder / f"rows.{name}"
        with files[name].open("w", encoding="utf-8-sig", newline="") as file:
            csv.writer(file, **options).writerows([["id", " text "], *([1, text] for text in texts)])
    return files


@settings(max_examples=40)
@given(texts=ROWS)
@example(texts=GUESSED)
def test_the_same_texts_are_the_same_rows_in_every_format(
    texts: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    for name, file in write(tmp_path_factory.mktemp("same"), texts).items():
        rows = list(read_rows(file, ["text"]))
        assert rows == [([text], None) for text in texts], name


BREAKS = {
    "half a character": ('{"text": "a \\ud83d"}', "line 2 holds half of a character"),
    "null": ('{"text": null}', "line 2 has no string in 'text'"),
    "another key": ('{"body": "a"}', "line 2 has no column 'text'; there are body"),
    "a number": ("7", "line 2 is not a JSON object"),
    "cut": ('{"text": "a', "line 2 is not a JSON object"),
    "deep": ("[" * 100_000, "line 2 is not a JSON object"),
    "digits": ('{"text": ' + "1" * 5000 + "}", "line 2 is not a JSON object"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_line_is_named_and_the_others_are_read(name: str, tmp_path: Path) -> None:
    line, words = BREAKS[name]
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n' + line + '\n{"text": "three"}\n', encoding="utf-8")
    one, (nothing, why), three = read_rows(tmp_path / "a.jsonl", ["text"])
    assert (one, nothing, three) == ((["one"], None), [None], (["three"], None))
    assert why is not None
    assert why.startswith(words)


def test_so_is_a_broken_entry_of_a_list(tmp_path: Path) -> None:
    content = b'[{"text": "one"}, {"text": null}, {"text": "caf\xe9"}, {"text": "\\ud83d"}, {"text": "five"}, {"te'
    (tmp_path / "a.json").write_bytes(content)
    reasons = [why for _, why in read_rows(tmp_path / "a.json", ["text"])]
    assert reasons[0] is reasons[4] is None
    assert reasons[1] == "entry 2 has no string in 'text'"
    assert reasons[2] == "entry 3 is not UTF-8"
    assert str(reasons[3]).startswith("entry 4 holds half of a character")
    assert str(reasons[5]).endswith("what follows is not read")
    assert len(reasons) == 6


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"file_name,caption\n1.png,a,b\n", "line 2 has 3 cells, but the header names 2 columns"),
        (b"file_name,caption\n,a\n", "line 2 has no string in 'file_name'"),
        (b"file_name,caption\n1.png,caf\xe9\n", "line 2 is not UTF-8 in 'caption'"),
        (b"file,caption\n1.png,a\n", "line 2 has no column 'file_name'; there are file and caption"),
        (
            "file_name,caption\n1.png,a\n".encode("utf-16"),
            "line 2 has no column 'file_name'; there are \\udcff\\udcfef\0",
        ),
        (b"file_name,file_name,caption\n1.png,2.png,a\n", "line 1 names 2 columns 'file_name'; give each its own name"),
        (b'file_name,caption\n1.png,"a', "after line"),
    ],
    ids=["cells", "empty", "Latin-1", "column", "UTF-16", "twice", "quote"],
)
def test_a_broken_row_of_csv_is_named(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_bytes(content)
    (_, why), *_ = read_rows(tmp_path / "metadata.csv", ["file_name", "caption"], ["caption"])
    assert why is not None
    assert why.encode(), "it is a text"
    assert why.startswith(words)


def test_a_blank_cell_and_none_are_no_captions_and_empty_files_no_rows(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("file_name,caption\n1.png,\n\n2.png,None\n", encoding="utf-8")
    rows = list(read_rows(tmp_path / "metadata.csv", ["file_name", "caption"], ["caption"]))
    assert rows == [(["1.png", ""], None), (["2.png", "None"], None)]
    for name in ("a.csv", "a.jsonl", "a.json"):
        (tmp_path / name).touch()
        assert list(read_rows(tmp_path / name, ["text"])) == []


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
def test_raise_and_skip_read_the_same_rows(kind: str, tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(120)]
    file = write(tmp_path, texts)[kind]
    rows = {way: load_records(stamp([file]), ["text"], "k", Tolerance(way)) for way in ("raise", "skip")}
    assert [found["text"] for found, _ in rows.values()] == [texts, texts]
    content = file.read_bytes().replace(b"text 70", b"te\xfft 70")
    file.write_bytes(content)
    with pytest.raises(BrokenFile, match=rf"rows.{kind}' broke while being read: (line|entry) \d+ is not UTF-8"):
        load_records(stamp([file]), ["text"], "k", Tolerance("raise"))
    found, skipped = load_records(stamp([file]), ["text"], "k", Tolerance("skip"))
    assert ([text for text in found["text"] if text], skipped) == (texts[:70] + texts[71:], 1)


@pytest.mark.parametrize("damage", [b"", b"cut", None])
def test_a_damaged_cache_is_made_anew_and_not_blamed_on_the_file(
    damage: bytes | None, tmp_path: Path, document_format: DocumentFormat
) -> None:
    import datasets

    file = write(tmp_path, ["one", "two"])["csv"]
    for _ in range(2):
        rows, _ = load_records(stamp([file]), ["text"], "k", Tolerance())
        assert rows["text"] == ["one", "two"]
        del rows
        for cache in datasets.config.HF_DATASETS_CACHE.rglob("*.arrow"):
            cache.write_bytes(cache.read_bytes()[:-40] if damage is None else damage)


def test_a_file_replaced_with_the_same_time_of_change_is_read_anew(
    tmp_path: Path, document_format: DocumentFormat
) -> None:
    """As tar, rsync -t and reproducible archives do."""
    import os

    for kind in ("csv", "json", "jsonl"):
        seen = []
        for texts in (["first version"] * 3, ["second version"] * 5):
            file = write(tmp_path, texts)[kind]
            os.utime(file, (315532800, 315532800))
            seen.append(load_records(stamp([file]), ["text"], "k", Tolerance())[0]["text"])
        assert [set(texts) for texts in seen] == [{"first version"}, {"second version"}], kind


@pytest.mark.parametrize("kind", [TextSource, ImageTextSource])
def test_two_columns_of_one_name_are_one_sentence(
    kind: type[TextSource], tmp_path: Path, document_format: DocumentFormat
) -> None:
    name = "text" if kind is TextSource else "caption"
    schema = pa.schema([("image", pa.string()), (name, pa.string()), (name, pa.string())])
    pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 3, schema=schema), tmp_path / "a.parquet")
    with pytest.raises(Mistake, match=f"a.parquet' has 2 columns '{name}'; give each its own name$"):
        kind(str(tmp_path)).dataset("train", "x", document_format)


@pytest.mark.parametrize("kind", ["parquet", "txt", "jsonl", "csv"])
def test_no_name_of_a_folder_is_taken_for_a_pattern(kind: str, tmp_path: Path, document_format: DocumentFormat) -> None:
    folder = tmp_path / "books [2023] *?"
    folder.mkdir()
    if kind == "parquet":
        pq.write_table(pa.table({"text": ["one"]}), folder / "a.parquet")
    elif kind == "txt":
        (folder / "a.txt").write_text("one", encoding="utf-8")
    else:
        write(folder, ["one"])[kind].rename(folder / f"a.{kind}")
    if kind == "csv":
        assert load_records(stamp([folder / "a.csv"]), ["text"], "k", Tolerance())[0]["text"] == ["one"]
    else:
        dataset = TextSource(f"{folder}/a.{kind}").dataset("train", "x", document_format)
        assert dataset is not None
        assert len(dataset) == 1
