"""Pairs as the web has them: several captions, scores, classes, COCO, CC12M, and pictures of any shape."""

from __future__ import annotations

import json
import logging
import os
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_modules.dataset import DocumentFormat, Draw
from data_modules.image_text import ImageTextDataset, ImageTextSource
from data_modules.reading.cropping import Cropping
from data_modules.reading.files import Tolerance
from lit_mm.mistake import MissingFile, Mistake
from lit_mm.sequence import Frame
from tests.helpers.mixed import check_mixture
from tests.helpers.tars import picture, write_tar

BOTH = {"txt": 0.25, "json.recaption": 0.75}


def load(path: Path, format: DocumentFormat, **options: Any) -> ImageTextDataset:
    module = ImageTextSource(str(path), **options)
    module.tolerance = Tolerance("raise")
    dataset = module.dataset("train", "pairs", format)
    assert dataset is not None
    return pickle.loads(pickle.dumps(dataset))


def captions(dataset: ImageTextDataset, format: DocumentFormat, variant: int = 0) -> list[str]:
    """Texts of all documents; fails where one is not as long as was planned."""
    documents = [dataset.document(Draw(i, variant, 0)) for i in range(len(dataset))]
    assert [d.length(4) for d in documents] == dataset.lengths[variant, :].tolist()
    texts = ["".join(format.tokenizer.decode(s.ids) for s in d.segments if not isinstance(s, Frame)) for d in documents]
    for delimiter in ("<bos>", "<boi>", "<eoi>", "<eos>"):
        texts = [text.replace(delimiter, "") for text in texts]
    return texts


def web_tar(path: Path, lacking: tuple[int, ...] = ()) -> Path:
    """As img2dataset writes them, like those of CC12M: .jpg, .txt and .json with what is known of the picture."""
    members = []
    for i in range(6):
        known: dict[str, Any] = {
            "url": f"https://a/{i}.jpg",
            "similarity": i / 10,
            "width": 64 * i,
            "status": "success",
        }
        if i not in lacking:
            known["recaption"] = f"the cat number {i}"
        members += [
            (f"{i:09}.jpg", picture((40 * i, 0, 0), "JPEG")),
            (f"{i:09}.json", json.dumps(known).encode()),
            (f"{i:09}.txt", f"alt {i}".encode() if i != 5 else b""),
        ]
    return write_tar(path, members)


