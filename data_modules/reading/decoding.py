"""Chosen frames of a video through PyAV, without decoding what is not used."""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np

from data_modules.dataset import BrokenFile
from data_modules.index.parquet_files import RowGroups
from data_modules.index.ranges import RangeReader
from data_modules.index.storage import InputFile
from data_modules.reading.file_part import LocalPart, Part, RemotePart
from data_modules.reading.frames import ToPicture
from data_modules.reading.time_stamps import VideoIndex, index_from_packets, shown_at

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".avi", ".divx", ".mkv", ".webm", ".ogv", ".ogm", ".wmv", ".asf"),
    *(".mpg", ".mpeg", ".mpe", ".m1v", ".m2v", ".vob", ".ts", ".mts", ".m2ts", ".m2t", ".mxf", ".flv", ".f4v", ".y4m"),
    ".gif",
)
SKIPPING = ("h264", "hevc", "mpeg4", "mpeg2video", "mpeg1video")  # decoders that can leave out a single frame
PROBED = 64  # packets that are compared with a header
NEAR = 1  # keyframes between two wanted frames up to which decoding on is cheaper than a new seek


def index_video(path: str | Path | InputFile, part: Part | None = None, name: str | None = None) -> VideoIndex:
    """Read the time stamps of a video from its header, or of its packets where the header does not say them.

    Its frames are those that FFmpeg shows of all of it, in their order. Nothing is decoded, except in files that carry
    no time stamps, and in those that begin between two keyframes.

    Args:
        path: of the file; of a remote one what it was when it was found, which needs a part.
        part: of it, which is the video; all of it by default.
        name: how messages call it; its path by default.

    Raises:
        BrokenFile: it cannot be opened, has no video in it, ends before the frames that its header promises, or its
            clock starts again on the way.
    """
    called = name or (path.path if isinstance(path, InputFile) else path)
    try:
        with av.open(_opened(path, part, RangeReader())) as container:
            if not container.streams.video:
                raise BrokenFile(called, "there is no video stream in it")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise BrokenFile(called, "FFmpeg knows no decoder for it, or it is damaged")
            if (
                container.format.name == "avi"
                and stream.codec_context.name == "h264"
                and stream.codec_context.has_b_frames
            ):
                raise BrokenFile(called, "AVI does not say when the B frames of H.264 are shown; use MP4")
            if (
                index := _index_from_header(container, stream, part[1] if part else os.path.getsize(str(path)))
            ) is not None:
                return index
            container.seek(0)
            return index_from_packets(container, stream, called)
    except (av.FFmpegError, OSError, UnicodeDecodeError) as error:
        raise BrokenFile(called, _reason(error)) from error


def _index_from_header(container: Any, stream: Any, size: int) -> VideoIndex | None:
    """Time stamps of an MP4 whose frames are shown in the order of decoding, or at equal distances; else None.

    Headers say when frames are decoded. What is shown is as far apart, and later by what the first packets say.
    """
    if not container.format.name.startswith("mov") or stream.frames < PROBED:
        return None
    entries = [(e.timestamp, e.is_keyframe, e.pos + e.size, e.is_discard) for e in stream.index_entries]
    if len(entries) != stream.frames or any(end > size or discarded for _, _, end, discarded in entries):
        return None
    dts = np.array([entry[0] for entry in entries], np.int64)
    key = np.array([entry[1] for entry in entries])
    first = [p for p in islice(container.demux(stream), PROBED) if p.size]
    shown = [p.pts for p in first]
    alike = [(p.dts, p.is_keyframe) for p in first] == [entry[:2] for entry in entries[: len(first)]]
    if None in shown or not alike or not key.any():
        return None
    later = min(shown) - int(dts[0])
    in_order = not stream.codec_context.has_b_frames and shown == (dts[: len(shown)] + later).tolist()
    even = len(np.unique(np.diff(dts))) == 1
    if not (in_order or even) or any(p.pts != p.dts + later for p in first if p.is_keyframe):
        return None
    return VideoIndex(dts + later, dts[key] + later, float(stream.time_base))


def _opened(path: str | Path | InputFile, part: Part | None, ranges: RangeReader) -> Any:
    """What PyAV opens."""
    if isinstance(path, InputFile):
        assert part is not None
        return RemotePart(path, part, ranges)
    return LocalPart(str(path), part) if part else str(path)


