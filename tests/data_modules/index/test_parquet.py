"""Pairs of Parquet are read where they are: captions from an index, pictures by groups of rows."""

from __future__ import annotations

import io
import logging
import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_modules.dataset import BrokenFile, DocumentFormat, Draw
from data_modules.image_text import ImageTextDataset, ImageTextSource
from data_modules.index import parquet_files
from data_modules.index.keys import cache_folder
from data_modules.reading.files import Tolerance
from lit_mm.mistake import Mistake
from lit_mm.sequence import Frame
from tests.data_modules.index.test_tars import shown
from tests.helpers.tars import picture
from tests.helpers.web_server import Server


def noise(number: int) -> bytes:
    """A picture of some 12 kB, whose first pixels are the number."""
    pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8)
    pixels[:24, :24] = number, 0, 0
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def write(file: Path, numbers: Sequence[int], group: int = 4, **columns: Any) -> Path:
    """A table of these pairs, in groups of so many rows."""
    file.parent.mkdir(parents=True, exist_ok=True)
    given = {"image": [picture((n, 0, 0)) for n in numbers], "caption": [f"a cat number {n}" for n in numbers]}
    pq.write_table(pa.table(given | columns), file, row_group_size=group)
    return file


def load(path: object, format: DocumentFormat, on_error: str = "raise", **options: Any) -> ImageTextDataset:
    module = ImageTextSource(str(path), **options)
    module.tolerance = Tolerance(on_error, 0.9)  # type: ignore[arg-type]
    dataset = module.dataset("train", "pairs", format)
    assert dataset is not None
    return pickle.loads(pickle.dumps(dataset))


def red(dataset: ImageTextDataset, number: int) -> int:
    frame = dataset.document(Draw(number, 0, 0)).segments[1]
    assert isinstance(frame, Frame)
    return int(frame.image[0, 0, 0])


def test_nothing_is_copied_and_a_folder_that_grows_goes_on(tmp_path: Path, document_format: DocumentFormat) -> None:
    for n in range(3):
        write(
            tmp_path / f"{n}.parquet", range(10 * n, 10 * n + 10), image=[noise(i) for i in range(10 * n, 10 * n + 10)]
        )
    dataset = load(tmp_path, document_format)
    assert [red(dataset, n) for n in range(30)] == list(range(30))
    kept = [f for f in cache_folder(None).rglob("*") if f.is_file() and "locks" not in f.parts]
    assert sum(f.stat().st_size for f in kept) < 0.05 * sum(f.stat().st_size for f in tmp_path.iterdir())
    made = {f: f.stat().st_mtime_ns for f in kept}
    write(tmp_path / "3.parquet", [30])
    assert shown(load(tmp_path, document_format), document_format)["a cat number 30"] == [30, 0, 0]
    again = [f for f in cache_folder(None).rglob("*") if f.is_file() and "locks" not in f.parts]
    assert {f: f.stat().st_mtime_ns for f in again if f in made} == made
    assert len(again) == len(made) + 1 + 2, "the index of the new file, and the view of all"


