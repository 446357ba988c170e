"""When the frames of a video are shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_modules.dataset import BrokenFile


class _Packet(NamedTuple):
    pts: int | None
    dts: int | None
    key: bool
    hidden: bool


@dataclass(frozen=True)
class VideoIndex:
    """When each frame is shown, and where decoding may start.

    Attributes:
        pts: (frames,) int64, time stamps in the order they are shown, in units of `time_base`.
        keyframes: (keyframes,) int64, the time stamps of frames that need no other. The first may be one that is not
            shown, since an edit list hides the start.
        time_base: seconds of one unit.
    """

    pts: np.ndarray
    keyframes: np.ndarray
    time_base: float

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def seconds(self) -> np.ndarray:
        """(frames,) float64, the moment each frame appears, counted from the first."""
        return (self.pts - self.pts[0]) * self.time_base


def index_from_packets(container: Any, stream: Any, path: str | Path) -> VideoIndex:
    """Time stamps of all packets of an open video, read from its start.

    Raises:
        BrokenFile: it has no frame, ends before the frames that its header promises, or its clock starts again.
    """
    packets = [_Packet(p.pts, p.dts, p.is_keyframe, p.is_discard) for p in container.demux(stream) if p.size]
    promised = len(stream.index_entries) if container.format.name.startswith("mov") else 0  # without what edits hide
    if len(packets) < promised:
        raise BrokenFile(path, f"its header promises {promised} frames, but it ends after {len(packets)}")
    _check_clock([p.dts for p in packets if p.dts is not None], float(stream.time_base or 0), path)
    pts = [p.pts for p in packets if not p.hidden]
    keyframes = [p.pts for p in packets if p.key]
    if not packets or None in pts or None in keyframes or not _decodes_from_its_start(packets):
        container.seek(0)
        frames = [(shown_at(f), f.key_frame) for f in container.decode(stream) if not f.is_corrupt]
        pts, keyframes = [t for t, _ in frames], [t for t, key in frames if key]
        keyframes = keyframes or pts[:1]
    time_base = float(stream.time_base or 0)
    if not pts or not keyframes or not time_base:
        raise BrokenFile(path, "there is no frame in it")
    different = np.unique(np.array(pts, np.int64))
    if len(different) < len(pts):
        doubled = len(pts) - len(different)
        raise BrokenFile(path, f"{doubled} of its {len(pts)} frames have the time stamp of another; encode it anew")
    return VideoIndex(different, np.unique(np.array(keyframes, np.int64)), time_base)


def _check_clock(dts: list[int], time_base: float, path: str | Path) -> None:
    """Refuse a file whose packets go back in time: recordings that were put behind each other."""
    backward = np.flatnonzero(np.diff(np.array(dts, np.int64)) < 0)
    if len(backward):
        at = int(backward[0])
        seconds = f"{dts[at] * time_base:.2f} s to {dts[at + 1] * time_base:.2f} s"
        raise BrokenFile(
            path, f"its clock goes back from {seconds} after frame {at}; keep each recording in a file of its own"
        )


def _decodes_from_its_start(packets: list[_Packet]) -> bool:
    """Whether no packet needs one that is missing: those before the first keyframe, or shown before it."""
    first = packets[0]
    return first.key and all(p.hidden or (p.pts or 0) >= (first.pts or 0) for p in packets)


def shown_at(frame: Any) -> int:
    """The time stamp of a decoded frame."""
    return int(frame.pts if frame.pts is not None else frame.dts)
