"""Grouped-query self-attention (Ainslie et al. 2023, arXiv 2305.13245)."""

from __future__ import annotations

from torch import Tensor, nn

from lit_mm.backbone.masks import AttentionMask
from lit_mm.backbone.rotary import Rotary


class Attention(nn.Module):
    """Self-attention with fewer key and value heads than query heads, rotary positions and no biases.

    Args:
        dim: model width.
        heads: query heads; the head width is `dim / heads`.
        kv_heads: key and value heads, each shared by `heads / kv_heads` query heads.
    """

    def __init__(self, dim: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, dim // heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, kv_heads * self.head_dim, bias=False)
        self.value = nn.Linear(dim, kv_heads * self.head_dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, rotary: Rotary, mask: AttentionMask) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        rows, length, _ = x.shape
        query = rotary.rotate(self.query(x).view(rows, length, self.heads, self.head_dim))
        key = rotary.rotate(self.key(x).view(rows, length, self.kv_heads, self.head_dim))
        value = self.value(x).view(rows, length, self.kv_heads, self.head_dim)
        mixed = mask.attend(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2))
        return self.out(mixed.transpose(1, 2).reshape(rows, length, -1))
