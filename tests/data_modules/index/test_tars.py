"""Tars as WebDataset, img2dataset, LAION and DataComp write them are read where they are."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import tarfile
from pathlib import Path
from typing import Any

import pytest

from data_modules.dataset import BrokenFile, DocumentFormat, Draw
from data_modules.image_text import ImageTextDataset, ImageTextSource
from data_modules.index.tar_samples import Member, tar_members
from data_modules.reading.files import Tolerance
from lit_mm.mistake import MissingFile, Mistake
from tests.helpers.tars import pairs, picture, write_tar


def load(path: object, format: DocumentFormat, on_error: str = "raise", **options: Any) -> ImageTextDataset:
    module = ImageTextSource(str(path), **options)
    module.tolerance = Tolerance(on_error, 0.15)
    dataset = module.dataset("train", "web", format)
    assert dataset is not None
    return dataset


def shown(dataset: ImageTextDataset, format: DocumentFormat, variant: int = 0) -> dict[str, list[int]]:
    """Caption and colour in the middle of every pair."""
    found = {}
    for i in range(len(dataset)):
        document = dataset.document(Draw(i, variant, 0))
        assert document.length(4) == dataset.lengths[variant, i]
        opening, frame, _ = document.segments
        found[format.tokenizer.decode(opening.ids)[5:-5]] = frame.image[:, 16, 16].tolist()
    return found


def test_pictures_of_all_endings_in_one_tar(tmp_path: Path, document_format: DocumentFormat) -> None:
    kinds = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "JPEG": "JPEG"}
    members = []
    for i, (ending, format) in enumerate(kinds.items()):
        members += [(f"{i}.{ending}", picture((0, 60 * i, 0), format)), (f"{i}.txt", f"cat {i}".encode())]
    found = shown(load(write_tar(tmp_path / "0.tar", members), document_format), document_format)
    assert list(found) == [f"cat {i}" for i in range(4)]
    for i, colour in enumerate(found.values()):
        assert colour == pytest.approx([0, 60 * i, 0], abs=4)


def test_captions_inside_json_of_any_types(tmp_path: Path, document_format: DocumentFormat) -> None:
    """Values of one key differ in type from sample to sample, as DataComp's do."""
    facts: list[dict[str, Any]] = [
        {"caption": "a red cube", "similarity": 0.3, "exif": None, "sha": "x"},
        {"caption": "the cat sat", "similarity": None, "exif": {"Make": "x"}, "sha": 5},
        {"caption": None, "meta": {"alt": "a mat"}},
        {"caption": ["a", "list"]},
    ]
    members = []
    for i, fact in enumerate(facts):
        members += [(f"{i}.json", json.dumps(fact).encode()), (f"{i}.jpg", picture((i, 0, 0), "JPEG"))]
    members += [("4.json", b"{broken"), ("4.jpg", picture((4, 0, 0), "JPEG"))]
    tar = write_tar(tmp_path / "0.tar", members)
    dataset = load(tar, document_format, caption_column="json.caption")
    assert list(shown(dataset, document_format)) == ["a red cube", "the cat sat"]
    assert dataset.pairs.counts.without_caption == 3
    deeper = load(tar, document_format, caption_column="json.meta.alt")
    assert list(shown(deeper, document_format).items()) == [("a mat", pytest.approx([2, 0, 0], abs=2))]


def test_missing_members(tmp_path: Path, document_format: DocumentFormat, caplog: pytest.LogCaptureFixture) -> None:
    """A missing or blank caption breaks nothing; a missing picture is a broken pair."""
    members = [(name, b" \n" if name == "00020.txt" else content) for name, content in pairs(40)]
    tar = write_tar(tmp_path / "0.tar", [m for m in members if m[0] != "00007.txt"])
    dataset = load(tar, document_format)
    assert list(shown(dataset, document_format)) == [f"a cat number {i}" for i in range(40) if i not in (7, 20)]
    assert "2 of 40 pairs have no caption and are left out" in caplog.text
    everything = load(tar, document_format, without_caption="unconditional")
    assert len(everything) == 40
    for variant in range(3):
        document = everything.document(Draw(39, variant, 0))
        assert document.length(4) == everything.lengths[variant, 39] == 8
        assert document_format.tokenizer.decode(document.segments[0].ids) == "<bos><boi>"
        assert not document.segments[1].clean
        assert document.segments[1].image[0, 0, 0] == 20
    without_picture = write_tar(tmp_path / "1.tar", [m for m in pairs(40) if m[0] != "00003.png"])
    with pytest.raises(BrokenFile, match=r"1\.tar' broke.*'00003' has no picture \(\.jpg, .*\), but \.txt"):
        load(without_picture, document_format)
    skipped = load(without_picture, document_format, "skip")
    assert (len(skipped), skipped.skipped_at_setup) == (39, 1)


