"""What a training step costs with each feed-forward at equal active parameters, on the tiny mixture's own rows.

A step is the trained model's: forward, backward, clipping, AdamW, and the balance of experts. The frozen tokenizer,
which is the same for all, is left out.

Run: `python -m tests.benchmarks.experts --out runs/experts.json`
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import silu

from lit_mm.backbone import DenseFeedForward, ExpertFeedForward, FeedForward, ModalityFeedForward, Transformer
from lit_mm.backbone.grouped import GroupedSwiGLU
from lit_mm.backbone.layout import SequenceLayout
from lit_mm.cli import LitCLI
from lit_mm.model import MultimodalTransformer
from lit_mm.sequence import PackedBatch
from tests.benchmarks.interleaved import interleaved, ratio

DIM, CHANNELS, VOCABULARY = 256, 256, 8192
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

    def forward(self, tokens: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """See `GroupedSwiGLU.forward`."""
        out = torch.zeros_like(tokens)
        for expert in range(len(self.gate)):
            token, place = (experts == expert).nonzero(as_tuple=True)
            x = tokens[token]
            y = (silu(x @ self.gate[expert].T) * (x @ self.up[expert].T)) @ self.down[expert].T
            out = out.index_add(0, token, y * weights[token, place, None])
        return out


def batches(count: int) -> list[PackedBatch]:
    """The first packed batches of configs/tiny.yaml."""
    cli = LitCLI(args=["--config=configs/tiny.yaml"], run=False)
    cli.datamodule.setup("fit")
    rows = iter(cli.datamodule.training_rows())
    return [next(rows) for _ in range(count)]


class Step:
    """A model with one kind of feed-forward, and its optimizer."""

    def __init__(
        self, feed_forward: Callable[[int], FeedForward], batches: list[PackedBatch], loop: bool = False
    ) -> None:
        torch.manual_seed(0)
        backbone = Transformer(VOCABULARY, DIM, 6, 4, 2, feed_forward)
        self.model = MultimodalTransformer(backbone, VOCABULARY, CHANNELS).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True)
        self.batches = batches
        if loop:
            for module in self.model.modules():
                if isinstance(module, GroupedSwiGLU):
                    module.__class__ = LoopedSwiGLU

    def __call__(self, number: int) -> None:
        """Train on one batch."""
        batch = self.batches[number % len(self.batches)]
        layout = SequenceLayout(batch.document_ids, batch.frame_ids, batch.positions)
        latents = torch.randn(*batch.visual_positions.shape, CHANNELS)
        timesteps = torch.rand(len(latents)).masked_fill(batch.frame_clean, 1.0)
        targets = batch.targets.flatten()[batch.predicted_positions]
        where = batch.visual_positions, batch.predicted_positions, batch.drawn_frames
        out = self.model(batch.tokens, layout, latents, timesteps, *where, targets)
        (out.text.mean() + 3 * out.visual.square().mean() + out.expert_loss).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.model.backbone.balance_experts()

    def parameters(self) -> tuple[int, int]:
        """All of the backbone's blocks, and those that a token passes."""
        total = active = 0
        for module in self.model.backbone.layers.modules():
            own = sum(p.numel() for p in module.parameters(recurse=False))
            total += own
            if isinstance(module, ModalityFeedForward):
                own //= 2
            active += own
            if isinstance(module, ExpertFeedForward):
                experts = sum(p.numel() for p in module.experts.parameters())
                chosen = module.router.active + (module.shared != "none")
                active -= experts * (len(module.experts.gate) - chosen) // len(module.experts.gate)
        return total, active


def main() -> None:
    """Print a table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("runs/experts.json"))
    options = parser.parse_args()
    shared = batches(8)
    steps = {name: Step(feed_forward, shared) for name, feed_forward in FEED_FORWARDS.items()}
    for name in LOOPED:
        steps[f"{name}, by a loop"] = Step(FEED_FORWARDS[name], shared, loop=True)
    seconds = interleaved(steps, options.rounds)
    table = Table("feed-forward", "parameters of the blocks (M)", "active (M)", "step (ms)", "× dense")
    found = {}
    for name, step in steps.items():
        total, active = step.parameters()
        times = statistics.median(seconds[name]), ratio(seconds[name], seconds["dense"])
        found[name] = {"parameters": total, "active": active, "seconds": times[0], "times_dense": times[1]}
        table.add_row(name, f"{total / 1e6:.1f}", f"{active / 1e6:.1f}", f"{1e3 * times[0]:.0f}", f"{times[1]:.2f}")
    Console().print(table)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
