"""Grouped-query self-attention (Ainslie et al. 2023, arXiv 2305.13245)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from lit_mm.backbone.initialization import STD, init_linear
from lit_mm.backbone.layers import Linear
from lit_mm.backbone.masks import AttentionContext
from lit_mm.backbone.modality import ModalityLinear
from lit_mm.backbone.rotary import Rotary
from lit_mm.backbone.routing import Routing


class Attention(nn.Module):
    """Self-attention with fewer key and value heads than query heads, rotary positions and no biases.

    Args:
        dim: model width.
        heads: query heads; the head width is `dim / heads`.
        kv_heads: key and value heads, each shared by `heads / kv_heads` query heads.
        by_modality: whether text and visual tokens have projections of their own.
        qk_norm: makes a norm of queries, or of keys, from the head width; none by default.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        kv_heads: int,
        by_modality: bool = False,
        qk_norm: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, dim // heads
        kv_dim = kv_heads * self.head_dim

        def linear(in_features: int, out_features: int) -> nn.Module:
            if by_modality:
                return ModalityLinear(in_features, out_features)
            return Linear(in_features, out_features, bias=False)

        self.query, self.key, self.value = linear(dim, dim), linear(dim, kv_dim), linear(dim, kv_dim)
        self.out = linear(dim, dim)
        self.query_norm = None if qk_norm is None else qk_norm(self.head_dim)
        self.key_norm = None if qk_norm is None else qk_norm(self.head_dim)

    def reset_parameters(self, out_std: float = STD) -> None:
        """Fresh weights; the output projection gets the standard deviation `out_std`."""
        for projection in (self.query, self.key, self.value):
            init_linear(projection.weight)  # type: ignore[arg-type]
        init_linear(self.out.weight, out_std)  # type: ignore[arg-type]
        if self.query_norm is not None and self.key_norm is not None:
            self.query_norm.reset_parameters()  # type: ignore[operator]
            self.key_norm.reset_parameters()  # type: ignore[operator]

    def forward(self, x: Tensor, rotary: Rotary, context: AttentionContext, routing: Routing) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        query, key, value = (
            projection(x, routing).unflatten(-1, (-1, self.head_dim))
            for projection in (self.query, self.key, self.value)
        )
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query, routing), self.key_norm(key, routing)
        query, key = rotary.rotate(query), rotary.rotate(key)
        mixed = context.attend(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
        return self.out(mixed.transpose(1, 2).flatten(2), routing)
