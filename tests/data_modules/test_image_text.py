"""Pairs of every file format become the same documents, in three variants of the planned lengths."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_modules.dataset import BrokenFile, DocumentFormat, Draw
from data_modules.image_text import ImageTextDataModule, ImageTextDataset
from data_modules.reading.files import Tolerance
from lit_mm.mistake import MissingFile, Mistake
from lit_mm.packing import pack_rows
from lit_mm.sequence import IGNORE, Document, Frame, PackedRow, Text

CAPTIONS = ["a red cube", "the cat sat", "Bär 🐻"]
COLOURS = [(255, 0, 0), (10, 200, 30), (90, 60, 20)]


def png(colour: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 32), colour).save(buffer, "PNG")
    return buffer.getvalue()


def write_folder(folder: Path, captions: list[str] = CAPTIONS) -> Path:
    """A Hugging Face image folder."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i, caption in enumerate(captions):
        (folder / f"{i}.png").write_bytes(png(COLOURS[i % 3]))
        lines.append(json.dumps({"file_name": f"{i}.png", "caption": caption}) + "\n")
    (folder / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def test_folders_are_read_together(tmp_path: Path, document_format: DocumentFormat) -> None:
    """Whatever folder a picture is in, and in whatever order: each has its own caption; the time is that of one folder."""
    for number in range(40):
        colour, folder = (number, 2 * number, 3 * number), tmp_path / f"{number % 3}/{number:02}"
        folder.mkdir(parents=True)
        (folder / "0.png").write_bytes(png(colour))
        (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", "caption": f"number {number}"}))
    dataset = ImageTextDataModule(str(tmp_path)).dataset("train", "pairs", document_format)
    assert dataset is not None
    assert len(dataset.pictures.parts) == 1
    shown = set()
    for index in range(40):
        opening, frame, _ = dataset.document(Draw(index, 0, 0)).segments
        number = int(document_format.tokenizer.decode(opening.ids).split("number ")[1].split("<")[0])
        assert frame.image[:, 0, 0].tolist() == [number, 2 * number, 3 * number]
        shown.add(number)
    assert shown == set(range(40))
    (tmp_path / "0/00/0.png").unlink()
    with pytest.raises(BrokenFile, match=r"names '0/00/0.png', but there is no such file beside it"):
        dataset.document(Draw(0, 0, 0))


def write_csv(folder: Path) -> Path:
    write_folder(folder)
    (folder / "metadata.jsonl").unlink()
    lines = ["file_name,caption", *(f"{i}.png,{c}" for i, c in enumerate(CAPTIONS))]
    (folder / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder


def write_jsonl(folder: Path) -> Path:
    """JSON Lines beside a folder of pictures, in two subfolders."""
    for part, numbers in {"a": [0], "b": [1, 2]}.items():
        (folder / part / "pictures").mkdir(parents=True)
        lines = []
        for i in numbers:
            (folder / part / "pictures" / f"{i}.png").write_bytes(png(COLOURS[i]))
            lines.append(json.dumps({"image": f"pictures/{i}.png", "caption": CAPTIONS[i], "id": i}) + "\n")
        (folder / part / "pairs.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def write_parquet(folder: Path, column: Any) -> Path:
    folder.mkdir()
    pq.write_table(pa.table({"image": column, "caption": CAPTIONS}), folder / "pairs.parquet")
    return folder


def write_hugging_face_parquet(folder: Path) -> Path:
    folder.mkdir()
    images = [Image.new("RGB", (40, 32), colour) for colour in COLOURS]
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string")})
    datasets.Dataset.from_dict({"image": images, "caption": CAPTIONS}, features).to_parquet(folder / "p.parquet")
    return folder


def write_tars(folder: Path) -> Path:
    folder.mkdir()
    for shard, numbers in enumerate([[0, 1], [2]]):
        with tarfile.open(folder / f"{shard:05}.tar", "w") as tar:
            for i in numbers:
                for suffix, content in {"png": png(COLOURS[i]), "txt": CAPTIONS[i].encode()}.items():
                    member = tarfile.TarInfo(f"{i:04}.{suffix}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return folder


WRITERS = {
    "image folder": write_folder,
    "image folder, csv": write_csv,
    "jsonl": write_jsonl,
    "parquet of bytes": lambda f: write_parquet(f, [png(c) for c in COLOURS]),
    "parquet of structs": lambda f: write_parquet(f, [{"bytes": png(c), "path": None} for c in COLOURS]),
    "parquet by datasets": write_hugging_face_parquet,
    "tars": write_tars,
}


def load(path: Path, format: DocumentFormat, on_error: str = "raise", **options: Any) -> ImageTextDataset:
    module = ImageTextDataModule(str(path), **options)
    module.tolerance = Tolerance(on_error)
    dataset = module.dataset("train", "drawings", format)
    assert dataset is not None
    return dataset


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_reads_the_same(kind: str, tmp_path: Path, document_format: DocumentFormat) -> None:
    options = {"image_column": "png", "caption_column": "txt"} if kind == "tars" else {}
    dataset = pickle.loads(pickle.dumps(load(WRITERS[kind](tmp_path / "d"), document_format, **options)))
    assert len(dataset) == 3
    for i in range(3):
        opening, frame, _ = dataset.document(Draw(i, 0, 0)).segments
        assert document_format.tokenizer.decode(opening.ids) == f"<bos>{CAPTIONS[i]}<boi>"
        assert frame.image.shape == (3, 32, 32)
        assert frame.image[:, 16, 16].tolist() == list(COLOURS[i])


def shown(document: Document, format: DocumentFormat) -> str:
    """A document as the table of the design writes it."""
    parts = []
    for segment in document.segments:
        if isinstance(segment, Frame):
            parts.append("[clean]" if segment.clean else "[drawn]")
        else:
            parts.append(format.tokenizer.decode(segment.ids))
    return "".join(parts)


def test_variants(tmp_path: Path, document_format: DocumentFormat) -> None:
    dataset = load(write_folder(tmp_path), document_format)
    documents = [dataset.document(Draw(0, v, 0)) for v in range(3)]
    assert [shown(d, document_format) for d in documents] == [
        "<bos>a red cube<boi>[drawn]<eoi><eos>",
        "<bos><boi>[drawn]<eoi><eos>",
        "<bos><boi>[clean]<eoi>a red cube<eos>",
    ]
    assert dataset.variants == ("caption_first", "unconditional", "image_first")
    assert dataset.shares == pytest.approx((0.72, 0.08, 0.2))


def test_planned_lengths_are_exact(tmp_path: Path, document_format: DocumentFormat) -> None:
    dataset = load(write_folder(tmp_path, [*CAPTIONS, "a blue ball " * 30]), document_format, max_caption=20)
    assert dataset.lengths.dtype == np.int32
    assert dataset.lengths.shape == (3, 4)
    for variant in range(3):
        for i in range(4):
            assert dataset.document(Draw(i, variant, 0)).length(4) == dataset.lengths[variant, i]
    assert dataset.lengths[0, 3] == 20 + 4 + 4, "a long caption is cut to max_caption"


def test_what_is_predicted(tmp_path: Path, document_format: DocumentFormat) -> None:
    """Captions and what follows a picture are learned; that a document begins with a picture is not."""
    dataset = load(write_folder(tmp_path), document_format)
    t = document_format.tokenizer
    caption = t.encode("a red cube")
    expected = {0: [*caption, t.boi_id, t.eos_id], 1: [t.eos_id], 2: [*caption, t.eos_id]}
    for variant, ids in expected.items():
        row = PackedRow((dataset.document(Draw(0, variant, 0)),), number=0, seed=0)
        batch = pack_rows([row], length=64, tokens_per_frame=4, image_size=32, pad_id=t.pad_id, sources=("drawings",))
        targets = batch.targets[0]
        assert targets[targets != IGNORE].tolist() == ids


def test_only_text_carries_ids(tmp_path: Path, document_format: DocumentFormat) -> None:
    document = load(write_folder(tmp_path), document_format).document(Draw(1, 2, 0))
    assert [s.ids.dtype.is_floating_point for s in document.segments if isinstance(s, Text)] == [False, False]
    assert document.source == "drawings"


def test_broken_picture(tmp_path: Path, document_format: DocumentFormat) -> None:
    dataset = load(write_folder(tmp_path), document_format)
    (tmp_path / "1.png").write_bytes(png(COLOURS[1])[:60])
    (tmp_path / "2.png").unlink()
    (tmp_path / "0.png").write_text("no picture")
    said = [
        (0, r"^'.*/0\.png' broke while being read: it is no picture, or cut short$"),
        (1, r"^'.*/1\.png' broke while being read: "),
        (2, r"^'.*/metadata\.jsonl' names '2\.png', but there is no such file beside it$"),
    ]
    for i, sentence in said:
        with pytest.raises(BrokenFile, match=sentence):
            dataset.document(Draw(i, 0, 0))


MISSING = {"blank": ' "caption": " "', "null": ' "caption": null', "no key": ' "other": 1'}


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("how", MISSING)
def test_pairs_without_caption_are_left_out_and_said(
    how: str, on_error: str, tmp_path: Path, document_format: DocumentFormat, caplog: pytest.LogCaptureFixture
) -> None:
    """However many they are: they are not broken."""
    captions = [f"a cat number {i}" for i in range(150)]
    write_folder(tmp_path, captions)
    lines = (tmp_path / "metadata.jsonl").read_text().splitlines()
    gone = range(7, 150, 10)
    for i in gone:
        lines[i] = f'{{"file_name": "{i}.png",{MISSING[how]}}}'
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    with caplog.at_level("WARNING"):
        dataset = load(tmp_path, document_format, on_error)
    assert "data.train: left out 15 of 150 pairs, which have no caption" in caplog.text
    assert dataset.skipped_at_setup == 0
    kept = [i for i in range(150) if i not in gone]
    read = [document_format.tokenizer.decode(dataset.document(Draw(i, 0, 0)).segments[0].ids) for i in range(135)]
    assert read == [f"<bos>{captions[i]}<boi>" for i in kept]
    assert dataset.document(Draw(7, 1, 0)).segments[1].image[:, 0, 0].tolist() == list(COLOURS[8 % 3])


def test_broken_metadata_line(tmp_path: Path, document_format: DocumentFormat) -> None:
    write_folder(tmp_path, ["a cat"] * 150)
    lines = (tmp_path / "metadata.jsonl").read_bytes().splitlines(keepends=True)
    lines[4] = b'{"file_name": "4.png", "caption": "caf\xe9"}\n'
    (tmp_path / "metadata.jsonl").write_bytes(b"".join(lines))
    with pytest.raises(BrokenFile, match=r"metadata.jsonl.*line 5 is not UTF-8"):
        load(tmp_path, document_format)
    dataset = load(tmp_path, document_format, "skip")
    assert (len(dataset), dataset.skipped_at_setup) == (149, 1)


def test_cut_tar_is_named(tmp_path: Path, document_format: DocumentFormat) -> None:
    folder = write_tars(tmp_path / "tars")
    content = (folder / "00001.tar").read_bytes()
    (folder / "00001.tar").write_bytes(content[:560])
    with pytest.raises(BrokenFile) as caught:
        load(folder, document_format, image_column="png", caption_column="txt")
    assert caught.value.path == str(folder / "00001.tar")


def test_without_any_caption_the_column_is_named(tmp_path: Path, document_format: DocumentFormat) -> None:
    write_folder(tmp_path, [""] * 3)
    with pytest.raises(Mistake, match=r"data.train: none of the 3 pairs of '.*' has a caption in 'caption'"):
        load(tmp_path, document_format)


def test_bad_input_is_said_in_one_sentence(tmp_path: Path, document_format: DocumentFormat) -> None:
    write_folder(tmp_path / "f")
    with pytest.raises(Mistake, match="no column 'title'; there are file_name and caption"):
        load(tmp_path / "f", document_format, caption_column="title")
    with pytest.raises(Mistake, match="caption_first: 1.5 is not a share"):
        ImageTextDataModule("x", caption_first=1.5)
    with pytest.raises(Mistake, match="condition_dropout: -0.1 is not a share"):
        ImageTextDataModule("x", condition_dropout=-0.1)
    pq.write_table(pa.table({"image": [png(COLOURS[0])], "caption": [["one", "two"]]}), tmp_path / "lists.parquet")
    with pytest.raises(Mistake, match=r"lists.parquet': column 'caption' holds list<.*>, but a string"):
        load(tmp_path / "lists.parquet", document_format)
    with pytest.raises(MissingFile, match="data.train: there is no file or folder"):
        load(tmp_path / "nothing", document_format)
    (tmp_path / "f/metadata.jsonl").unlink()
    with pytest.raises(MissingFile, match=r"file, but 3 pictures; write a metadata.jsonl .*file_name.*caption"):
        load(tmp_path / "f", document_format)


def test_a_name_on_the_hub_is_no_folder_of_tars(
    document_format: DocumentFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, ...]] = []

    table = datasets.Dataset.from_dict({"image": [png(c) for c in COLOURS], "caption": CAPTIONS})
    monkeypatch.setattr(datasets, "load_dataset", lambda *names, split: asked.append((*names, split)) or table)
    dataset = load("hf://owner/name", document_format)  # type: ignore[arg-type]  # a Path would lose a slash
    assert len(dataset) == 3
    assert asked == [("owner/name", None, "train")]
