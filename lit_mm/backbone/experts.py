"""A mixture of small experts as a feed-forward layer (paper §6)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lit_mm.backbone.balance import ExpertUse, balance_loss, selections, z_loss
from lit_mm.backbone.feed_forward import FeedForward
from lit_mm.backbone.grouped import GroupedSwiGLU, check_grouped_widths
from lit_mm.backbone.initialization import STD
from lit_mm.backbone.router import Router, Scores
from lit_mm.backbone.routing import Groups, Routing
from lit_mm.backbone.specialisation import KINDS
from lit_mm.mistake import Mistake

Shared = Literal["modality", "global", "none"]
SHARED = {"modality": 2, "global": 1, "none": 0}


class ExpertFeedForward(FeedForward):
    """Every token passes `active` of `experts` small SwiGLUs: those a router chooses, and a shared one.

    With `shared: modality` one expert serves every text token and another every visual one; with `global` one serves
    all. Shared experts count among `experts`, and the one a token passes among `active`, as in the paper: its 256 are
    254 to choose from and 2 shared, its 16 active are 15 chosen and 1 shared. No token is ever dropped. All experts are
    one grouped matrix product over tokens sorted by expert.

    Args:
        dim: model width.
        experts: all of them.
        active: those that a token passes.
        granularity: G = 4 dim / width of an expert. With `active` = G a token costs what one dense layer of width
            4 dim does.
        shared: `modality`, `global` or `none`.
        scores: of the router, `softmax` or `sigmoid`.
        renormalise: whether a token's weights are divided by their sum.
        bias_rate: by how much a step moves the routing bias towards balance; 0 leaves it out.
        balance_weight: of the auxiliary balance loss; 0 leaves it out.
        z_weight: of the router's z-loss; 0 leaves it out.

    Attributes:
        expert_dim: inner width of an expert.
        routed: experts the router chooses from; the shared ones stand behind them.

    Raises:
        Mistake: the widths or the numbers cannot hold.
    """

    def __init__(
        self,
        dim: int,
        experts: int = 256,
        active: int = 16,
        granularity: int = 16,
        shared: Shared = "modality",
        scores: Scores = "softmax",
        renormalise: bool = True,
        bias_rate: float = 1e-2,
        balance_weight: float = 0.0,
        z_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.expert_dim = expert_width(dim, granularity)
        check_grouped_widths(
            dim, self.expert_dim, width=f"feed_forward.granularity is {granularity}: an expert's width"
        )
        self.shared: Shared = shared
        self.total, self.active = experts, active
        self.routed = experts - SHARED[shared]
        chosen = active - (shared != "none")
        check_counts(experts, active, shared, self.routed, chosen)
        self.bias_rate, self.balance_weight, self.z_weight = bias_rate, balance_weight, z_weight
        self.router = Router(dim, self.routed, chosen, scores, renormalise)
        self.experts = GroupedSwiGLU(experts, dim, self.expert_dim)
        self.reset_parameters()

    def reset_parameters(self, out_std: float = STD) -> None:
        """See `FeedForward.reset_parameters`."""
        self.router.reset_parameters()
        self.experts.reset_parameters(out_std)

    def active_parameters(self) -> int:
        """See `FeedForward.active_parameters`: the router, and the active experts."""
        experts = sum(parameter.numel() for parameter in self.experts.parameters())
        return super().active_parameters() - experts + experts * self.active // self.total

    def balance(self, load: Tensor) -> None:
        """Move the routing bias by the sign of every expert's error."""
        self.router.move_bias(load, self.bias_rate)

    def forward(self, x: Tensor, routing: Routing) -> tuple[Tensor, ExpertUse]:
        """(B, L, D) to (B, L, D)."""
        tokens = x.flatten(0, 1)
        choice = self.router(tokens)
        experts, weights = choice.experts, choice.weights
        if self.shared != "none":
            own = routing.visual.long() if self.shared == "modality" else torch.zeros_like(routing.visual.long())
            experts = torch.cat([experts, self.routed + own[:, None]], 1)
            weights = torch.cat([weights, torch.ones_like(weights[:, :1])], 1)
        groups = Groups.of_choices(experts, self.total)
        out = self.experts.swiglu(groups.sort(tokens), groups.offsets, groups.sort_copies(weights))
        counts = selections(choice.experts, routing.kinds, routing.counted, self.routed, KINDS)
        loss = counts.new_zeros(())
        if self.balance_weight:
            loss = loss + self.balance_weight * balance_loss(choice.scores, counts.sum(0), routing.counted)
        if self.z_weight:
            loss = loss + self.z_weight * z_loss(choice.logits, routing.counted)
        return groups.unsort(out).view_as(x), ExpertUse(counts, loss)


def expert_width(dim: int, granularity: int) -> int:
    """Inner width of an expert, 4 dim / granularity.

    Raises:
        Mistake: that is no whole number.
    """
    if granularity < 1 or 4 * dim % granularity:
        raise Mistake(
            f"model.backbone.feed_forward.granularity is {granularity}, but 4 x dim / granularity, the width of an "
            f"expert, has to be a whole number; use a divisor of {4 * dim}"
        )
    return 4 * dim // granularity


def check_counts(experts: int, active: int, shared: Shared, routed: int, chosen: int) -> None:
    """Refuse numbers of experts that cannot hold.

    Raises:
        Mistake: a token would choose none, or more than there are.
    """
    key, total = "model.backbone.feed_forward", SHARED[shared]
    if chosen < 1:
        raise Mistake(
            f"{key}.active is {active}, but a token has to choose at least one expert"
            + (
                f" beside the shared one (shared: {shared}); use 2 or more, or shared: none"
                if total
                else "; use 1 or more"
            )
        )
    if chosen > routed:
        raise Mistake(
            f"{key}.active is {active}: a token would choose {chosen} experts, but of experts: {experts} only {routed} "
            f"are there to choose from (shared: {shared} takes {total}); use experts: {chosen + total} or more"
        )