def pair_table(folder: Path, kind: str) -> Path:
    """The same pairs as a table."""
    folder.mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    for i in range(6):
        (folder / f"{i}.png").write_bytes(picture((40 * i, 0, 0)))
        recaption = f"the cat number {i}" if i != 2 else None
        rows.append(
            {"image": f"{i}.png", "txt": f"alt {i}" if i != 5 else "", "recaption": recaption, "similarity": i / 10}
        )
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), folder / "a.parquet")
    elif kind == "csv":
        lines = [",".join(str("" if v is None else v) for v in row.values()) for row in rows]
        (folder / "a.csv").write_text("\n".join([",".join(rows[0]), *lines]) + "\n")
    else:
        (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize("kind", ["tar", "jsonl", "parquet", "csv"])
def test_several_captions_come_in_their_shares(kind: str, tmp_path: Path, document_format: DocumentFormat) -> None:
    if kind == "tar":
        dataset = load(web_tar(tmp_path / "0.tar", lacking=(2,)).parent, document_format, captions=BOTH)
    else:
        table = pair_table(tmp_path / "t", kind)
        dataset = load(table, document_format, captions={"txt": 1, "recaption": 3})
    assert dataset.variants == ("caption_first",) * 2 + ("unconditional",) + ("image_first",) * 2
    assert dataset.shares == pytest.approx((0.72 * 0.25, 0.72 * 0.75, 0.08, 0.2 * 0.25, 0.2 * 0.75))
    alt = [f"alt {i}" for i in range(5)] + ["the cat number 5"]
    recaptions = [f"the cat number {i}" if i != 2 else "alt 2" for i in range(6)]
    for variant, expected in enumerate([alt, recaptions, [""] * 6, alt, recaptions]):
        assert captions(dataset, document_format, variant) == expected
    draws = np.arange(3), np.array([1, 1, 1])
    assert dataset.lengths[draws[1], draws[0]].tolist() == dataset.lengths[1, :][:3].tolist()


@pytest.mark.parametrize("kind", ["tar", "jsonl", "parquet", "csv"])
def test_pairs_are_filtered_by_their_scores(
    kind: str, tmp_path: Path, document_format: DocumentFormat, caplog: pytest.LogCaptureFixture
) -> None:
    path = web_tar(tmp_path / "t/0.tar").parent if kind == "tar" else pair_table(tmp_path / "t", kind)
    keep = ["similarity > 0.1", "similarity<=0.4"]
    with caplog.at_level(logging.WARNING):
        dataset = load(path, document_format, caption_column="txt", keep=keep)
    assert captions(dataset, document_format) == ["alt 2", "alt 3", "alt 4"]
    assert "3 of 6" in caplog.text
    colours = [dataset.document(Draw(i, 0, 0)).segments[1].image[0, 16, 16] for i in range(3)]  # type: ignore[union-attr]
    assert [round(int(c) / 40) for c in colours] == [2, 3, 4]
    with pytest.raises(Mistake, match=r"data.train \(keep\): .*'?clip_score'?") as caught:
        load(path, document_format, caption_column="txt", keep=["clip_score > 0.28"])
    assert "\n" not in str(caught.value)
    with pytest.raises(Mistake, match="keep: 'clip_score' is no condition; write such as clip_score > 0.28"):
        ImageTextSource("x", keep=["clip_score"])


def test_a_filter_may_lack_a_number(
    tmp_path: Path, document_format: DocumentFormat, caplog: pytest.LogCaptureFixture
) -> None:
    members = [(f"{i}.png", picture((9, 9, 9))) for i in range(4)] + [
        (f"{i}.txt", f"alt {i}".encode()) for i in range(4)
    ]
    members += [("0.json", b'{"score": "0.9"}'), ("1.json", b'{"score": null}'), ("2.json", b"broken")]
    path = write_tar(tmp_path / "0.tar", members)
    with caplog.at_level(logging.WARNING):
        dataset = load(path, document_format, keep=["json.score > 0.5"])
    assert captions(dataset, document_format) == ["alt 0"]
    assert "3 of 4 pairs are left out by keep, 3 of them without a number in json.score" in caplog.text


def test_captions_and_their_column_are_one_or_the_other() -> None:
    for options in ({"caption_column": "txt"}, {"captions": {"txt": -1}}, {"captions": {}}):
        with pytest.raises(Mistake, match=r"captions: .* give one of them, captions with shares such as"):
            ImageTextSource("x", **{"captions": {"txt": 1}, **options})  # type: ignore[arg-type]


def test_classes_are_captioned_by_templates(tmp_path: Path, document_format: DocumentFormat) -> None:
    for number, name in enumerate(("n01", "n02_wild")):
        (tmp_path / "train" / name).mkdir(parents=True)
        for i in range(12):
            (tmp_path / f"train/{name}/{i}.png").write_bytes(picture((99 * number, 0, 0)))
    templates = ["a photo of a {}", "a drawing of a {}"]
    found = captions(load(tmp_path / "train", document_format, class_captions=templates), document_format)
    assert Counter(text.partition(" of a ")[2] for text in found) == {"n01": 12, "n02 wild": 12}
    assert len(set(found)) == 4
    names = tmp_path / "names.json"
    for content in ({"n01": "tench", "n02_wild": "wild_cat"}, {"0": ["n01", "tench"], "1": ["n02_wild", "wild cat"]}):
        names.write_text(json.dumps(content))
        dataset = load(tmp_path / "train", document_format, class_captions=templates, class_names=str(names))
        assert [text.partition(" of a ")[2] for text in captions(dataset, document_format)] == ["tench"] * 12 + [
            "wild cat"
        ] * 12
    names.write_text('{"n01": "tench"}')
    with pytest.raises(Mistake, match=r"class_names: '.*names.json' has no name for the folder 'n02_wild'; add one"):
        load(tmp_path / "train", document_format, class_captions=templates, class_names=str(names))
    with pytest.raises(Mistake, match="class_captions has 'a photo'; write {} once"):
        load(tmp_path / "train", document_format, class_captions=["a photo"])
    with pytest.raises(MissingFile, match="has no folders with pictures"):
        load(tmp_path / "train/n01", document_format, class_captions=templates)
    (tmp_path / "train/n01" / os.fsdecode(b"caf\xe9.png")).write_bytes(picture((0, 0, 0)))
    with pytest.raises(Mistake, match=r"/train/n01/caf.xe9.png' is not written in utf-8, .*; rename the file or"):
        load(tmp_path / "train", document_format, class_captions=templates)


def test_coco(tmp_path: Path, document_format: DocumentFormat) -> None:
    (tmp_path / "train2017").mkdir()
    (tmp_path / "annotations").mkdir()
    images = [{"id": 7 - i, "file_name": f"{i:012}.jpg", "height": 32, "width": 40} for i in range(3)]
    for i, image in enumerate(images):
        (tmp_path / "train2017" / image["file_name"]).write_bytes(picture((80 * i, 0, 0), "JPEG"))  # type: ignore[operator]
    annotations = [
        {"image_id": 7 - i, "id": 10 * k + i, "caption": f"the cat {i} {k} "} for k in range(2) for i in range(3)
    ]
    file = tmp_path / "annotations/captions_train2017.json"
    file.write_text(json.dumps({"info": {}, "images": images, "annotations": annotations}))
    dataset = load(file, document_format, pictures=str(tmp_path / "train2017"))
    assert captions(dataset, document_format) == [f"the cat {i} {k}" for k in range(2) for i in range(3)]
    reds = [int(dataset.document(Draw(i, 0, 0)).segments[1].image[0, 9, 9]) for i in range(6)]  # type: ignore[union-attr]
    assert [round(red / 80) for red in reds] == [0, 1, 2, 0, 1, 2]
    file.write_text("[1]")
    with pytest.raises(Mistake, match="has no 'images' and 'annotations' as of COCO; rename a file of JSON Lines"):
        load(file, document_format)


@pytest.mark.parametrize("rule", ["centre", "squash", "four_thirds"])
def test_a_stated_part_of_the_picture_is_shown(rule: str, tmp_path: Path, document_format: DocumentFormat) -> None:
    """Of a picture of 3 parts by 1, in which the first third is red and the last one blue."""
    pixels = np.zeros((60, 180, 3), np.uint8)
    pixels[:, :60, 0], pixels[:, 60:120, 1], pixels[:, 120:, 2] = 255, 255, 255
    Image.fromarray(pixels).save(tmp_path / "1.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "1.png", "caption": "flag"}\n')
    module = ImageTextSource(str(tmp_path), str(tmp_path), crop=Cropping(rule))  # type: ignore[arg-type]
    for split in ("train", "val"):
        dataset = module.dataset(split, "pairs", document_format)  # type: ignore[arg-type]
        assert dataset is not None
        image = dataset.document(Draw(0, 0, 5)).segments[1].image  # type: ignore[union-attr]
        columns = [int(column.argmax()) for column in image[:, 16].T]
        expected = {"centre": [0, 32, 0], "squash": [11, 10, 11], "four_thirds": [4, 24, 4]}[rule]
        found = [columns.count(channel) for channel in range(3)]
        assert all(abs(a - b) <= 1 for a, b in zip(found, expected, strict=True)), (split, found)
        assert dataset.pictures is not None
        assert (dataset.pictures.read([0])[0] == image).all(), "latents are made of the same part"
    identities = {
        ImageTextSource(str(tmp_path), crop=Cropping(one))
        .dataset("train", "p", document_format)
        .pictures.identities(np.zeros(1, np.int64))
        .item()
        for one in ("centre", rule)
    }  # type: ignore[arg-type, union-attr]
    assert len(identities) == (1 if rule == "centre" else 2)


def test_in_a_mixture(tmp_path: Path, document_format: DocumentFormat) -> None:
    web_tar(tmp_path / "0.tar", lacking=(1,))
    check_mixture(
        ImageTextSource(str(tmp_path / "0.tar"), captions=BOTH, keep=["similarity > 0"]), tmp_path, document_format
    )
