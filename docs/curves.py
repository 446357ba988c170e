"""Draws the README's curves from the run folders of the tiny run and of its text-only twin.

python docs/curves.py runs/tiny/version_0 runs/text_only/version_0 docs/curves.png
"""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TOKENS_PER_STEP, TEXT_SHARE = 2048, 0.4


def scalars(run: str, tag: str) -> tuple[list[int], list[float]]:
    """Steps and values of one curve of a run folder."""
    events = EventAccumulator(run)
    events.Reload()
    points = events.Scalars(tag)
    return [p.step for p in points], [p.value for p in points]


def main(tiny: str, text_only: str, out: str) -> None:
    """Text loss against text tokens, both runs; flow loss against steps, by source."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for run, name, share in ((tiny, "four kinds of data", TEXT_SHARE), (text_only, "text only", 1.0)):
        for split, style in (("train", {"alpha": 0.5}), ("val", {"marker": "o", "linestyle": "--"})):
            steps, values = scalars(run, f"{split}/text/text_loss")
            tokens = [step * TOKENS_PER_STEP * share / 1e6 for step in steps]
            left.plot(tokens, values, label=f"{name}, {split}", **style)
    left.set(xlabel="text tokens (millions)", ylabel="text loss (nats per token)")
    for source in ("image_text", "video", "action_video"):
        steps, values = scalars(tiny, f"train/{source}/flow_loss")
        (line,) = right.plot(steps, values, alpha=0.4)
        steps, values = scalars(tiny, f"val/{source}/flow_loss")
        right.plot(steps, values, marker="o", linestyle="--", color=line.get_color(), label=source)
    right.set(xlabel="step", ylabel="flow loss (dashed: validation)")
    left.legend()
    right.legend()
    figure.savefig(out, dpi=120)


if __name__ == "__main__":
    main(*sys.argv[1:])
