"""Whenever the frames of a video are shown, and however they are coded: what is read is what a full decode shows."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_modules.dataset import BrokenFile
from data_modules.reading.decoding import VideoReader, index_video
from tests.data_modules.video_files import moving_picture

MILLISECOND = Fraction(1, 1000)
CODECS = {"mp4": "libx264", "mkv": "libx264", "mov": "mpeg4", "ts": "libx264", "webm": "libvpx", "flv": "libx264"}
PICTURES = moving_picture(90)


def write(path: Path, times: list[int], options: dict[str, str]) -> None:
    """A video whose frames are shown from these milliseconds on."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(CODECS[path.suffix[1:]], rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.time_base = MILLISECOND
        for time, picture in zip(times, PICTURES, strict=False):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, MILLISECOND
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def decoded(path: Path) -> list[tuple[Fraction, np.ndarray]]:
    """Seconds and pixels of every frame, in order, up to where the file is damaged."""
    frames = []
    with av.open(str(path)) as container, contextlib.suppress(av.FFmpegError):
        for frame in container.decode(video=0):
            frames.append((frame.pts * frame.time_base, frame.to_ndarray(format="rgb24")))
    return [(time - frames[0][0], picture) for time, picture in frames]


@st.composite
def coded(draw: st.DrawFn) -> tuple[str, list[int], dict[str, str]]:
    """A container, the moments of its frames in milliseconds, and how they are coded."""
    count = draw(st.sampled_from((1, 2, 7, 24, 70)))  # headers are compared with 64 packets
    apart = [draw(st.sampled_from((34, 40, 100)))] * count if draw(st.booleans()) else [*draw(durations(count))]
    start = draw(st.sampled_from((0, 0, 1, 5000)))
    times = np.cumsum([start, *apart[1:]]).tolist()
    options = {"g": str(draw(st.sampled_from((1, 5, 12, 250)))), "bf": str(draw(st.integers(0, 3)))}
    return draw(st.sampled_from(tuple(CODECS))), times, options


def durations(count: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.sampled_from((20, 33, 40, 41, 500, 3000)), min_size=count, max_size=count)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(video=coded(), data=st.data())
def test_frames_and_their_moments_are_those_of_a_full_decode(
    video: tuple[str, list[int], dict[str, str]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    container, times, options = video
    path = tmp_path_factory.mktemp("video") / f"a.{container}"
    try:
        write(path, times, options)
    except (av.FFmpegError, ValueError):  # the encoder takes no such moments
        return
    full = decoded(path)
    index, reader = index_video(path), VideoReader()
    assert index.seconds == pytest.approx([float(time) for time, _ in full], abs=1e-6)
    for number in data.draw(st.lists(st.integers(0, len(full) - 1), min_size=1, max_size=4)):
        (picture,) = reader.read(str(path), index, [number])
        assert np.array_equal(picture, full[number][1]), number


@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(video=coded(), share=st.floats(0.3, 0.99))
def test_of_a_video_that_is_cut_every_frame_is_right_or_it_is_named(
    video: tuple[str, list[int], dict[str, str]], share: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    container, times, options = video
    path = tmp_path_factory.mktemp("video") / f"a.{container}"
    try:
        write(path, times, options)
    except (av.FFmpegError, ValueError):
        return
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    try:
        index = index_video(path)
        frames = [0, max(len(index) - 2, 0)]
        pictures = VideoReader().read(str(path), index, frames)
    except BrokenFile:
        return
    full = decoded(path)
    for frame, picture in zip(frames, pictures, strict=True):
        assert np.array_equal(picture, full[frame][1])
