"""One transformer block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from lit_mm.backbone.attention import Attention
from lit_mm.backbone.balance import ExpertUse
from lit_mm.backbone.feed_forward import FeedForward
from lit_mm.backbone.initialization import init_linear
from lit_mm.backbone.masks import AttentionMask
from lit_mm.backbone.rotary import Rotary


class Block(nn.Module):
    """Attention and feed-forward, each reading the normed residual stream and adding to it.

    Args:
        dim: model width.
        heads: query heads.
        kv_heads: key and value heads.
        feed_forward: makes the feed-forward layer from the width.
        norm_eps: added to the mean square in both norms.
    """

    def __init__(
        self, dim: int, heads: int, kv_heads: int, feed_forward: Callable[[int], FeedForward], norm_eps: float
    ) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(dim, eps=norm_eps)
        self.attention = Attention(dim, heads, kv_heads)
        self.feed_forward_norm = nn.RMSNorm(dim, eps=norm_eps)
        self.feed_forward = feed_forward(dim)

    def reset_parameters(self, out_std: float) -> None:
        """Fresh weights; the two projections that write to the residual stream get the deviation `out_std`."""
        self.attention_norm.reset_parameters()
        self.feed_forward_norm.reset_parameters()
        for linear in (self.attention.query, self.attention.key, self.attention.value):
            init_linear(linear.weight)
        init_linear(self.attention.out.weight, out_std)
        self.feed_forward.reset_parameters(out_std)

    def forward(
        self, x: Tensor, rotary: Rotary, mask: AttentionMask, routing: Any, wanted: Tensor | None = None
    ) -> tuple[Tensor, ExpertUse | None]:
        """(B, L, D) to (B, L, D), and how experts were used.

        With `wanted` (T,), numbers of positions among the B x L, to (1, T, D): the feed-forward is of these alone, and
        so is the `routing`.
        """
        x = x + self.attention(self.attention_norm(x), rotary, mask)
        if wanted is not None:
            x = x.flatten(0, 1)[wanted][None]
        out, use = self.feed_forward(self.feed_forward_norm(x), routing)
        return x + out, use
