"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864), over the document as one line (the paper's recipe)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rotary:
    """Angles of a batch, shared by all layers.

    Attributes:
        cos: (B, L, 1, head_dim / 2) float32.
        sin: (B, L, 1, head_dim / 2) float32.
    """

    cos: Tensor
    sin: Tensor

    @classmethod
    def from_positions(cls, positions: Tensor, head_dim: int, theta: float) -> Rotary:
        """Angle i of position p is `p * theta ** (-2 i / head_dim)`.

        In float32 whatever the precision of the run: bfloat16 cannot count positions beyond 256.

        Args:
            positions: (B, L) integers.
            head_dim: width of a head, even.
            theta: base; 500,000 in Llama 3.
        """
        with torch.autocast(positions.device.type, enabled=False):
            exponent = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
            angles = positions[..., None, None].float() * theta**-exponent
            return cls(angles.cos(), angles.sin())

    def rotate(self, x: Tensor) -> Tensor:
        """Turn (B, L, heads, head_dim) by the angles of its positions; coordinate i is paired with i + head_dim / 2."""
        first, second = x.chunk(2, dim=-1)  # the products are float32, as the angles are
        rotated = (first * self.cos - second * self.sin, second * self.cos + first * self.sin)
        return torch.cat(rotated, dim=-1).to(x.dtype)