def test_a_picture_whose_name_has_dots_is_not_left_out_in_silence(
    tmp_path: Path, document_format: DocumentFormat
) -> None:
    tar = write_tar(tmp_path / "0.tar", [*pairs(40), ("a.b/shot.1.JPG", b"x"), ("a.b/shot.1.txt", b"a cat")])
    with pytest.raises(BrokenFile, match=r"'a.b/shot' has no picture .* but .1.jpg, .1.txt; the name of a sample ends"):
        load(tar, document_format)
    skipped = load(tar, document_format, "skip")
    assert (len(skipped), skipped.skipped_at_setup) == (40, 1)


def test_members_in_any_order_and_names_that_come_twice(tmp_path: Path, document_format: DocumentFormat) -> None:
    """As `tar` packs a folder: in the order of the disk, with folders, files that are no pair, and an older version."""
    members = [(f"part/{name}", content) for name, content in pairs(30)]
    random.Random(0).shuffle(members)
    members += [("README", b"hello"), ("part/._00001.png", b"x"), ("notes.md", b"hello"), (".DS_Store", b"x")]
    members += [("part/00005.png", picture((105, 0, 0))), ("part/00005.txt", b"a second five")]
    found = shown(load(write_tar(tmp_path / "0.tar", members), document_format), document_format)
    assert found == {**{f"a cat number {i}": [i, 0, 0] for i in range(30)}, "a second five": [105, 0, 0]}


def test_names_that_are_no_utf_8(tmp_path: Path, document_format: DocumentFormat) -> None:
    """They are read all the same; names go into messages and tables, which are text."""
    name = os.fsdecode(b"caf\xe9")
    tar = write_tar(tmp_path / "0.tar", [(f"{name}.png", picture((9, 0, 0))), (f"{name}.txt", b"a cat")])
    assert shown(load(tar, document_format), document_format) == {"a cat": [9, 0, 0]}
    with tar.open("rb") as stream:
        names = [name for name, _ in tar_members(stream, tar.stat().st_size)]
    assert names == ["caf\\xe9.png", "caf\\xe9.txt"]


def test_latin_1_captions(tmp_path: Path, document_format: DocumentFormat, caplog: pytest.LogCaptureFixture) -> None:
    members = [("0.png", picture((0, 0, 0))), ("0.txt", "café".encode()), ("1.png", picture((1, 0, 0)))]
    members += [("1.txt", "crème brûlée".encode("latin-1"))]
    dataset = load(write_tar(tmp_path / "0.tar", members), document_format)
    assert list(shown(dataset, document_format)) == ["café", "crème brûlée"]
    assert "1 captions are not UTF-8" in caplog.text


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names(tmp_path: Path, document_format: DocumentFormat, format: int) -> None:
    names = ["a" * 150, "b" * 90 + "/" + "c" * 200, "bär"]
    members = []
    for i, name in enumerate(names):
        members += [(f"{name}.png", picture((i, 0, 0))), (f"{name}.txt", f"cat {i}".encode())]
    found = shown(load(write_tar(tmp_path / "0.tar", members, format), document_format), document_format)
    assert found == {f"cat {i}": [i, 0, 0] for i in range(3)}


@pytest.mark.parametrize("place", [0, 1, 7, 12])
@pytest.mark.parametrize("other", ["a" * 150 + ".txt", "a folder/", "a link"])
def test_members_are_where_tarfile_finds_them(other: str, place: int, tmp_path: Path) -> None:
    """Plain headers are read without it, up to the first that is none."""
    names = [f"{n}.txt" for n in range(12)]
    names.insert(place, other)
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for number, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.type = {"a folder/": tarfile.DIRTYPE, "a link": tarfile.SYMTYPE}.get(name, tarfile.REGTYPE)
            member.size = 200 * number if member.isreg() else 0
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    with tarfile.open(tmp_path / "0.tar") as tar:
        expected = [(one.name, Member(one.offset_data, one.size)) for one in tar if one.isreg()]
    with (tmp_path / "0.tar").open("rb") as stream:
        found = []
        for one in tar_members(stream, (tmp_path / "0.tar").stat().st_size):
            found.append(one)
            stream.seek(0)
    assert found == expected


def damaged(tar: Path, how: str) -> int:
    """Damage the last but one of 30 pairs' members, or what follows; returns how many pairs stand before it."""
    content = tar.read_bytes()
    with tarfile.open(tar) as opened:
        members = opened.getmembers()
    at = members[2 * 20].offset
    if how == "zeroed":
        tar.write_bytes(content[:at] + bytes(1024) + content[at + 1024 :])
    elif how == "cut in a picture":
        tar.write_bytes(content[: members[40].offset_data + 30])
    elif how == "cut in a header":
        tar.write_bytes(content[: at + 200])
    elif how == "cut between members":
        tar.write_bytes(content[:at])
    elif how == "overwritten header":
        tar.write_bytes(content[:at] + b"x" * 512 + content[at + 512 :])
    else:
        tar.write_bytes(content[:at] + bytes(66_000))
    return 20


