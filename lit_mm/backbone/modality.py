"""Projections and norms with weights for text and others for visual tokens, as Mixture-of-Transformers has them.

Both are shared (paper). A follow-up compares what to split (arXiv 2608.05000); the feed-forward alone did best there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_mm.backbone.grouped import grouped_linear
from lit_mm.backbone.routing import Routing


class ModalityLinear(nn.Module):
    """Two linear layers without biases, one for text and one for visual tokens.

    Args:
        in_features: a multiple of 8.
        out_features: a multiple of 8.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(2, out_features, in_features))

    def forward(self, x: Tensor, routing: Routing) -> Tensor:
        """(B, L, in_features) to (B, L, out_features)."""
        tokens, weight = x.flatten(0, 1), self.weight.to(x.dtype)
        if routing.grouped_mm_waits:
            out = torch.where(routing.visual[:, None], F.linear(tokens, weight[1]), F.linear(tokens, weight[0]))
        else:
            groups = routing.modality
            out = groups.unsort(grouped_linear(groups.sort(tokens), weight, groups.offsets))
        return out.view(*x.shape[:-1], -1)


class ModalityRMSNorm(nn.Module):
    """A root mean square norm with one scale for text and another for visual tokens.

    Args:
        dim: width of what is normed.
        eps: added to the mean square.
    """

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(2, dim))

    def reset_parameters(self) -> None:
        """Ones."""
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor, routing: Routing) -> Tensor:
        """Of the last dimension of (B, L, ..., dim)."""
        visual = routing.visual.view(*x.shape[:2], *[1] * (x.ndim - 2))
        text_scale, visual_scale = self.weight.to(x.dtype)
        return F.rms_norm(x, x.shape[-1:], eps=self.eps) * torch.where(visual, visual_scale, text_scale)
