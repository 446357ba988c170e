"""What an optimizer step needs to know: which parameters are treated alike, means of all ranks, the gradient's norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Matrices within blocks, other matrices, and all else, which has no weight decay."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    hidden = [p for name, p in named if p.ndim >= 2 and ".layers." in name]
    outer = [p for name, p in named if p.ndim >= 2 and ".layers." not in name]
    vectors = [p for _, p in named if p.ndim < 2]
    return [
        {"params": hidden, "hidden": True},  # optimizers may treat them apart, as `lit_mm.training.muon` does
        {"params": outer},
        {"params": vectors, "weight_decay": 0.0},
    ]


def global_means(sums: Sequence[Tensor], counts: Sequence[int], world_size: int) -> list[Tensor]:
    """Means over the losses of all ranks, scaled so that averaging gradients over ranks gives theirs.

    Args:
        sums: () each, of this rank.
        counts: how many losses each is the sum of; ranks may hold different numbers of them.
        world_size: number of ranks.

    Returns:
        () each.
    """
    if world_size == 1:
        return [total / max(1, count) for total, count in zip(sums, counts, strict=True)]
    # Filled there, not copied there: a copy would wait for the device.
    of_all = torch.stack([torch.full((), float(count), device=sums[0].device) for count in counts])
    dist.all_reduce(of_all)
    return [total * world_size / count.clamp(min=1) for total, count in zip(sums, of_all, strict=True)]


def clip_gradients(trained: nn.Module, most: float) -> Tensor:
    """Scale gradients so that their global norm, over all ranks, is at most `most`.

    Args:
        trained: the module as the strategy has wrapped it.
        most: infinity clips nothing.

    Returns:
        () the norm before.
    """
    if isinstance(trained, FullyShardedDataParallel):
        return trained.clip_grad_norm_(most)
    norm = nn.utils.clip_grad_norm_([p for p in trained.parameters() if p.requires_grad], most)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
