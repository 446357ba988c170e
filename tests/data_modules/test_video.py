"""Clips hold the frames that a player shows at their moments."""

from __future__ import annotations

import logging
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_modules.dataset import BrokenFile, DocumentFormat, Draw
from data_modules.reading.files import Tolerance
from data_modules.video import VideoDataModule, VideoDataset
from lit_mm.mistake import MissingFile, Mistake
from lit_mm.packing import pack_rows
from lit_mm.sequence import IGNORE, Frame, PackedRow
from tests.data_modules.video_files import decode_all, moving_picture, write_video


def load(path: Path, format: DocumentFormat, on_error: str = "raise", **options: Any) -> VideoDataset:
    module = VideoDataModule(str(path), **options)
    module.tolerance = Tolerance(on_error)
    dataset = module.dataset("train", "clips", format)
    assert dataset is not None
    return dataset


def clip(dataset: VideoDataset, index: int) -> list[np.ndarray]:
    segments = dataset.document(Draw(index, 0, 0)).segments
    return [s.image.permute(1, 2, 0).numpy() for s in segments if isinstance(s, Frame)]


def numbers(frames: list[np.ndarray], full: list[np.ndarray]) -> list[int]:
    """Which frames of a full decode these are, -1 for one that is not among them."""
    return [next((i for i, f in enumerate(full) if np.array_equal(f, frame)), -1) for frame in frames]


def all_numbers(dataset: VideoDataset, full: list[np.ndarray]) -> list[list[int]]:
    """Frame numbers of every clip, sorted (clips come in a fixed shuffled order)."""
    return sorted(numbers(clip(dataset, i), full) for i in range(len(dataset)))


def test_clips_at_the_file_rate_tile_the_video(tmp_path: Path, document_format: DocumentFormat) -> None:
    path = write_video(tmp_path / "a.mp4", moving_picture(23), rate=10, g="6", bf="2")
    dataset = pickle.loads(pickle.dumps(load(path, document_format, fps=10, frames=5)))
    assert all_numbers(dataset, decode_all(path)) == [
        [0, 1, 2, 3, 4],
        [5, 6, 7, 8, 9],
        [10, 11, 12, 13, 14],
        [15, 16, 17, 18, 19],
    ]


@pytest.mark.parametrize(
    ("rate", "fps", "frames", "stride", "expected"),
    [
        (10, 2, 3, None, [[0, 5, 10], [15, 20, 25]]),
        (10, 2, 3, 1, [[0, 5, 10], [5, 10, 15], [10, 15, 20], [15, 20, 25]]),
        (10, 4, 4, None, [[0, 2, 5, 7], [10, 12, 15, 17], [20, 22, 25, 27]]),
        (5, 10, 4, 40, [[0, 0, 1, 1], [20, 20, 21, 21]]),
    ],
)
def test_rate_and_stride(
    rate: int,
    fps: float,
    frames: int,
    stride: int | None,
    expected: list[list[int]],
    tmp_path: Path,
    document_format: DocumentFormat,
) -> None:
    path = write_video(tmp_path / "a.mp4", moving_picture(30), rate=rate, g="8")
    dataset = load(path, document_format, fps=fps, frames=frames, stride=stride)
    assert all_numbers(dataset, decode_all(path)) == expected


def test_variable_rate_shows_what_a_player_shows(tmp_path: Path, document_format: DocumentFormat) -> None:
    """At 0, 0.5, 1, 1.5 and 2 seconds the last frame that has appeared is on the screen."""
    times = [0.0, 0.1, 0.2, 0.9, 1.0, 1.9, 2.3]
    path = write_video(tmp_path / "a.mkv", moving_picture(7), times=times, bf="0")
    dataset = load(path, document_format, fps=2, frames=5)
    assert numbers(clip(dataset, 0), decode_all(path)) == [0, 2, 4, 4, 5]


def test_ntsc_rate_does_not_drift(tmp_path: Path, document_format: DocumentFormat) -> None:
    from fractions import Fraction

    path = write_video(tmp_path / "a.mp4", moving_picture(40), rate=Fraction(30000, 1001), g="8")
    dataset = load(path, document_format, fps=30000 / 1001, frames=8)
    assert np.concatenate(all_numbers(dataset, decode_all(path))).tolist() == list(range(40))


def test_several_files_and_sizes(tmp_path: Path, document_format: DocumentFormat) -> None:
    for name, count, height, width in [("a.mp4", 12, 32, 32), ("b.mp4", 3, 32, 32), ("deep/c.avi", 9, 48, 80)]:
        write_video(tmp_path / name, moving_picture(count, height, width), "mpeg4")
    dataset = load(tmp_path, document_format, fps=10, frames=4)
    assert len(dataset) == 3 + 0 + 2
    assert {f.shape for i in range(5) for f in clip(dataset, i)} == {(32, 32, 3)}
    foreign = [-1] * 4
    assert all_numbers(dataset, decode_all(tmp_path / "a.mp4")) == [
        foreign,
        foreign,
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10, 11],
    ]


