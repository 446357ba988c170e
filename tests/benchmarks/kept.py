"""What one block keeps for its backward pass, by feed-forward: 1,024 tokens of width 256, half of them visual, bfloat16.

Weights in bfloat16 are left out. Run: `python -m tests.benchmarks.kept`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from rich.table import Table
from torch import Tensor

from lit_mm.backbone import (
    DenseFeedForward,
    ExpertFeedForward,
    FeedForward,
    ModalityFeedForward,
    SequenceLayout,
    Transformer,
)
from tests.benchmarks.report import finish, options

FEED_FORWARDS: dict[str, Callable[[int], FeedForward]] = {
    "dense": partial(DenseFeedForward, hidden_dim=1024),
    "modality": partial(ModalityFeedForward, hidden_dim=1024),
    "64 experts, 16 active": partial(ExpertFeedForward, experts=64, active=16, granularity=16),
}


def kept(feed_forward: Callable[[int], FeedForward], dim: int = 256, length: int = 1024) -> int:
    """Bytes that autograd holds, each storage once."""
    model = Transformer(64, dim, 1, 4, 2, feed_forward)
    document = torch.zeros(1, length, dtype=torch.int32)
    frame = (document - 1).index_fill(1, torch.arange(length // 2, length), 0)
    held: dict[int, Tensor] = {}

    def hold(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    x = torch.randn(1, length, dim, dtype=torch.bfloat16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        out = model(x, SequenceLayout(document, frame, torch.arange(length)[None])).hidden
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    storages = [t.untyped_storage().nbytes() for pointer, t in held.items() if pointer not in weights]
    assert out.requires_grad
    return sum(storages) - 2 * sum(p.numel() for p in model.layers.parameters() if p.ndim >= 2)


def main() -> None:
    """Print a table and write it as JSON."""
    arguments = options(__doc__, "kept").parse_args()
    found = {name: kept(feed_forward) for name, feed_forward in FEED_FORWARDS.items()}
    table = Table("feed-forward", "kept (MiB)")
    for name, size in found.items():
        table.add_row(name, f"{size / 2**20:.1f}")
    finish(table, found, arguments.out)


if __name__ == "__main__":
    main()
