"""What is read of odd videos is what a full decode by FFmpeg shows, or they are refused with the reason."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from data_modules.dataset import BrokenFile
from data_modules.reading.decoding import VIDEO_SUFFIXES, VideoReader, index_video
from tests.data_modules.video_files import decode_all, moving_picture, write_video


def equals_a_full_decode(path: Path) -> int:
    """Number of frames, having compared all of them, in order and out of it."""
    full, index, reader = decode_all(path), index_video(path), VideoReader()
    assert len(index) == len(full)
    everything = reader.read(str(path), index, range(len(full)))
    assert all(np.array_equal(a, b) for a, b in zip(everything, full, strict=True))
    for number in (0, len(full) - 1, len(full) // 2, 1):
        assert np.array_equal(reader.read(str(path), index, [number])[0], full[number]), number
    return len(full)


def edited(path: Path, start: int | None = None, share: float = 1.0) -> Path:
    """Have the edit list of an MP4 begin at a tick of its media, and last a share of what it lasts."""
    content = bytearray(path.read_bytes())
    at = content.index(b"elst") + 12
    duration, begin = struct.unpack(">Ii", content[at : at + 8])
    content[at : at + 8] = struct.pack(">Ii", int(duration * share), begin if start is None else start)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("frames", [60, 200])
@pytest.mark.parametrize("x264", ["keyint=12:bframes=2", "keyint=12:bframes=0", "keyint=500:bframes=3:scenecut=0"])
def test_an_edit_list_hides_frames(frames: int, x264: str, tmp_path: Path) -> None:
    def make(name: str) -> Path:
        return write_video(tmp_path / name, moving_picture(frames), rate=10, **{"x264-params": x264})

    tick = 1024  # of a frame
    assert equals_a_full_decode(make("whole.mp4")) == frames
    assert equals_a_full_decode(edited(make("end.mp4"), share=0.5)) == frames // 2
    # Where the first frame that is shown is no keyframe, FFmpeg begins at the keyframe before it.
    assert equals_a_full_decode(edited(make("start.mp4"), start=15 * tick)) < frames
    assert equals_a_full_decode(edited(make("both.mp4"), start=15 * tick, share=0.5)) < frames


def without_first(source: Path, target: Path, keep: Callable[[int, av.Packet], bool]) -> Path:
    """A copy of a video's packets, but for some."""
    with av.open(str(source)) as whole, av.open(str(target), "w") as cut:
        stream = whole.streams.video[0]
        copy = cut.add_stream_from_template(stream)
        for number, packet in enumerate(whole.demux(stream)):
            if packet.size and keep(number, packet):
                packet.stream = copy
                cut.mux(packet)
    return target


