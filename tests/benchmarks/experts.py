"""What a training step costs with each feed-forward at equal active parameters, on the tiny mixture's own rows.

A step is the trained model's: forward, backward, clipping, AdamW, and the balance of experts. The frozen tokenizer,
which is the same for all, is left out.

Run: `python -m tests.benchmarks.experts`, after `make data`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from lit_mm.backbone import DenseFeedForward, ExpertFeedForward, FeedForward, ModalityFeedForward
from lit_mm.backbone.grouped import GroupedSwiGLU
from lit_mm.sequence import PackedBatch
from tests.benchmarks.interleaved import interleaved, ratio
from tests.benchmarks.our_model import Size, TrainingStep, lit_model, with_latents
from tests.benchmarks.report import finish, options
from tests.benchmarks.tiny_data import tiny_data

FEED_FORWARDS: dict[str, Callable[[int], FeedForward]] = {
    "dense": partial(DenseFeedForward, hidden_dim=1024),
    "modality": partial(ModalityFeedForward, hidden_dim=1024),
    "8 experts, top 2": partial(ExpertFeedForward, experts=8, active=2, granularity=2, shared="none"),
    "32 experts, top 7 and shared": partial(ExpertFeedForward, experts=32, active=8, granularity=8),
    "64 experts, top 7 and shared": partial(ExpertFeedForward, experts=64, active=8, granularity=8),
}
LOOPED = ("8 experts, top 2", "32 experts, top 7 and shared")


class LoopedSwiGLU(GroupedSwiGLU):
    """The same experts, one after the other."""

    def swiglu(self, tokens: Tensor, offsets: Tensor, scale: Tensor | None = None) -> Tensor:
        """See `GroupedSwiGLU.swiglu`."""
        groups = tokens.tensor_split(offsets[:-1].long())
        out = torch.cat([self.swiglu_of(expert, x) for expert, x in enumerate(groups)])
        return out if scale is None else out * scale


def step(feed_forward: Callable[[int], FeedForward], batches: list[PackedBatch], loop: bool = False) -> TrainingStep:
    """The tiny model with one kind of feed-forward; `loop` computes experts one after the other."""
    module = lit_model(Size(), feed_forward)
    for layer in module.modules():
        if loop and isinstance(layer, GroupedSwiGLU):
            layer.__class__ = LoopedSwiGLU
    return TrainingStep(module, batches)


def parameters(step: TrainingStep) -> tuple[int, int]:
    """All of the backbone's blocks, and those that a token passes."""
    blocks: Any = step.module.model.backbone.layers
    total = sum(p.numel() for p in blocks.parameters())
    feed_forwards = sum(p.numel() for block in blocks for p in block.feed_forward.parameters())
    return total, total - feed_forwards + sum(block.feed_forward.active_parameters() for block in blocks)


def main() -> None:
    """Print a table and write it as JSON."""
    arguments = options(__doc__, "experts", rounds=20).parse_args()
    rows = iter(tiny_data().training_rows())
    shared = [with_latents(next(rows), Size().channels) for _ in range(8)]
    steps = {name: step(feed_forward, shared) for name, feed_forward in FEED_FORWARDS.items()}
    for name in LOOPED:
        steps[f"{name}, by a loop"] = step(FEED_FORWARDS[name], shared, loop=True)
    seconds = interleaved(steps, arguments.rounds)
    table = Table("feed-forward", "parameters of the blocks (M)", "active (M)", "step (ms)", "× dense")
    found = {}
    for name, of_name in steps.items():
        total, active = parameters(of_name)
        times = statistics.median(seconds[name]), ratio(seconds[name], seconds["dense"])
        found[name] = {"parameters": total, "active": active, "seconds": times[0], "times_dense": times[1]}
        table.add_row(name, f"{total / 1e6:.1f}", f"{active / 1e6:.1f}", f"{1e3 * times[0]:.0f}", f"{times[1]:.2f}")
    finish(table, found, arguments.out)


if __name__ == "__main__":
    main()
