"""Numbers of pictures are equal where and only where pictures are, however their source grows, moves and changes."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_modules.conversation import ConversationSource
from data_modules.dataset import DocumentFormat
from data_modules.image_text import ImageTextSource
from data_modules.interleaved import InterleavedSource
from data_modules.reading.picture_identity import by_group, numbers_within, root_of
from data_modules.source import Source
from data_modules.video import VideoSource
from tests.data_modules.test_video_layouts import write_frames
from tests.data_modules.video_files import moving_picture, write_video
from tests.helpers.lerobot import lerobot_2, lerobot_3, lerobot_3_of_pictures
from tests.helpers.tars import write_tar

EACH = 5  # pictures of a file
Write = Callable[[Path, int], Any]  # the file of a number


def png(*number: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def rows(number: int) -> list[dict[str, Any]]:
    return [{"image": png(number, i), "caption": f"a cat {number} {i}"} for i in range(EACH)]


def in_folder(folder: Path, number: int) -> None:
    lines = []
    for i in range(EACH):
        (folder / f"{number}.{i}.png").write_bytes(png(number, i))
    for file in sorted(folder.glob("*.png")):
        lines.append(json.dumps({"file_name": file.name, "caption": f"a cat {file.name}"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))


def of_classes(folder: Path, number: int) -> None:
    (folder / f"class {number}").mkdir(exist_ok=True)
    for i in range(EACH):
        (folder / f"class {number}" / f"{i}.png").write_bytes(png(number, i))


def in_tar(folder: Path, number: int) -> None:
    members = [((f"{i}.png", png(number, i)), (f"{i}.txt", b"a cat")) for i in range(EACH)]
    write_tar(folder / f"{number}.tar", [member for both in members for member in both])


def in_table(folder: Path, number: int) -> None:
    pq.write_table(pa.Table.from_pylist(rows(number)), folder / f"{number}.parquet", row_group_size=2)


def named_in_table(folder: Path, number: int) -> None:
    table = []
    for i, row in enumerate(rows(number)):
        (folder / f"{number}.{i}.png").write_bytes(row["image"])
        table.append({"image": f"{number}.{i}.png", "caption": row["caption"]})
    pq.write_table(pa.Table.from_pylist(table), folder / f"{number}.parquet", row_group_size=2)


def videos(folder: Path, number: int) -> None:
    write_video(folder / f"{number}.mp4", moving_picture(EACH, seed=number), g="3")


def videos_in_tar(folder: Path, number: int) -> None:
    made = write_video(folder.parent / "made" / f"{number}.mp4", moving_picture(EACH, seed=number), g="3")
    write_tar(folder / f"{number}.tar", [(f"{number}.mp4", made.read_bytes())])


def frames(folder: Path, number: int) -> None:
    write_frames(folder / str(number), moving_picture(EACH, seed=number))


def recordings(folder: Path, number: int) -> None:
    with h5py.File(folder / f"{number}.hdf5", "w") as file:
        file["images/rgb_left"] = np.stack(moving_picture(EACH, seed=number))


def page(number: int, pictures: list[Any]) -> dict[str, Any]:
    texts = [text for i in range(EACH) for text in (None, f"number {number} {i}")]
    return {"images": [one for picture in pictures for one in (picture, None)], "texts": texts}


def pages(folder: Path, number: int) -> None:
    images = [{"bytes": png(number, i), "path": None} for i in range(EACH)]
    pq.write_table(pa.Table.from_pylist([page(number, images)]), folder / f"{number}.parquet")


def written_out(folder: Path, number: int) -> None:
    images = [f"data:image/png;base64,{base64.b64encode(png(number, i)).decode()}" for i in range(EACH)]
    (folder / f"{number}.jsonl").write_text(json.dumps(page(number, images)))


def conversations(folder: Path, number: int) -> None:
    told = []
    for i in range(EACH):
        (folder / f"{number}.{i}.png").write_bytes(png(number, i))
        turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": f"a cat {i}"}]
        told.append({"image": f"{number}.{i}.png", "conversations": turns})
    (folder / f"{number}.json").write_text(json.dumps(told))


CLIPS: dict[str, Any] = {"fps": 10, "frames": 2, "stride": 1}
SOURCES: dict[str, tuple[Write, Callable[[str], Source]]] = {
    "folder": (in_folder, ImageTextSource),
    "classes": (of_classes, lambda path: ImageTextSource(path, class_captions=["a {}"])),
    "tars": (in_tar, ImageTextSource),
    "Parquet": (in_table, ImageTextSource),
    "Parquet of names": (named_in_table, ImageTextSource),
    "videos": (videos, lambda path: VideoSource(path, **CLIPS)),
    "videos in tars": (videos_in_tar, lambda path: VideoSource(path, **CLIPS)),
    "frames": (frames, lambda path: VideoSource(path, frame_rate=10, **CLIPS)),
    "HDF5": (recordings, lambda path: VideoSource(path, frame_rate=10, **CLIPS)),
    "pages": (pages, InterleavedSource),
    "pages, written out": (written_out, InterleavedSource),
    "conversations": (conversations, ConversationSource),
}


def identities(source: Source, format: DocumentFormat) -> dict[int, str]:
    """What every picture shows, by its number."""
    dataset = source.dataset("train", "source", format)
    assert dataset is not None
    assert dataset.pictures is not None
    keys = dataset.picture_keys()
    numbers = dataset.pictures.identities(keys)
    assert numbers.dtype == np.uint64
    backwards = [dataset.pictures.identities(keys[i : i + 1]).item() for i in reversed(range(len(keys)))]
    assert backwards[::-1] == numbers.tolist(), "each on its own, whichever others are asked"
    pictures = dataset.pictures.read(keys.tolist())
    pixels = [hashlib.sha256(picture.numpy().tobytes()).hexdigest() for picture in pictures]
    assert len({*numbers.tolist()}) == len({*pixels}) == len(keys)
    return dict(zip(numbers.tolist(), pixels, strict=True))


@pytest.mark.parametrize("kind", SOURCES)
def test_equal_where_pictures_are(kind: str, tmp_path: Path, document_format: DocumentFormat) -> None:
    write, source = SOURCES[kind]
    folder = tmp_path / "source"
    folder.mkdir()
    for number in (5, 7):
        write(folder, number)
    first = identities(source(str(folder)), document_format)
    assert len(first) == 2 * EACH
    shutil.copytree(folder, tmp_path / "moved")  # with times of change
    assert identities(source(str(tmp_path / "moved")), document_format) == first
    write(folder, 3)  # before the others
    grown = identities(source(str(folder)), document_format)
    assert len(grown) == 3 * EACH
    assert first.items() <= grown.items()
    assert not {*identities(source(str(folder)), replace(document_format, image_size=16))} & {*grown}
    write(tmp_path / "moved", 9)
    changed = tmp_path / "changed"
    changed.mkdir()
    for number in (8, 7):
        write(changed, number)
    for file in sorted(changed.rglob("8*")):  # other contents under an old name
        file.rename(file.with_name(file.name.replace("8", "5", 1)))
    for file in [file for file in changed.rglob("*") if file.is_file()]:
        for one in (file, file.parent):
            os.utime(one, ns=(10**18, 10**18))
    if kind not in ("folder", "Parquet of names", "conversations", "pages, written out"):  # these name what was renamed
        other = identities(source(str(changed)), document_format)
        assert not {*other} & {*grown}
        assert {*other.values()} & {*first.values()}, "the same pictures in a file of another time"


def test_a_changed_file_changes_its_own_pictures_alone(tmp_path: Path, document_format: DocumentFormat) -> None:
    for kind in ("folder", "tars", "videos"):
        write, source = SOURCES[kind]
        (tmp_path / kind).mkdir()
        for number in (5, 7):
            write(tmp_path / kind, number)
        before = identities(source(str(tmp_path / kind)), document_format)
        touched = next(file for file in sorted((tmp_path / kind).iterdir()) if file.name.startswith("5"))
        os.utime(touched, ns=(10**18, 10**18))
        after = identities(source(str(tmp_path / kind)), document_format)
        assert len(before.keys() - after.keys()) == (1 if kind == "folder" else EACH)
        assert {*before.values()} == {*after.values()}


def test_cameras_of_one_file_differ(tmp_path: Path, document_format: DocumentFormat) -> None:
    with h5py.File(tmp_path / "0.hdf5", "w") as file:
        file["left"], file["right"] = np.stack(moving_picture(EACH)), np.stack(moving_picture(EACH, seed=1))
    found = [
        identities(VideoSource(str(tmp_path), camera=camera, frame_rate=10, **CLIPS), document_format)
        for camera in ("left", "right")
    ]
    assert not {*found[0]} & {*found[1]}


@pytest.mark.parametrize("write", [lerobot_2, lerobot_3, lerobot_3_of_pictures])
def test_episodes_of_one_file_differ(
    write: Callable[[Path], Path], tmp_path: Path, document_format: DocumentFormat
) -> None:
    root = write(tmp_path / "robot")
    whole, first = (identities(VideoSource(f"{root}{some}", **CLIPS), document_format) for some in ("", "#0:1"))
    assert len(first) < len(whole)
    assert first.items() <= whole.items()


@given(st.lists(st.integers(0, 2**40), unique=True, max_size=50), st.integers(0, 2**64 - 1))
def test_places_of_one_file_never_meet(places: list[int], whole: int) -> None:
    assert len({*numbers_within(whole, np.array(places, np.int64)).tolist()}) == len(places)


@given(st.lists(st.integers(0, 3), max_size=30))
def test_groups_are_found_one_by_one(groups: list[int]) -> None:
    given_ = np.array(groups, np.int64)
    numbers = np.arange(len(groups), dtype=np.uint64)
    found = by_group(given_, lambda group, some: numbers[some] + np.uint64(1000 * group))
    assert found.tolist() == [i + 1000 * group for i, group in enumerate(groups)]


def test_roots_stay_when_a_source_grows(tmp_path: Path) -> None:
    (tmp_path / "data" / "a [1]").mkdir(parents=True)
    (tmp_path / "data" / "0.tar").touch()
    root = str(tmp_path / "data")
    for path in (root, f"{root}/0.tar", f"{root}/*.tar", f"{root}/{{0..7}}.tar", f"{root}/*/x.tar", f"{root}#0:180"):
        assert root_of(path) == root
    assert root_of(f"{root}/a [1]") == f"{root}/a [1]"
    for path in ("s3://b/web", "s3://b/web/", "s3://b/web/*.tar", "s3://b/web/0.tar", "s3://b/web/{0..7}.tar"):
        assert root_of(path) == "s3://b/web"