@pytest.mark.parametrize(
    "how",
    ["zeroed", "cut in a picture", "cut in a header", "cut between members", "overwritten header", "zeros to its end"],
)
def test_a_damaged_tar_is_named(tmp_path: Path, document_format: DocumentFormat, how: str) -> None:
    for number in range(10):
        tar = write_tar(tmp_path / f"{number}.tar", pairs(30, 30 * number % 240))
    bad = tmp_path / "4.tar"
    whole = damaged(bad, how)
    with pytest.raises(BrokenFile) as caught:
        load(tmp_path, document_format)
    assert caught.value.path == str(bad)
    dataset = load(tmp_path, document_format, "skip")
    assert len(dataset) == 9 * 30 + whole
    lost = dataset.skipped_at_setup
    assert lost == 1 if how == "cut between members" else 1 <= lost <= 40, "about as many as its bytes would hold"
    tar.write_bytes(b"no tar at all" * 100)
    with pytest.raises(Mistake, match="more than 15 %"):
        load(tar, document_format, "skip")


def test_nothing_is_copied(tmp_path: Path, document_format: DocumentFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache takes a small part of the pictures' bytes, and no array of a document's own is kept in memory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    noise = random.Random(0).randbytes(100_000)
    members = [m for i in range(50) for m in ((f"{i}.jpg", noise), (f"{i}.txt", b"the cat sat on the mat"))]
    tar = write_tar(tmp_path / "0.tar", members)
    dataset = load(tar, document_format)
    taken = sum(f.stat().st_size for f in (tmp_path / "cache").rglob("*"))
    assert taken < tar.stat().st_size / 100
    assert len(pickle.dumps(dataset)) - len(pickle.dumps(document_format)) < 3000
    again = pickle.loads(pickle.dumps(dataset))
    assert (again.lengths[:, :] == dataset.lengths[:, :]).all()
    with pytest.raises(BrokenFile, match=r"0\.tar at byte 512' broke while being read: it is no picture"):
        again.document(Draw(0, 0, 0))


def test_a_tar_that_vanishes_or_changes_while_it_is_read(tmp_path: Path, document_format: DocumentFormat) -> None:
    tar = write_tar(tmp_path / "0.tar", pairs(3))
    dataset, late = load(tar, document_format), load(tar, document_format)
    dataset.document(Draw(0, 0, 0))
    gone = load(write_tar(tmp_path / "1.tar", pairs(3)), document_format)
    (tmp_path / "1.tar").unlink()
    with pytest.raises(BrokenFile, match=r"1\.tar' broke while being read: it is no longer there"):
        gone.document(Draw(0, 0, 0))
    write_tar(tmp_path / "new.tar", pairs(4, 7)).replace(tar)
    with pytest.raises(BrokenFile, match="has changed since it was indexed"):
        late.document(Draw(0, 0, 0))
    assert len(load(tar, document_format)) == 4, "and is indexed anew at the next start"
    assert shown(dataset, document_format)["a cat number 2"] == [2, 0, 0], "who has it open reads on"


def test_what_cannot_be_used_is_said(tmp_path: Path, document_format: DocumentFormat) -> None:
    write_tar(tmp_path / "0.tar", [("0.mp3", b"x"), ("0.cls", b"3")])
    with pytest.raises(Mistake, match=r"holds no pairs: .* end in \.jpg, .*, and captions in \.txt, but 1 \.mp3 and"):
        load(tmp_path, document_format)
    (tmp_path / "pairs.jsonl").write_text("{}\n")
    with pytest.raises(Mistake, match="tables and tars"):
        load(tmp_path, document_format)
    with pytest.raises(Mistake, match=r"max_caption: 70000 tokens; give 1 to 65535"):
        ImageTextSource("x", max_caption=70000)


def test_a_range_of_tars(tmp_path: Path, document_format: DocumentFormat) -> None:
    for n in (8, 9, 10, 11):
        write_tar(tmp_path / f"{n:03}.tar", pairs(2, 2 * n))
    assert list(shown(load(tmp_path / "{008..010}.tar", document_format), document_format)) == [
        f"a cat number {i}" for i in range(16, 22)
    ]
    with pytest.raises(MissingFile, match=r"data\.train: there is no file or folder '.*012\.tar'"):
        load(tmp_path / "{008..012}.tar", document_format)
