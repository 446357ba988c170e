"""Small real videos for the tests of the data modules."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def moving_picture(count: int, height: int = 32, width: int = 32, seed: int = 0) -> list[np.ndarray]:
    """Frames (height, width, 3) uint8 that all differ: a coloured square travels over a slowly changing pattern."""
    rng = np.random.default_rng(seed)
    pattern = rng.integers(0, 255, (height // 8, width // 8, 3))
    pattern = np.kron(pattern, np.ones((8, 8, 1))).astype(np.float64)
    frames = []
    for i in range(count):
        frame = (pattern * (0.5 + 0.4 * np.sin(i / 9))).astype(np.uint8)
        x, y = (3 * i) % (width - 8), (2 * i) % (height - 8)
        frame[y : y + 8, x : x + 8] = ((17 * i) % 256, (91 * i) % 256, (203 * i) % 256)
        frames.append(frame)
    return frames


def write_video(
    path: Path,
    frames: list[np.ndarray],
    codec: str = "libx264",
    rate: int = 10,
    times: list[float] | None = None,
    **options: str,
) -> Path:
    """Encode frames, at `rate` a second or, for a variable rate, at `times` in seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            if times:
                frame.pts, frame.time_base = round(times[i] * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def decode_all(path: Path) -> list[np.ndarray]:
    """Every frame of a video, from the first to the last, with nothing but PyAV."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
