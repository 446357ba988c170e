"""Layers that compute in the dtype of what they are given, see `lit_mm.precision`."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Linear(nn.Linear):
    """A linear layer in the dtype of its input."""

    def forward(self, x: Tensor, routing: object = None) -> Tensor:  # `routing`: for `modality.ModalityLinear` alone
        """(..., in_features) to (..., out_features)."""
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


class RMSNorm(nn.RMSNorm):
    """Root mean square norm, computed in float32, in the dtype of its input."""

    def forward(self, x: Tensor, routing: object = None) -> Tensor:  # `routing`: for `modality.ModalityRMSNorm` alone
        """Of the last dimension, any shape."""
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)
