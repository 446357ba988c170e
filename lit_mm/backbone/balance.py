"""How evenly experts are used, and the losses that ask for it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class ExpertUse(NamedTuple):
    """What one layer did with its experts in one forward pass.

    It is returned instead of being kept in the layer, so that a forward pass repeated by activation checkpointing is
    not counted twice.

    Attributes:
        tokens: (KINDS, E) float32, tokens of each kind of `specialisation` that chose each routed expert; padding is
            not counted.
        loss: () float32, the weighted balance and z losses.
    """

    tokens: Tensor
    loss: Tensor


@torch.no_grad()
def selections(experts: Tensor, kind: Tensor, counted: Tensor, total: int, kinds: int) -> Tensor:
    """How often tokens of each kind chose each expert, without asking the device for a count.

    Args:
        experts: (T, k) int64.
        kind: (T,) int64, from 0 to `kinds` - 1.
        counted: (T,) float32, what a token counts for.
        total: E.
        kinds: of tokens.

    Returns:
        (kinds, E) float32.
    """
    cell = kind[:, None] * total + experts
    found = torch.zeros(kinds * total, dtype=torch.float32, device=experts.device)
    return found.scatter_add_(0, cell.flatten(), counted[:, None].expand_as(cell).flatten()).view(kinds, total)


def balance_loss(scores: Tensor, load: Tensor, counted: Tensor) -> Tensor:
    """E times the sum over experts of share of choices x mean share of score: 1 when even, E when all choose one.

    Switch Transformer (arXiv 2101.03961, equation 4), with choices and scores each normalised to sum to 1. The paper
    uses a balance loss whose form it does not state.

    Args:
        scores: (T, E) float32, not negative.
        load: (E,) choices of each expert.
        counted: (T,) float32, 0 for padding.
    """
    share = scores / scores.sum(-1, keepdim=True).clamp_min(1e-9)
    mean = (share * counted[:, None]).sum(0) / counted.sum().clamp_min(1)
    return len(load) * (load / load.sum().clamp_min(1) * mean).sum()


def z_loss(logits: Tensor, counted: Tensor) -> Tensor:
    """Mean squared log-sum-exp of the router's logits, which keeps them small (ST-MoE, arXiv 2202.08906, equation 5).

    Args:
        logits: (T, E) float32.
        counted: (T,) float32, 0 for padding.
    """
    return (logits.logsumexp(-1).square() * counted).sum() / counted.sum().clamp_min(1)


class LoadSummary(NamedTuple):
    """How even a layer's load is.

    Attributes:
        largest: largest load over mean load; 1 when even.
        entropy: of the shares of the load, divided by that of an even load: from 0 to 1.
        dead: experts that no token chose.
    """

    largest: Tensor
    entropy: Tensor
    dead: Tensor


def summarise(load: Tensor) -> LoadSummary:
    """Of loads (..., E), each (...)."""
    share = load / load.sum(-1, keepdim=True).clamp_min(1)
    entropy = -torch.xlogy(share, share).sum(-1) / torch.log(torch.tensor(float(load.shape[-1])))
    return LoadSummary(share.amax(-1) * load.shape[-1], entropy, (load == 0).sum(-1))
