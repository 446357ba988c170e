"""Which files a folder holds: nothing is left out without a count, and no name is taken for a pattern."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_modules.index.input_files import find_input_files
from data_modules.reading.files import find_files
from data_modules.reading.findings import Findings, gathered
from lit_mm.mistake import MissingFile, Mistake


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found_in(folder: Path | str) -> tuple[list[str], Counter[str]]:
    """Names of the files that are found there, and what is left out."""
    with gathered() as findings:
        files = find_files(str(folder), (".jsonl",), "data.train")
    assert findings.files == len(files)
    return [file.name for file in files], findings.left_out


def test_linked_folders_are_read_each_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path / "disk_a/a.jsonl", tmp_path / "disk_b/deep/b.jsonl", tmp_path / "all/own/c.jsonl")
    for disk in ("disk_a", "disk_b"):
        (tmp_path / "all" / disk).symlink_to(tmp_path / disk)
    (tmp_path / "all/again").symlink_to(tmp_path / "all/own")
    (tmp_path / "all/own/circle").symlink_to(tmp_path / "all")
    for name in ("gone.jsonl", "gone"):  # a file, and a folder of a disk that is not there
        (tmp_path / "all" / name).symlink_to(tmp_path / "nothing")
    names, left_out = found_in(tmp_path / "all")
    assert names == ["a.jsonl", "b.jsonl", "c.jsonl"]
    assert left_out == {"linked folders that were read before": 2, "links that lead nowhere": 2}
    assert f"data.train: 2 links in '{tmp_path}/all' lead nowhere and are left out" in caplog.text


def test_a_file_of_several_names_is_read_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path / "b.jsonl", tmp_path / "z/blob.jsonl", tmp_path / "elsewhere", tmp_path / "other.jsonl")
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "b.jsonl")
    (tmp_path / "c.jsonl").symlink_to(tmp_path / "a.jsonl")
    os.link(tmp_path / "z/blob.jsonl", tmp_path / "z/hard.jsonl")
    (tmp_path / "y.jsonl").symlink_to(tmp_path / "z/hard.jsonl")
    for name in ("v.jsonl", "w.jsonl"):  # as a cache of the Hub has one file for two versions
        (tmp_path / name).symlink_to(tmp_path / "elsewhere")
    names, left_out = found_in(tmp_path)
    assert names == ["b.jsonl", "other.jsonl", "v.jsonl", "blob.jsonl"]
    assert left_out == {"other names of files that are read": 5, "files without an ending": 1}
    assert f"5 names in '{tmp_path}' are links to files that are read, the first is '{tmp_path}/a.jsonl'" in caplog.text
    assert found_in(f"{tmp_path}/[bc].jsonl") == (["b.jsonl"], {"other names of files that are read": 1})
    assert found_in(tmp_path / "c.jsonl")[0] == ["c.jsonl"], "a link that the user names is read"


def test_hidden_and_tool_made_folders_are_left_out_and_counted(tmp_path: Path) -> None:
    touch(tmp_path / "train.jsonl", tmp_path / ".ipynb_checkpoints/train-checkpoint.jsonl", tmp_path / "._train.jsonl")
    touch(tmp_path / "__MACOSX/train.jsonl", tmp_path / "part/.git/x.jsonl", tmp_path / "part/b.jsonl.bak")
    names, left_out = found_in(tmp_path)
    assert names == ["train.jsonl"]
    assert left_out == {"hidden folders": 3, "hidden files": 1, ".bak": 1}
    touch(tmp_path / ".cache/data/x.jsonl")
    assert found_in(tmp_path / ".cache/data")[0] == ["x.jsonl"], "a hidden folder that the user names is read"


def test_so_are_those_of_a_storage() -> None:
    fs = fsspec.filesystem("memory")
    for name in ("a.tar", "sub/b.tar", ".git/c.tar", "sub/__MACOSX/d.tar", "sub/._b.tar"):
        fs.pipe(f"/hidden/{name}", b"")
    files = find_input_files("memory://hidden", (".tar",), "data.train")
    assert [file.path for file in files] == ["memory:///hidden/a.tar", "memory:///hidden/sub/b.tar"]


def test_a_folder_of_other_files_says_what_there_is(tmp_path: Path) -> None:
    touch(*(tmp_path / f"{i}.csv" for i in range(3)))
    with pytest.raises(MissingFile, match=r"data.train: '.*' holds no .jsonl file, but 3 .csv"):
        find_files(str(tmp_path), (".jsonl",), "data.train")


def test_what_is_neither_file_nor_link_is_counted(tmp_path: Path) -> None:
    touch(tmp_path / "a.jsonl")
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert found_in(tmp_path) == (["a.jsonl"], {"pipes or devices": 1})


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("", "data.train is empty; name a file or folder, or a pattern of them"),
        ("{7..3}.jsonl", "'{7..3}.jsonl' has a range that ends before it begins; write {3..7}"),
    ],
)
def test_a_path_that_can_name_nothing_is_one_sentence(pattern: str, sentence: str) -> None:
    with pytest.raises(Mistake, match=f"^{re.escape(sentence)}$"):
        find_files(pattern, (".jsonl",), "data.train")


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=6)


@settings(max_examples=60)
@given(folder=NAMES.filter(lambda n: not n.startswith(".")), stem=NAMES.filter(lambda n: not n.startswith(".")))
def test_any_name_is_found_as_a_file_in_a_folder_and_by_a_pattern(
    folder: str, stem: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("named")
    file = root / folder / f"{stem}.jsonl"
    touch(file)
    for pattern in (file, file.parent, root, f"{file.parent}/*.jsonl", f"{root}/*/*.jsonl", f"{root}/**/*.jsonl"):
        assert find_files(str(pattern), (".jsonl",), "data.train") == [file]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_name_is_found_in_either_form_of_its_accents(form: str, tmp_path: Path) -> None:
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    file = tmp_path / unicodedata.normalize(form, "fürs café") / unicodedata.normalize(form, "é.jsonl")
    touch(file)
    assert find_files(unicodedata.normalize(other, str(file)), (".jsonl",), "data.train") == [file]
    assert find_files(unicodedata.normalize(other, str(file.parent)), (".jsonl",), "data.train") == [file]


def test_what_is_looked_for_twice_is_counted_once(tmp_path: Path) -> None:
    touch(tmp_path / "a.jsonl", tmp_path / ".b.jsonl")
    with gathered() as findings:
        for _ in range(2):
            find_files(str(tmp_path), (".jsonl",), "data.train")
    assert (findings.files, findings.left_out) == (1, Counter({"hidden files": 1}))
    assert Findings().left_out == Counter()
