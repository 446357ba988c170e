"""Single frames equal those of a full decode, bit by bit, whatever the codec and the order of its frames."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from data_modules.dataset import BrokenFile
from data_modules.reading.decoding import VideoReader, index_video
from tests.data_modules.video_files import decode_all, moving_picture, write_video

CODECS = {
    "h264, no B frames.mp4": {"codec": "libx264", "g": "8", "bf": "0"},
    "h264, B frames.mp4": {"codec": "libx264", "g": "12", "bf": "3"},
    "h264, open groups.mkv": {
        "codec": "libx264",
        "x264-params": "keyint=20:bframes=5:b-pyramid=strict:open-gop=1:scenecut=0",
    },
    "h264, one keyframe.mp4": {"codec": "libx264", "g": "500", "bf": "3"},
    "h264.ts": {"codec": "libx264", "g": "12", "bf": "2"},
    "mpeg4.avi": {"codec": "mpeg4", "g": "12", "bf": "2"},
    "mpeg2.mpg": {"codec": "mpeg2video", "g": "12", "bf": "2", "rate": 25},
    "vp9.webm": {"codec": "libvpx-vp9", "g": "15", "deadline": "realtime", "cpu-used": "8"},
    "av1.mp4": {"codec": "libsvtav1", "g": "16", "preset": "12"},
}


@pytest.mark.parametrize("name", CODECS)
def test_chosen_frames_equal_a_full_decode(name: str, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, moving_picture(60, 64, 96), **CODECS[name])
    full, index, reader = decode_all(path), index_video(path), VideoReader()
    assert len(index) == len(full) == 60
    rng = random.Random(0)
    for _ in range(30):
        wanted = [rng.randrange(60) for _ in range(rng.randint(1, 5))]
        for number, frame in zip(wanted, reader.read(str(path), index, wanted), strict=True):
            assert np.array_equal(frame, full[number]), f"frame {number} of {wanted}"


def read_so_far() -> int:
    """Bytes that this process has read."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar"))


def packets_of(path: Path) -> tuple[list[int], list[int]]:
    """Time stamps of all frames and of keyframes, ascending, with nothing but PyAV."""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(container.streams.video[0]) if p.size]
    return sorted(p.pts for p in packets), sorted(p.pts for p in packets if p.is_keyframe)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not count what is read")
@pytest.mark.parametrize("bf", ["0", "2"])
def test_the_header_of_a_long_video_is_enough(bf: str, tmp_path: Path) -> None:
    noise = [np.random.default_rng(i).integers(0, 255, (64, 64, 3), dtype=np.uint8) for i in range(800)]
    path = write_video(tmp_path / "a.mp4", noise, g="20", bf=bf, sc_threshold="0", preset="superfast", b="4000000")
    before = read_so_far()
    index = index_video(path)
    assert read_so_far() - before < 0.25 * path.stat().st_size
    assert (index.pts.tolist(), index.keyframes.tolist()) == packets_of(path)


@pytest.mark.parametrize("x264", ["bframes=0", "bframes=3", "keyint=1", "keyint=20:bframes=5:open-gop=1:scenecut=0"])
@pytest.mark.parametrize("variable", [False, True])
def test_time_stamps_are_those_of_the_packets(x264: str, variable: bool, tmp_path: Path) -> None:
    gaps = np.random.default_rng(0).integers(20, 90, 200) / 1000
    times = np.cumsum(gaps).tolist() if variable else None
    path = write_video(tmp_path / "a.mp4", moving_picture(200), times=times, **{"x264-params": x264})
    index = index_video(path)
    assert (index.pts.tolist(), index.keyframes.tolist()) == packets_of(path)


