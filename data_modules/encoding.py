"""Frames to MP4 files that can be opened at any place cheaply and come out the same every time."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

KEYFRAME_EVERY = 8


def resize(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    """Area-averaged copy of a picture (h, w, 3) uint8, as (height, width, 3)."""
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BOX))


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    rate: Fraction,
    crf: int,
    format: str = "yuv420p",
    keyframe_every: int = KEYFRAME_EVERY,
) -> int:
    """Encode frames (h, w, 3) uint8 RGB with even sides as H.264 in MP4, and count them.

    Keyframes at short distances and no B frames make random access cheap; one thread and no time stamps of the
    writing make the file a function of its frames.

    Args:
        path: of the file.
        frames: the pictures.
        rate: frames a second.
        crf: x264's constant rate factor; lower is sharper and larger.
        format: how colours are kept, "yuv420p" at half the pictures' resolution, "yuv444p" at all of it.
        keyframe_every: frames; a reader decodes at most this many to reach any one.

    Raises:
        Mistake: there are no frames.
    """
    import av

    count = 0
    options = {
        "crf": str(crf),
        "preset": "medium",
        "x264-params": f"keyint={keyframe_every}:min-keyint={keyframe_every}:scenecut=0:bframes=0:threads=1",
    }
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart", "fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.pix_fmt = format
        stream.codec_context.thread_count = 1
        for array in frames:
            if count == 0:
                stream.height, stream.width = array.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb24")))
            count += 1
        if count == 0:
            raise ValueError(f"no frames to write to '{path}'")
        container.mux(stream.encode(None))
    return count