class VideoReader:
    """Decodes single frames; the last few files stay open, in every process its own.

    Args:
        keep_open: how many files.
        ranges: reads remote ones; without a cache by default.

    Attributes:
        groups: reads pictures that lie in tables.
    """

    def __init__(self, keep_open: int = 8, ranges: RangeReader | None = None) -> None:
        self.keep_open, self.ranges = keep_open, ranges or RangeReader()
        self.groups = RowGroups(self.ranges)
        self._open: OrderedDict[tuple[str | InputFile, Part | None], Any] = OrderedDict()
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {
            "keep_open": self.keep_open,
            "ranges": self.ranges,
            "groups": self.groups,
            "_open": OrderedDict(),
            "_process": -1,
        }

    def read(
        self,
        path: str | InputFile,
        index: VideoIndex,
        frames: Sequence[int],
        part: Part | None = None,
        name: str | None = None,
    ) -> list[np.ndarray]:
        """Frames by number, each (height, width, 3) uint8 RGB, upright (a phone's rotation mark is applied).

        Args:
            path: see `index_video`.
            index: of the video.
            frames: numbers in it.
            part: see `index_video`.
            name: see `index_video`.

        Raises:
            BrokenFile: the file cannot be opened or a frame cannot be decoded.
        """
        wanted = sorted({int(index.pts[f]) for f in frames})
        try:
            container = self._container(path, part)
            found: dict[int, np.ndarray] = {}
            for group in _runs(wanted, index.keyframes):
                found.update(_decode_run(container, group, index.keyframes))
        except BrokenFile:  # a storage that fails
            self._open.pop((path, part), None)
            raise
        except (av.FFmpegError, OSError, UnicodeDecodeError) as error:
            self._open.pop((path, part), None)
            raise BrokenFile(name or path, _reason(error)) from error
        missing = [f for f in frames if int(index.pts[f]) not in found]
        if missing:
            self._open.pop((path, part), None)
            raise BrokenFile(name or path, f"frame {missing[0]} of {len(index)} cannot be decoded")
        return [found[int(index.pts[f])] for f in frames]

    def _container(self, path: str | InputFile, part: Part | None) -> Any:
        if self._process != os.getpid():  # a forked worker shares its parent's file offsets, so it opens its own
            self._open, self._process = OrderedDict(), os.getpid()
        if (path, part) not in self._open:
            while len(self._open) >= self.keep_open:
                self._open.popitem(last=False)[1].close()
            container = av.open(_opened(path, part, self.ranges))
            # One thread: workers are parallel already, and skipping single frames needs decoding in packet order.
            container.streams.video[0].codec_context.thread_count = 1
            self._open[path, part] = container
        self._open.move_to_end((path, part))
        return self._open[path, part]


def _runs(wanted: list[int], keyframes: np.ndarray) -> list[list[int]]:
    """Split time stamps where a seek to a later keyframe saves decoding."""
    keys = np.searchsorted(keyframes, wanted, side="right")
    cuts = [i for i in range(1, len(wanted)) if keys[i] - keys[i - 1] > NEAR]
    return [wanted[a:b] for a, b in zip([0, *cuts], [*cuts, len(wanted)], strict=True)]


def _decode_run(container: Any, wanted: list[int], keyframes: np.ndarray) -> dict[int, np.ndarray]:
    """Frames at the time stamps `wanted` (ascending), decoded from the keyframe before the first."""
    stream = container.streams.video[0]
    context = stream.codec_context
    todo, begins = set(wanted), int(keyframes[max(0, int(np.searchsorted(keyframes, wanted[0], side="right")) - 1)])
    found: dict[int, np.ndarray] = {}
    to_picture, spoilt = ToPicture(stream.sample_aspect_ratio), False
    for packet in _packets_from(container, stream, wanted[0], keyframes):
        if context.name in SKIPPING:  # frames that no other frame needs are decoded only if they are wanted themselves
            context.skip_frame = "DEFAULT" if packet.pts is None or packet.pts in todo else "NONREF"
        for frame in packet.decode():
            at = shown_at(frame)
            # Frames are made of those before them, back to a keyframe. What is shown before the first one is not used.
            spoilt = not frame.key_frame and (spoilt or (frame.is_corrupt and at > begins))
            if at in todo:
                if spoilt or frame.is_corrupt:
                    return found
                found[at] = to_picture(frame)
                todo.discard(at)
        if not todo:
            break
    return found


def _packets_from(container: Any, stream: Any, first: int, keyframes: np.ndarray) -> Any:
    """Packets from a keyframe on that is shown no later than `first`.

    Containers seek by decoding time, which runs ahead of the time a frame is shown, so a seek may land one keyframe
    too late; then the one before is tried.
    """
    key = int(np.searchsorted(keyframes, first, side="right")) - 1
    while True:
        target = int(keyframes[max(key, 0)])
        container.seek(target if key >= 0 else min(target, 0), stream=stream)
        packets = container.demux(stream)
        head = next(packets)
        if key < 0 or head.pts is None or (head.is_keyframe and head.pts <= first):
            yield head
            yield from packets
            return
        key -= 1


def _reason(error: Exception) -> str:
    """Why a video cannot be read, without FFmpeg's numbers and the path, which the message has already."""
    if isinstance(error, av.InvalidDataError) or getattr(error, "errno", None) == errno.EPERM:  # FFmpeg's bare -1
        return "it is no video, or cut short"
    return getattr(error, "strerror", None) or str(error)
