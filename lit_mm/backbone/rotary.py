"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864), over the document as one line.

(Ours: the paper does not say how visual tokens are placed.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rotary:
    """Angles of a batch, shared by all layers.

    Attributes:
        cos: (B, L, 1, head_dim) float32, both halves alike.
        sin: (B, L, 1, head_dim) float32, the first half negative.
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
        exponent = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
        angles = positions[..., None, None].float() * theta**-exponent
        cos, sin = angles.cos(), angles.sin()
        return cls(torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1))

    def rotate(self, x: Tensor) -> Tensor:
        """Turn (B, L, heads, head_dim) by the angles of its positions; coordinate i is paired with i + head_dim / 2."""
        partner = x.roll(x.shape[-1] // 2, -1)  # the products are float32, as the angles are
        return torch.addcmul(x * self.cos, partner, self.sin).to(x.dtype)