def test_far_frames_are_reached_by_seeking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame in the middle of a long file costs no more decoded packets than its group has."""
    path = write_video(tmp_path / "a.mp4", moving_picture(400), codec="libx264", g="10", bf="0")
    index, reader, decoded = index_video(path), VideoReader(), []
    reader.read(str(path), index, [0])
    import data_modules.reading.decoding as decoding

    packets_from = decoding._packets_from
    monkeypatch.setattr(decoding, "_packets_from", lambda *a: (decoded.append(p) or p for p in packets_from(*a)))
    reader.read(str(path), index, [205, 399, 3])
    assert len(decoded) <= 3 * 10 + 6


def test_variable_frame_rate(tmp_path: Path) -> None:
    times = [0.0, 0.1, 0.15, 0.9, 1.0, 2.5, 2.55]
    path = write_video(tmp_path / "a.mkv", moving_picture(7), codec="libx264", times=times, bf="0")
    assert index_video(path).seconds == pytest.approx(times, abs=2e-3)


def test_rotation_mark_of_a_phone(tmp_path: Path) -> None:
    upright = moving_picture(3, 48, 32)
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.set_display_rotation(90)  # to be turned a quarter counter-clockwise before it is shown
        for array in upright:
            lying = np.ascontiguousarray(np.rot90(array, -1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(lying, format="rgb24")))
        container.mux(stream.encode(None))
    frame = VideoReader().read(str(path), index_video(path), [1])[0]
    assert frame.shape == (48, 32, 3)
    assert np.abs(frame.astype(int) - upright[1]).mean() < 6


@pytest.mark.parametrize("faststart", [False, True])
def test_cut_file_is_named(faststart: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", options={"movflags": "+faststart"} if faststart else {}) as container:
        stream = container.add_stream("libx264", rate=Fraction(10))
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for array in moving_picture(50, 64, 64):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes()[: os.path.getsize(path) // 2])
    with pytest.raises(BrokenFile) as caught:
        index_video(path)
    assert caught.value.path == str(path)


def test_file_that_breaks_later_is_named(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", moving_picture(50, 64, 64), codec="libx264", g="10")
    index, reader = index_video(path), VideoReader(keep_open=1)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(BrokenFile, match=r"a.mp4"):
        reader.read(str(path), index, [40])
    with pytest.raises(BrokenFile, match=r"none.mp4"):
        reader.read(str(tmp_path / "none.mp4"), index, [40])


def test_no_frame_is_made_of_one_that_is_damaged(tmp_path: Path) -> None:
    """Of three groups of 20 frames, the sixth frame of the second is noise."""
    path = write_video(tmp_path / "a.mp4", moving_picture(60, 64, 96), g="20", bf="0")
    full = decode_all(path)
    with av.open(str(path)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    content, (at, size) = bytearray(path.read_bytes()), places[25]
    content[at + size // 4 : at + size] = random.Random(0).randbytes(size - size // 4)
    path.write_bytes(content)
    index, reader = index_video(path), VideoReader()
    for number in range(60):
        if 25 <= number < 40:
            with pytest.raises(BrokenFile):
                reader.read(str(path), index, [number])
        else:
            assert np.array_equal(reader.read(str(path), index, [number])[0], full[number]), number


def test_h264_with_b_frames_in_avi_is_refused(tmp_path: Path) -> None:
    """AVI stores no time stamps of presentation, so frames would come out in the wrong order."""
    path = write_video(tmp_path / "a.avi", moving_picture(30), codec="libx264", bf="2")
    with pytest.raises(BrokenFile, match="use MP4"):
        index_video(path)


def test_reader_keeps_few_files_open_and_travels_to_workers(tmp_path: Path) -> None:
    frames = moving_picture(4)
    paths = [write_video(tmp_path / f"{i}.mp4", frames, codec="libx264") for i in range(5)]
    reader = VideoReader(keep_open=2)
    for path in paths * 2:
        reader.read(str(path), index_video(path), [2])
        assert len(reader._open) <= 2
    again = pickle.loads(pickle.dumps(reader)).read(str(paths[0]), index_video(paths[0]), [2])
    assert np.array_equal(again[0], decode_all(paths[0])[2])


def test_forked_workers_do_not_share_open_files(tmp_path: Path) -> None:
    """Both sides of a fork read on from a file that was open before, at different places at once."""
    noise = np.random.default_rng(0).integers(0, 255, (120, 96, 96, 3), np.uint8)
    path = write_video(tmp_path / "a.mp4", list(noise), codec="libx264", g="10", crf="10", preset="ultrafast")
    assert os.path.getsize(path) > 2**20, "larger than what FFmpeg reads ahead"
    index, reader, full = index_video(path), VideoReader(), decode_all(path)
    reader.read(str(path), index, [0])

    def all_right(numbers: range) -> bool:
        return all(np.array_equal(reader.read(str(path), index, [i])[0], full[i]) for i in numbers)

    def work(start: int) -> None:
        os._exit(not all_right(range(start, 120, 7)))

    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=work, args=(start,)) for start in (0, 3)]
    for worker in workers:
        worker.start()
    assert all_right(range(5, 120, 7))
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]


def marked(path: Path, picture: np.ndarray, interlaced: bool = False, **marks: object) -> Path:
    """A video of one picture, with marks on its stream."""
    with av.open(str(path), "w") as container:
        options = {"x264-params": "tff=1", "qp": "0"} if interlaced else {"qp": "0"}
        stream = container.add_stream("libx264", rate=10, options=options)
        stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], "yuv444p"
        for name, value in marks.items():
            setattr(stream.codec_context, name, value)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame = frame.reformat(format="yuv444p", dst_colorspace="ITU709" if len(picture) >= 720 else "ITU601")
        for number in range(3):
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read_first(path: Path) -> np.ndarray:
    (frame,) = VideoReader().read(str(path), index_video(path), [0])
    return frame


def test_pixels_that_are_not_square_are_shown_as_wide_as_they_are_meant(tmp_path: Path) -> None:
    picture = np.zeros((96, 64, 3), np.uint8)
    picture[:, 32:] = 200
    frame = read_first(marked(tmp_path / "a.mp4", picture, sample_aspect_ratio=Fraction(2, 1)))
    assert frame.shape == (96, 128, 3)
    assert frame[:, :60].max() < 10
    assert frame[:, 68:].min() > 190


@pytest.mark.parametrize("lines", [480, 720])
def test_unmarked_colours_are_those_of_the_size(lines: int, tmp_path: Path) -> None:
    picture = np.full((lines, 64, 3), (200, 40, 60), np.uint8)
    frame = read_first(marked(tmp_path / "a.mp4", picture))
    assert np.abs(frame.astype(int) - [200, 40, 60]).max() <= 3


def test_lines_of_two_moments_are_not_mixed(tmp_path: Path) -> None:
    picture = np.zeros((96, 64, 3), np.uint8)
    picture[::2, :32] = 200  # a bar was on the left at the first moment, and is on the right at the second
    picture[1::2, 32:] = 200
    frame = read_first(marked(tmp_path / "a.mp4", picture, interlaced=True))
    assert frame.shape == (96, 64, 3)
    assert frame[:, :30].min() > 190
    assert frame[:, 34:].max() < 10