@pytest.mark.parametrize("bf", ["0", "2"])
def test_a_recording_that_begins_between_keyframes(bf: str, tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.ts", moving_picture(60), g="30", bf=bf, sc_threshold="0")
    late = without_first(whole, tmp_path / "late.ts", lambda number, _: number >= 20)
    assert equals_a_full_decode(late) == 30


def test_a_frame_that_lost_a_part_of_itself_is_not_shown(tmp_path: Path) -> None:
    """A broadcast that begins between keyframes, of which 188 bytes of the 31st frame were not received."""
    whole = write_video(tmp_path / "whole.ts", moving_picture(60, 64, 96), g="15", bf="0", sc_threshold="0")
    late = without_first(whole, tmp_path / "late.ts", lambda number, _: number >= 5)
    with av.open(str(late)) as container:
        packets = [(p.pts, p.pos) for p in container.demux(video=0) if p.size]
    lost, at = packets[30]
    content = late.read_bytes()
    while content[at + 1] & 0x40 or (content[at + 1] & 0x1F, content[at + 2]) != (1, 0):  # its head, and other streams
        at += 188
    late.write_bytes(content[:at] + content[at + 188 :])
    index, reader, full = index_video(late), VideoReader(), decode_all(whole)
    shown = [pts for pts, _ in packets[10:] if pts != lost]
    assert index.pts.tolist() == shown
    for number in (0, shown.index(packets[29][0]), len(shown) - 1):
        frame = full[5 + [pts for pts, _ in packets].index(shown[number])]
        assert np.array_equal(reader.read(str(late), index, [number])[0], frame), number


def test_a_recording_that_begins_with_an_open_group(tmp_path: Path) -> None:
    """Frames that are shown before the first keyframe need those of the group before it."""
    x264 = "keyint=20:bframes=5:b-pyramid=strict:open-gop=1:scenecut=0"
    whole = write_video(tmp_path / "whole.mkv", moving_picture(80), **{"x264-params": x264})
    with av.open(str(whole)) as container:
        keys = [n for n, p in enumerate(container.demux(video=0)) if p.is_keyframe]
    late = without_first(whole, tmp_path / "late.mkv", lambda number, _: number >= keys[1])
    assert equals_a_full_decode(late) > 40


def test_recordings_put_behind_each_other_are_refused(tmp_path: Path) -> None:
    a = write_video(tmp_path / "a.ts", moving_picture(20), g="10", bf="0")
    b = write_video(tmp_path / "b.ts", moving_picture(20, seed=1), g="10", bf="0")
    joined = tmp_path / "joined.ts"
    joined.write_bytes(a.read_bytes() + b.read_bytes())
    assert len(decode_all(joined)) == 40
    with pytest.raises(
        BrokenFile, match=r"its clock goes back from \d+.\d\d s to \d+.\d\d s after frame 19; keep each"
    ):
        index_video(joined)


def test_transparent_parts_are_white(tmp_path: Path) -> None:
    picture = np.zeros((32, 32, 4), np.uint8)
    picture[:, 16:] = (200, 0, 0, 255)
    path = tmp_path / "a.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "rgba"
        frame = av.VideoFrame.from_ndarray(picture, format="rgba")
        frame.pts, frame.time_base = 0, Fraction(1, 10)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (frame,) = VideoReader().read(str(path), index_video(path), [0])
    assert frame[0, 0].tolist() == [255, 255, 255]
    assert frame[0, -1].tolist() == [200, 0, 0]


def test_an_animation_is_a_video(tmp_path: Path) -> None:
    first, *others = [Image.fromarray(picture) for picture in moving_picture(12)]
    first.save(tmp_path / "1.gif", save_all=True, append_images=others, duration=[40, 100, 40] * 4)
    assert ".gif" in VIDEO_SUFFIXES
    assert equals_a_full_decode(tmp_path / "1.gif") == 12
    assert index_video(tmp_path / "1.gif").seconds[:4] == pytest.approx([0, 0.04, 0.14, 0.18])


def test_a_video_whose_header_is_overwritten_is_none(tmp_path: Path) -> None:
    """FFmpeg's own answer is that the operation is not permitted."""
    path = write_video(tmp_path / "a.mp4", moving_picture(60), g="10")
    path.write_bytes(path.read_bytes()[:-400] + bytes(400))
    with pytest.raises(BrokenFile, match="it is no video, or cut short"):
        index_video(path)


CONTAINERS = {
    "a.wmv": ("wmv2", "asf"),
    "a.3gp": ("mpeg4", "3gp"),
    "a.MTS": ("libx264", "mpegts"),
    "a.m2ts": ("libx264", "mpegts"),
    "a.flv": ("flv1", "flv"),
    "a.vob": ("mpeg2video", "vob"),
    "a.mxf": ("mpeg2video", "mxf"),
    "a.y4m": ("wrapped_avframe", "yuv4mpegpipe"),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_endings_of_cameras_and_players_are_videos(name: str, tmp_path: Path) -> None:
    codec, container = CONTAINERS[name]
    path = tmp_path / name
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for picture in moving_picture(30, 64, 96):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            output.mux(stream.encode(frame.reformat(format="yuv420p")))
        output.mux(stream.encode(None))
    assert path.name.lower().endswith(VIDEO_SUFFIXES)
    assert equals_a_full_decode(path) == 30
