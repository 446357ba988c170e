"""Which experts a token passes, and with which weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_mm.backbone.initialization import init_linear

Scores = Literal["softmax", "sigmoid"]


class Choice(NamedTuple):
    """The experts of T tokens.

    Attributes:
        experts: (T, k) int64, all different, the best first.
        weights: (T, k) float32, what their outputs are multiplied by.
        scores: (T, E) float32 in [0, 1], of all experts.
        logits: (T, E) float32.
    """

    experts: Tensor
    weights: Tensor
    scores: Tensor
    logits: Tensor


class Router(nn.Module):
    """Scores every expert for every token in float32 and chooses the `active` best.

    The bias is added for the choice alone, not for the weights, and is moved by the balance of loads instead of by
    gradients (Wang et al. 2024, arXiv 2408.15664). There it is added to sigmoid scores; here to the logits, since
    softmax scores shrink with the number of experts, and one rate should do for 8 experts and for 1,008. How the paper
    scores is not stated; softmax and renormalised weights are the defaults here.

    Args:
        dim: model width.
        experts: E, to choose from.
        active: k, that a token passes.
        scores: `softmax` over the experts, or a `sigmoid` for each.
        renormalise: whether a token's weights are divided by their sum.
    """

    bias: Tensor

    def __init__(
        self, dim: int, experts: int, active: int, scores: Scores = "softmax", renormalise: bool = True
    ) -> None:
        super().__init__()
        self.active, self.scores, self.renormalise = active, scores, renormalise
        self.weight = nn.Parameter(torch.empty(experts, dim))
        self.register_buffer("bias", torch.empty(experts, dtype=torch.float32))

    def reset_parameters(self) -> None:
        """Fresh weights and no bias."""
        init_linear(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, tokens: Tensor) -> Choice:
        """Choose for (T, D)."""
        weight = self.weight.to(tokens.dtype)  # as shards are gathered; the product is exact
        logits = F.linear(tokens.float(), weight.float())
        scores = logits.softmax(-1) if self.scores == "softmax" else logits.sigmoid()
        experts = (logits.detach() + self.bias).topk(self.active, dim=-1).indices
        weights = scores.gather(-1, experts)
        if self.renormalise:
            weights = weights / weights.sum(-1, keepdim=True).clamp_min(1e-9)
        return Choice(experts, weights, scores, logits)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Router:
        super()._apply(fn, recurse)
        self.bias = self.bias.float()  # its steps are too small for half precision
        return self

    @torch.no_grad()
    def move_bias(self, load: Tensor, rate: float) -> None:
        """Make experts below the mean load a little likelier, and those above it a little less.

        Args:
            load: (E,) tokens of each expert since the last move.
            rate: by how much.
        """
        self.bias += rate * (load.mean() - load).sign()
