"""One transformer block."""

from __future__ import annotations

from torch import Tensor, nn

from lit_mm.backbone.attention import Attention
from lit_mm.backbone.balance import ExpertUse
from lit_mm.backbone.feed_forward import FeedForward, check_feed_forward, check_result
from lit_mm.backbone.initialization import STD
from lit_mm.backbone.masks import AttentionContext
from lit_mm.backbone.rotary import Rotary
from lit_mm.backbone.routing import Routing


class Block(nn.Module):
    """Attention and feed-forward, each reading the normed residual stream and adding to it.

    Args:
        attention_norm: norms what the attention reads.
        attention: mixes positions.
        feed_forward_norm: norms what the feed-forward reads.
        feed_forward: changes each position by itself.

    Raises:
        Mistake: `feed_forward` is none, or its `reset_parameters` takes no deviation.
    """

    def __init__(
        self, attention_norm: nn.Module, attention: Attention, feed_forward_norm: nn.Module, feed_forward: FeedForward
    ) -> None:
        super().__init__()
        check_feed_forward(feed_forward)
        self.attention_norm, self.attention = attention_norm, attention
        self.feed_forward_norm, self.feed_forward = feed_forward_norm, feed_forward

    def reset_parameters(self, out_std: float = STD) -> None:
        """Fresh weights; the two projections that write to the residual stream get the deviation `out_std`."""
        self.attention_norm.reset_parameters()  # type: ignore[operator]
        self.attention.reset_parameters(out_std)
        self.feed_forward_norm.reset_parameters()  # type: ignore[operator]
        self.feed_forward.reset_parameters(out_std)

    def forward(
        self,
        x: Tensor,
        rotary: Rotary,
        context: AttentionContext,
        routing: Routing,
        wanted: tuple[Tensor, Routing] | None = None,
    ) -> tuple[Tensor, ExpertUse | None]:
        """(B, L, D) to (B, L, D), and how experts were used.

        With `wanted`, numbers (T,) of tokens among the B x L and their routing, to (1, T, D): the feed-forward is of
        these alone.
        """
        x = x + self.attention(self.attention_norm(x, routing), rotary, context, routing)
        if wanted is not None:
            index, routing = wanted
            x = x.flatten(0, 1)[index][None]
        found = self.feed_forward(self.feed_forward_norm(x, routing), routing)
        check_result(self.feed_forward, found, x)
        return x + found[0], found[1]
