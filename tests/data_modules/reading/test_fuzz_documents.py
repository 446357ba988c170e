"""Damaged files of conversations, pages, COCO, captions of videos and LeRobot, as in `test_fuzz`: a sentence or documents."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_modules.action_video import ActionVideoSource
from data_modules.conversation import ConversationSource
from data_modules.dataset import BrokenFile, DocumentFormat, Draw
from data_modules.image_text import ImageTextSource
from data_modules.index.listing import Listing
from data_modules.interleaved import InterleavedSource
from data_modules.mixing.loader_config import LoaderConfig
from data_modules.prompting.template import Template
from data_modules.source import Source
from data_modules.video import VideoSource
from lit_mm.mistake import Mistake
from tests.data_modules.reading.test_fuzz import TEXTS, faults
from tests.data_modules.video_files import moving_picture, write_video
from tests.helpers.lerobot import lerobot_2_of_pictures, lerobot_3_of_pictures
from tests.helpers.tars import picture

CASES = 150  # of each file: a whole source is opened for each
TALK = [
    {
        "image": "1.png",
        "conversations": [{"from": "human", "value": f"<image>\nWhat is {i}?"}, {"from": "gpt", "value": text}],
    }
    for i, text in enumerate(TEXTS[:20])
]
PAGES = [{"texts": [text, None, "the cat"], "images": [None, "1.png", None]} for text in TEXTS[:20]]
COCO = {
    "images": [{"id": i, "file_name": "1.png", "height": 32, "width": 32} for i in range(20)],
    "annotations": [{"image_id": i, "id": i, "caption": text} for i, text in enumerate(TEXTS[:20])],
}
ACTION = "action: {action[0]:+.1f}"
FILES: dict[str, tuple[Callable[[str], Source], Any]] = {
    "talk.json": (ConversationSource, TALK),
    "talk.jsonl": (ConversationSource, TALK),
    "talk.parquet": (ConversationSource, TALK),
    "pages.jsonl": (InterleavedSource, PAGES),
    "pages.parquet": (InterleavedSource, PAGES),
    "coco.json": (ImageTextSource, COCO),
    "pairs.csv": (ImageTextSource, [{"image": "1.png", "caption": text} for text in TEXTS[:20]]),
    "captions.csv.gz": (VideoSource, [{"video": "walk", "caption": text} for text in TEXTS[:1]]),
}


def written(name: str, rows: Any) -> bytes:
    """Rows as the name ends."""
    if name.endswith(".parquet"):
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows), sink)
        return bytes(sink.getvalue())
    if name.endswith(".csv.gz"):
        return gzip.compress(pd.DataFrame(rows).to_csv(index=False).encode())
    if name.endswith(".csv"):
        return pd.DataFrame(rows).to_csv(index=False).encode()
    if name.endswith(".jsonl"):
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    return json.dumps(rows).encode()


def documents(source: Source, cache_folder: Path, format: DocumentFormat) -> None:
    """The first, the middle and the last document of a source."""
    source.join(LoaderConfig(cache=str(cache_folder)), Template(), Listing())
    dataset = source.dataset("train", "data", format)
    assert dataset is not None
    for index in {0, len(dataset) // 2, len(dataset) - 1} if len(dataset) else ():
        for variant in range(len(dataset.shares)):
            dataset.document(Draw(index, variant, 0))


def read_file(make: Callable[[str], Source], format: DocumentFormat, beside: Path, file: Path) -> None:
    """A file of rows with a picture and a video beside it."""
    for sound in beside.iterdir():
        shutil.copy(sound, file.parent)
    source = make(str(file))
    if isinstance(source, VideoSource):
        source = VideoSource(str(file.parent / "walk.mp4"), fps=10, frames=2, captions=str(file))
    documents(source, file.parent / "cache", format)


def read_folder(sound: Path, name: str, format: DocumentFormat, file: Path) -> None:
    """A data set of LeRobot, one of whose files is the damaged one."""
    folder = file.parent / sound.name
    shutil.copytree(sound, folder, dirs_exist_ok=True)
    shutil.copy(file, folder / name)
    try:
        documents(ActionVideoSource(str(folder), text=ACTION, context=1, horizon=1), file.parent / "cache", format)
    except Mistake as error:  # whichever of its files it names
        if str(folder) in str(error):
            raise BrokenFile(file, error) from error
        raise


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the rows name."""
    folder = tmp_path_factory.mktemp("beside")
    (folder / "1.png").write_bytes(picture((255, 0, 0)))
    write_video(folder / "walk.mp4", moving_picture(24))
    return folder


@pytest.mark.long
@pytest.mark.parametrize("name", FILES)
def test_damaged_files_are_read_or_named(
    name: str, beside: Path, tmp_path: Path, document_format: DocumentFormat
) -> None:
    make, rows = FILES[name]
    ending = name.partition(".")[2]
    assert (
        faults(ending, written(name, rows), CASES, tmp_path, [partial(read_file, make, document_format, beside)]) == []
    )


@cache
def sound_folder(root: Path, version: int) -> Path:
    """A data set of LeRobot."""
    return {2: lerobot_2_of_pictures, 3: lerobot_3_of_pictures}[version](root / f"v{version}")


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        *("v2/meta/info.json", "v2/meta/episodes.jsonl", "v2/data/chunk-000/episode_000001.parquet"),
        *("v3/meta/info.json", "v3/meta/episodes/chunk-000/file-000.parquet", "v3/data/chunk-000/file-000.parquet"),
    ],
)
def test_damaged_files_of_lerobot_are_read_or_named(
    name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, document_format: DocumentFormat
) -> None:
    version, _, inside = name.partition("/")
    sound = sound_folder(tmp_path_factory.getbasetemp() / "sound", int(version[1]))
    reader = partial(read_folder, sound, inside, document_format)
    assert faults(inside.rpartition(".")[2], (sound / inside).read_bytes(), CASES, tmp_path, [reader]) == []
