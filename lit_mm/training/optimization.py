"""What an optimizer step needs to know: which parameters are treated alike, means of all ranks, the gradient's norm."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

# `layers.0.` of ours, `blocks.0.` of timm, `decoder_layers.0.` of transformers, `down_blocks.0.` of diffusers.
_IN_A_BLOCK = re.compile(r"(^|[._])(layers|blocks?)\.")


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Parameters that optimizers treat alike (ours: the paper does not say).

    Args:
        model: its blocks are called `layers` or `blocks`, its norms something with `norm`, and its routers `router`.

    Returns:
        Three groups: `hidden` matrices, from hidden space to hidden space within the blocks; other matrices, routers
        among them, whose outputs are scores of experts each on its own; and norms and biases, without weight decay,
        even where several are stacked.
    """
    hidden: list[nn.Parameter] = []
    outer: list[nn.Parameter] = []
    undecayed: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            vector = parameter.ndim < 2 or "norm" in name or name.endswith("bias")
            within = _IN_A_BLOCK.search(name) is not None and ".router." not in name
            (undecayed if vector else hidden if within else outer).append(parameter)
    return [{"params": hidden, "hidden": True}, {"params": outer}, {"params": undecayed, "weight_decay": 0.0}]


def global_means(sums: Sequence[Tensor], counts: Sequence[int], world_size: int) -> list[Tensor]:
    """Parts of the means over a step's losses of all ranks, such that averaging gradients over ranks gives theirs.

    Args:
        sums: () each, of this rank and micro-batch.
        counts: how many losses of each kind this rank has in the whole step; other ranks may have others.
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


def clip_gradients(parameters: Iterable[nn.Parameter], most: float) -> Tensor:
    """Scale gradients so that their global norm, over all ranks, is at most `most`.

    Args:
        parameters: whole or sharded.
        most: infinity clips nothing.

    Returns:
        () the norm before.
    """
    norm = nn.utils.clip_grad_norm_(parameters, most)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