def test_a_process_keeps_the_groups_it_read_last(
    tmp_path: Path, document_format: DocumentFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 12 rows in groups of 4, each about 50 kB."""
    dataset = load(write(tmp_path / "a.parquet", range(12), image=[noise(i) for i in range(12)]), document_format)
    groups, read = dataset.pictures.groups, []  # type: ignore[union-attr]
    reading = parquet_files.read_group
    monkeypatch.setattr(parquet_files, "read_group", lambda t, group, *a: read.append(group) or reading(t, group, *a))
    order = [0, 1, 5, 2, 6, 9, 7, 3]
    assert [red(dataset, n) for n in order] == order
    assert read == [0, 1, 2]
    groups._kept.clear()
    read.clear()
    monkeypatch.setattr(parquet_files, "KEPT", 120_000)
    assert [red(dataset, n) for n in order] == order
    assert read == [0, 1, 2, 0], "the group that was read the longest ago goes first"
    monkeypatch.setattr(parquet_files, "KEPT", 1)
    groups._kept.clear()
    assert [red(dataset, n) for n in (0, 1, 4)] == [0, 1, 4]
    assert len(groups._kept) == 1


@pytest.mark.parametrize(
    "options", [{}, {"data_page_version": "2.0"}, {"data_page_size": 1}, {"write_page_index": True}]
)
@pytest.mark.parametrize("wrap", [lambda content: content, lambda content: {"path": "a", "bytes": content}])
def test_pictures_stored_as_they_are_are_read_without_their_group(
    wrap: Callable[[bytes], object],
    options: dict[str, Any],
    tmp_path: Path,
    document_format: DocumentFormat,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = pa.table({"caption": [f"{n}" for n in range(12)], "image": [wrap(noise(n)) for n in range(12)]})
    plain = {"compression": {"image": "none", "image.bytes": "none"}, "use_dictionary": ["caption"]}
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=5, write_batch_size=2, **plain, **options)
    dataset = load(tmp_path, document_format)
    monkeypatch.setattr(parquet_files, "read_group", lambda *_: pytest.fail("a group is read"))
    dataset.ahead(Draw(3, 0, 0))
    assert [red(dataset, n) for n in (11, 0, 4, 5, 3)] == [11, 0, 4, 5, 3]


def test_pictures_stored_in_any_other_way_are_read_with_their_group(
    tmp_path: Path, document_format: DocumentFormat
) -> None:
    plain: dict[str, Any] = {"compression": "none", "use_dictionary": False}
    other = {
        "compressed": {"compression": "snappy"},
        "in a dictionary": {"use_dictionary": True},
        "behind others' lengths": {"column_encoding": {"image": "DELTA_LENGTH_BYTE_ARRAY", "caption": "PLAIN"}},
        "uncounted": {"write_statistics": False},
    }
    for name, options in other.items():
        file = write_with(tmp_path / f"{name}.parquet", [noise(n) for n in range(6)], plain | options)
        assert [red(load(file, document_format), n) for n in range(6)] == list(range(6))
    with_nulls = write_with(tmp_path / "nulls.parquet", [None, *(noise(n) for n in range(1, 6))], plain)
    assert [red(load(with_nulls, document_format), n) for n in range(1, 6)] == list(range(1, 6))


def write_with(file: Path, pictures: list[bytes | None], options: dict[str, Any]) -> Path:
    table = pa.table({"image": pa.array(pictures, pa.binary()), "caption": ["a cat"] * len(pictures)})
    pq.write_table(table, file, row_group_size=4, **options)
    return file


def test_a_web_server_sends_the_group_of_a_picture(server: Server, document_format: DocumentFormat) -> None:
    file = write(server.folder / "a.parquet", range(60), image=[noise(i) for i in range(60)])
    dataset = load(f"{server.url}/a.parquet", document_format)
    assert server.sent < 0.3 * file.stat().st_size, "to be indexed, a file's end and captions are read"
    red(dataset, 0)
    sent, asked = server.sent, server.asked.total()
    size = pq.read_metadata(file).row_group(2).column(0).total_compressed_size
    dataset.ahead(Draw(9, 0, 0))
    dataset.ahead(Draw(10, 0, 0))
    assert [red(dataset, n) for n in (9, 10)] == [9, 10]
    assert (server.sent - sent, server.asked.total() - asked) == (size, 1)


def test_what_a_row_lacks(tmp_path: Path, document_format: DocumentFormat, caplog: pytest.LogCaptureFixture) -> None:
    captions = ["a cat", None, "  ", "a dog"]
    pictures = [picture((n, 0, 0)) for n in range(3)] + [None]
    file = write(tmp_path / "a.parquet", range(4), group=2, caption=captions, image=pictures)
    with caplog.at_level(logging.WARNING):
        dataset = load(file, document_format)
    assert "2 of 4 pairs have no caption and are left out" in caplog.text
    assert [len(dataset), red(dataset, 0)] == [2, 0]
    with pytest.raises(BrokenFile, match=r"a\.parquet' broke while being read: row 3 has no picture in 'image'"):
        red(dataset, 1)
    every = load(file, document_format, without_caption="unconditional")
    assert [red(every, n) for n in (0, 2, 3)] == [0, 1, 2], "those without a caption come last"
    assert dataset.pictures.origin(1) == f"picture 3 in {file}"  # type: ignore[union-attr]


def test_captions_that_are_not_utf_8(
    tmp_path: Path, document_format: DocumentFormat, caplog: pytest.LogCaptureFixture
) -> None:
    content = pa.array([b"caf\xe9", b"tea"]).cast(pa.large_binary()).buffers()
    captions = pa.Array.from_buffers(pa.large_string(), 2, content)
    file = write(tmp_path / "a.parquet", range(2), caption=captions)
    with caplog.at_level(logging.WARNING):
        dataset = load(file, document_format)
    assert "1 captions are not UTF-8 and are read as Latin-1" in caplog.text
    assert shown(dataset, document_format).keys() == {"café", "tea"}


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


def zero_captions(file: Path) -> None:
    """Of the second group."""
    chunk = pq.read_metadata(file).row_group(1).column(1)
    content = bytearray(file.read_bytes())
    begin = chunk.dictionary_page_offset or chunk.data_page_offset
    content[begin : begin + chunk.total_compressed_size] = bytes(chunk.total_compressed_size)
    file.write_bytes(content)


def other_columns(file: Path) -> None:
    pq.write_table(pa.table({"image": [b""], "text": [""]}), file)


@pytest.mark.parametrize(
    ("damage", "reason", "lost"),
    [
        (cut, "Parquet magic bytes not found in footer", 1),
        (zero_captions, "group of rows 1: ", 4),
        (other_columns, "has no column 'caption'; there are image and text", 1),
    ],
)
def test_damaged_files(
    damage: Callable[[Path], None], reason: str, lost: int, tmp_path: Path, document_format: DocumentFormat
) -> None:
    for n in range(2):
        write(tmp_path / f"{n}.parquet", range(8 * n, 8 * n + 8))
    damage(tmp_path / "1.parquet")
    with pytest.raises(BrokenFile, match=rf"1\.parquet' broke while being read: .*{reason}") as caught:
        load(tmp_path, document_format)
    assert "\n" not in str(caught.value)
    dataset = load(tmp_path, document_format, "skip")
    assert dataset.skipped_at_setup == lost
    assert [red(dataset, n) for n in range(8)] == list(range(8))


def test_a_file_that_changes_while_it_is_read(tmp_path: Path, document_format: DocumentFormat) -> None:
    file = write(tmp_path / "a.parquet", range(4))
    dataset = load(file, document_format)
    write(file, range(9))
    with pytest.raises(BrokenFile, match="it has changed since it was indexed; start again to index it anew"):
        red(dataset, 0)
    assert len(load(file, document_format)) == 9
    file.unlink()
    with pytest.raises(BrokenFile, match="it is no longer there"):
        red(dataset, 0)


def test_pictures_that_a_table_names(tmp_path: Path, document_format: DocumentFormat) -> None:
    for n in range(3):
        (tmp_path / f"{n}.png").write_bytes(picture((n, 0, 0)))
    names = [f"{n}.png" for n in range(3)]
    paths = [{"bytes": None, "path": name} for name in names]
    typed = pa.array(paths, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    for time, kind in enumerate((names, paths, typed)):
        dataset = load(write(tmp_path / "metadata.parquet", range(3), file_name=kind), document_format)
        assert [red(dataset, n) for n in range(3)] == [0, 1, 2]
        before = dataset.pictures.identities(np.arange(3))  # type: ignore[union-attr]
        os.utime(tmp_path / "1.png", (time, time))
        after = dataset.pictures.identities(np.arange(3))  # type: ignore[union-attr]
        assert (before == after).tolist() == [True, False, True], "latents of it are encoded anew"
    (tmp_path / "1.png").unlink()
    with pytest.raises(BrokenFile, match=r"metadata\.parquet' names '1\.png', but there is no such file beside it"):
        red(dataset, 1)


def test_files_of_several_formats(tmp_path: Path, document_format: DocumentFormat) -> None:
    write(tmp_path / "a.parquet", range(2))
    (tmp_path / "a.jsonl").write_text("{}\n")
    with pytest.raises(Mistake, match="holds Parquet and tables; name those of one format with a pattern"):
        load(tmp_path, document_format)


PICTURE = picture((7, 0, 0))
FORMS = {
    "string": pa.array(["a.png"]),
    "large string": pa.array(["a.png"], pa.large_string()),
    "string view": pa.array(["a.png"], pa.string_view()),
    "dictionary": pa.array(["a.png"]).dictionary_encode(),
    "binary": pa.array([PICTURE]),
    "large binary": pa.array([PICTURE], pa.large_binary()),
    "binary view": pa.array([PICTURE], pa.binary_view()),
    "fixed binary": pa.array([PICTURE], pa.binary(len(PICTURE))),
    "struct": pa.array([{"bytes": PICTURE, "path": "a.png"}]),
    "struct of views": pa.array(
        [{"path": None, "bytes": PICTURE}], pa.struct([("path", pa.string_view()), ("bytes", pa.binary_view())])
    ),
    "struct of a path": pa.array([{"path": "a.png"}]),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_picture_is_read(form: str, tmp_path: Path, document_format: DocumentFormat) -> None:
    (tmp_path / "a.png").write_bytes(PICTURE)
    dataset = load(write(tmp_path / "a.parquet", [7], image=FORMS[form]), document_format)
    assert red(dataset, 0) == 7


@pytest.mark.parametrize("form", ["string", "large string", "string view", "dictionary", "null"])
def test_every_form_of_a_caption_is_read(form: str, tmp_path: Path, document_format: DocumentFormat) -> None:
    captions = FORMS[form] if form != "null" else pa.nulls(1)
    file = write(tmp_path / "a.parquet", [7], caption=captions)
    if form == "null":
        with pytest.raises(Mistake, match=r"none of the 1 pairs of '.*' has a caption in 'caption'"):
            load(file, document_format)
    else:
        assert shown(load(file, document_format), document_format).keys() == {"a.png"}


@pytest.mark.parametrize(
    ("array", "kind"),
    [(pa.array([[{"bytes": PICTURE}]]), "list"), (pa.array([7]), "int64"), (pa.array([{"data": PICTURE}]), "struct")],
)
def test_any_other_form_is_refused_when_a_source_is_set_up(
    array: pa.Array, kind: str, tmp_path: Path, document_format: DocumentFormat
) -> None:
    pq.write_table(pa.table({"image": array, "caption": ["a"]}), tmp_path / "a.parquet")
    module = ImageTextSource(str(tmp_path))
    with pytest.raises(Mistake, match=rf"data.train: '.*a.parquet': column 'image' holds {kind}.*is expected in every"):
        module.dataset("train", "pairs", document_format)
