"""Draws what the scalars of a healthy run look like, from its run folder.

python docs/healthy.py runs/tiny/version_0 docs/healthy.png
"""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
from curves import scalars
from matplotlib.axes import Axes

SOURCES = ("text", "image_text", "video", "action_video")
ALONE = ("train/gradient_norm", "train/learning_rate", "speed/waiting_for_data", "memory/peak_gib")


def losses(axes: Axes, run: str, name: str, sources: tuple[str, ...]) -> None:
    """One loss by source, training pale and validation dotted."""
    for source in sources:
        (line,) = axes.plot(*scalars(run, f"train/{source}/{name}"), alpha=0.4)
        axes.plot(*scalars(run, f"val/{source}/{name}"), "o--", color=line.get_color(), label=source)
    axes.set(title=f"train and val (dots): {name}")
    axes.legend()


def main(run: str, out: str) -> None:
    """Both losses by source, and four scalars that say whether the run goes well."""
    figure, axes = plt.subplots(2, 3, figsize=(12, 6), layout="constrained", sharex=True)
    losses(axes[0, 0], run, "text_loss", SOURCES)
    losses(axes[0, 1], run, "flow_loss", SOURCES[1:])
    for place, tag in zip((axes[0, 2], *axes[1]), ALONE, strict=True):
        place.plot(*scalars(run, tag))
        place.set(title=tag)
        place.set_ylim(bottom=0)
    for place in axes[1]:
        place.set(xlabel="step")
    figure.savefig(out, dpi=80)


if __name__ == "__main__":
    main(*sys.argv[1:])
