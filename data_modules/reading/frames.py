"""Decoded frames to upright RGB pictures of the shape that viewers see."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter

UNMARKED = 2  # FFmpeg's number of a colour matrix that is not said
HD = 720  # lines from which on that is BT.709 by convention, and BT.601 below


class ToPicture:
    """Turns frames of one video into pictures.

    Args:
        aspect: width over height of a pixel, None if it is not said.
    """

    def __init__(self, aspect: Fraction | None) -> None:
        self.aspect = float(aspect) if aspect else 1.0
        self._to_rgb = VideoReformatter()

    def __call__(self, frame: Any) -> np.ndarray:
        """(height, width, 3) uint8: with square pixels, lines of one moment, and the rotation mark of a phone applied.

        Transparent parts become white, as those of pictures do. Of interlaced frames, whose lines are of two moments,
        the first field is shown, each line twice.
        """
        matrix = Colorspace.ITU709 if frame.colorspace == UNMARKED and frame.height >= HD else None
        width = max(1, round(frame.width * self.aspect))
        kind = "rgba" if any(component.is_alpha for component in frame.format.components) else "rgb24"
        converted = self._to_rgb.reformat(frame, width=width, format=kind, src_colorspace=matrix, threads=1)
        picture: np.ndarray = converted.to_ndarray()
        if kind == "rgba":
            opacity = picture[..., 3:] / np.float32(255)
            picture = (picture[..., :3] * opacity + 255 * (1 - opacity)).round().astype(np.uint8)
        if frame.interlaced_frame:
            picture = np.repeat(picture[::2], 2, axis=0)[: len(picture)]
        return np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90)))
