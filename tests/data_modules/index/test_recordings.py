"""What is known of videos lies in indexes of some of them each: a folder that grows does not start again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from data_modules.action_video import ActionVideoDataModule, ActionVideoSource
from data_modules.dataset import DocumentFormat
from data_modules.index import recording_index
from data_modules.index.__main__ import make_part
from data_modules.index.keys import cache_folder
from data_modules.reading import episodes
from data_modules.reading.decoding import index_video
from data_modules.video import VideoDataModule, VideoDataset, VideoSource
from tests.data_modules.video_files import moving_picture, write_video


def videos(folder: Path, count: int) -> Path:
    """So many videos of 9 to 13 frames."""
    sources = [write_video(folder.parent / f"{n}.mp4", moving_picture(9 + n)) for n in range(5)]
    folder.mkdir()
    for n in range(count):
        shutil.copy(sources[n % 5], folder / f"{n:03}.mp4")
    return folder


def made() -> dict[str, int]:
    """Indexes that are there, and when each was written."""
    return {file.name: file.stat().st_mtime_ns for file in (cache_folder(None) / "files").rglob("*.safetensors")}


def load(folder: Path, format: DocumentFormat) -> VideoDataset:
    dataset = VideoSource(str(folder), fps=10, frames=3).dataset("train", "videos", format)
    assert dataset is not None
    return dataset


def check(dataset: VideoDataset, folder: Path) -> None:
    """Every row of the table is what the file itself says."""
    files = sorted(folder.iterdir())
    table = dataset.clips.table
    assert [table.path(row) for row in range(len(table))] == [str(file) for file in files]
    for row, file in enumerate(files):
        expected, found = index_video(file), table.index(row)
        assert found.pts.tolist() == expected.pts.tolist()
        assert found.keyframes.tolist() == expected.keyframes.tolist()
        assert found.time_base == expected.time_base


def test_a_folder_that_grows_goes_on(
    tmp_path: Path, document_format: DocumentFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording_index, "TOGETHER", 4)
    folder = videos(tmp_path / "clips", 40)
    check(load(folder, document_format), folder)
    first = made()
    assert 5 <= len(first) <= 20
    shutil.copy(folder / "001.mp4", folder / "0205.mp4")
    shutil.copy(folder / "001.mp4", folder / "900.mp4")
    (folder / "030.mp4").unlink()
    check(load(folder, document_format), folder)
    second = made()
    assert first.items() <= second.items(), "nothing is made again"
    assert len(second) - len(first) <= 3 + 1, "of each change the group that it is in, or two where it ends one"


def test_warm_starts_open_no_index(tmp_path: Path, document_format: DocumentFormat) -> None:
    folder = videos(tmp_path / "clips", 3)
    load(folder, document_format)
    shutil.rmtree(cache_folder(None) / "files")
    check(load(folder, document_format), folder)
    assert made() == {}


def test_indexes_are_made_ahead(tmp_path: Path, document_format: DocumentFormat) -> None:
    folder = videos(tmp_path / "clips", 5)
    for file in folder.iterdir():
        rows = "".join(f"{n},0,0,{n}\n" for n in range(len(index_video(file))))
        file.with_suffix(".csv").write_text(f"frame,x,y,angle\n{rows}")
    tokenizer = str(document_format.tokenizer.file)
    for module in (
        VideoDataModule(train=str(folder), fps=10, frames=3, tokenizer=tokenizer),
        ActionVideoDataModule(train=str(folder), context=2, horizon=3, targets=1, tokenizer=tokenizer),
    ):
        before = made()
        for part in (1, 2):
            make_part(module, part, 2)
        there = made()
        assert len(there) > len(before)
        (source,) = module.mixture.sources.values()
        assert source.dataset("train", "x", document_format) is not None
        assert made() == there, "a run finds them made"


def test_poses_are_those_of_the_tables(tmp_path: Path, document_format: DocumentFormat) -> None:
    folder = videos(tmp_path / "clips", 4)
    for number, file in enumerate(sorted(folder.iterdir())):
        rows = "".join(f"{n},{n + number / 4},{-n},{7 * n}\n" for n in range(len(index_video(file))))
        file.with_suffix(".csv").write_text(f"frame,x,y,angle\n{rows}" if number != 2 else "frame\n0\n")
    module = ActionVideoSource(str(folder), context=2, horizon=3, targets=1)
    found = module._found(str(folder), "data.train")
    table = episodes.index_recordings(found, module.cache, "data.train", module._columns)
    assert [len(table), table.usable().tolist()] == [4, [0, 1, 3]]
    for row in (0, 1, 3):
        count = len(table.index(row))
        assert table.numbers("x", row).tolist() == [n + row / 4 for n in range(count)]
        assert table.numbers("angle", row).tolist() == [7.0 * n for n in range(count)]