def test_the_first_clips_are_from_all_files(tmp_path: Path, document_format: DocumentFormat) -> None:
    for name in "abcd":
        write_video(tmp_path / f"{name}.mp4", moving_picture(20), "mpeg4")
    dataset = load(tmp_path, document_format, fps=10, frames=1)
    assert set(dataset.clips.rows(dataset.order[:20]).tolist()) == {0, 1, 2, 3}
    assert sorted(dataset.order.tolist()) == list(range(80))


@pytest.mark.parametrize("count", [8, 15, 26])
def test_the_last_frame_is_shown_where_its_time_is_no_binary_number(
    count: int, tmp_path: Path, document_format: DocumentFormat
) -> None:
    """7, 14 and 25 times 512 / 12,288 of a second, times 24, are a little less than whole numbers."""
    path = write_video(tmp_path / "a.mp4", moving_picture(count), rate=24)
    assert all_numbers(load(path, document_format, fps=24, frames=count), decode_all(path)) == [list(range(count))]


def test_document(tmp_path: Path, document_format: DocumentFormat) -> None:
    path = write_video(tmp_path / "a.mp4", moving_picture(12))
    dataset = load(path, document_format, fps=10, frames=3)
    t = document_format.tokenizer
    document = dataset.document(Draw(1, 0, 0))
    frames = [s for s in document.segments if isinstance(s, Frame)]
    assert [f.clean for f in frames] == [False] * 3
    assert all(f.image.dtype == torch.uint8 for f in frames)
    assert (dataset.lengths == document.length(4)).all()
    assert dataset.lengths.shape == (1, 4)
    row = PackedRow((document,), number=0, seed=0)
    batch = pack_rows([row], length=32, tokens_per_frame=4, image_size=32, pad_id=t.pad_id, sources=("clips",))
    assert t.decode(batch.tokens[0][batch.frame_ids[0] < 0]) == "<bos><boi><eoi><boi><eoi><boi><eoi><eos>"
    targets = batch.targets[0]
    assert targets[targets != IGNORE].tolist() == [t.boi_id, t.boi_id, t.eos_id], "only what follows a drawn frame"


def test_broken_video(tmp_path: Path, document_format: DocumentFormat, caplog: pytest.LogCaptureFixture) -> None:
    content = write_video(tmp_path / "000.mp4", moving_picture(12)).read_bytes()
    for i in range(1, 110):
        (tmp_path / f"{i:03}.mp4").write_bytes(content[: 400 if i == 50 else None])
    with pytest.raises(BrokenFile) as caught:
        load(tmp_path, document_format, fps=10, frames=3)
    assert str(caught.value) == f"'{tmp_path / '050.mp4'}' broke while being read: it is no video, or cut short"
    with caplog.at_level(logging.WARNING):
        dataset = load(tmp_path, document_format, "skip", fps=10, frames=3)
    assert "1 of 110" in caplog.text
    assert (len(dataset), dataset.skipped_at_setup) == (109 * 4, 1)
    counts = Counter(map(tuple, all_numbers(dataset, decode_all(tmp_path / "051.mp4"))))
    assert counts == {(0, 1, 2): 109, (3, 4, 5): 109, (6, 7, 8): 109, (9, 10, 11): 109}


def test_short_videos(tmp_path: Path, document_format: DocumentFormat, caplog: pytest.LogCaptureFixture) -> None:
    write_video(tmp_path / "short.mp4", moving_picture(5))
    with pytest.raises(Mistake, match=r"data.train: 1 of 1 videos are shorter than a clip of 6 .*short.mp4.*lower"):
        load(tmp_path, document_format, fps=10, frames=6)
    write_video(tmp_path / "long.mp4", moving_picture(12))
    with caplog.at_level(logging.WARNING):
        assert len(load(tmp_path, document_format, fps=10, frames=6)) == 2
    assert "1 of 2 videos are shorter" in caplog.text


def test_bad_input_is_said_in_one_sentence(tmp_path: Path, document_format: DocumentFormat) -> None:
    with pytest.raises(MissingFile, match="data.train: there is no file or folder"):
        load(tmp_path / "nothing", document_format)
    with pytest.raises(MissingFile, match=r"data.train: '.*' holds no .mp4, .* file"):
        load(tmp_path, document_format)
    with pytest.raises(Mistake, match="fps: 0 frames per second"):
        VideoDataModule("x", fps=0)
    with pytest.raises(Mistake, match="frames and stride: 0"):
        VideoDataModule("x", frames=0)


def test_videos_with_few_keyframes_are_named(
    tmp_path: Path, document_format: DocumentFormat, caplog: pytest.LogCaptureFixture
) -> None:
    write_video(tmp_path / "often.mp4", moving_picture(1100, 16, 16), "mpeg4", g="200")
    write_video(tmp_path / "once.mp4", moving_picture(1100, 16, 16), "mpeg4", g="600", sc_threshold="1000000000")
    load(tmp_path, document_format)
    assert "keyframe" not in caplog.text
    write_video(
        tmp_path / "once.mp4", moving_picture(1100, 16, 16), "libx264", **{"x264-params": "keyint=2000:scenecut=0"}
    )
    load(tmp_path, document_format)
    assert "data.train: in 1 of 2 videos more than 1000 frames follow one keyframe" in caplog.text
    assert "once.mp4" in caplog.text
