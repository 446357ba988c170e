"""Feed-forward layers: one for all tokens, or one per modality; see `experts.py` for many."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from lit_mm.backbone.balance import ExpertUse
from lit_mm.backbone.grouped import check_grouped_widths, grouped_swiglu
from lit_mm.backbone.initialization import init_linear
from lit_mm.backbone.layout import SequenceLayout
from lit_mm.backbone.routing import ModalityRouting


def llama_hidden_dim(dim: int, multiplier: float = 1.5, multiple_of: int = 256) -> int:
    """Hidden width by the Llama 3 rule: two thirds of 4 x `dim`, times `multiplier`, rounded up to `multiple_of`.

    With the paper's 3/2 a width of 2048 gives 8192.
    """
    hidden = int(multiplier * int(2 * 4 * dim / 3))
    return multiple_of * -(-hidden // multiple_of)


class FeedForward(nn.Module, ABC):
    """The second half of a transformer block. A subclass decides which weights a token passes."""

    def plan(self, layout: SequenceLayout) -> Any:
        """What `forward` needs to know of a batch, made once and shared by all layers. Nothing by default."""
        return None

    @abstractmethod
    def forward(self, x: Tensor, routing: Any) -> tuple[Tensor, ExpertUse | None]:
        """(B, L, D) to (B, L, D), `routing` being what `plan` returned; and how experts were used, if any."""

    def balance(self, load: Tensor) -> None:
        """Even out the use of experts, `load` (E,) being the tokens of each in the last step. Nothing by default."""
        return None

    def active_parameters(self) -> int:
        """How many of the parameters a token passes; all of them by default."""
        return sum(parameter.numel() for parameter in self.parameters())

    @abstractmethod
    def reset_parameters(self, out_std: float | None = None) -> None:
        """Fresh weights; those that write to the residual stream get the standard deviation `out_std`."""


class DenseFeedForward(FeedForward):
    """SwiGLU, `down(silu(gate(x)) * up(x))` (Shazeer 2020, arXiv 2002.05202), the same for text and visual tokens.

    Args:
        dim: model width.
        hidden_dim: inner width; by default the Llama 3 rule, 4 x `dim` rounded up to a multiple of 256.
    """

    def __init__(self, dim: int, hidden_dim: int | None = None) -> None:
        super().__init__()
        hidden_dim = hidden_dim or llama_hidden_dim(dim)
        self.gate = nn.Linear(dim, hidden_dim, bias=False)
        self.up = nn.Linear(dim, hidden_dim, bias=False)
        self.down = nn.Linear(hidden_dim, dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self, out_std: float | None = None) -> None:
        """See `FeedForward.reset_parameters`."""
        init_linear(self.gate.weight)
        init_linear(self.up.weight)
        init_linear(self.down.weight, out_std)

    def forward(self, x: Tensor, routing: Any = None) -> tuple[Tensor, None]:
        """(B, L, D) to (B, L, D)."""
        return self.down(silu(self.gate(x)) * self.up(x)), None


class ModalityFeedForward(FeedForward):
    """Two SwiGLUs, one for text and one for visual tokens (the paper's recipe).

    Every token passes exactly one, so it costs what one `DenseFeedForward` costs. Both are computed by one grouped
    matrix product over tokens sorted by modality: static shapes, and no wait for the device to say how many there are.

    Args:
        dim: model width, a multiple of 8.
        hidden_dim: inner width of each, a multiple of 8; by default the Llama 3 rule, 4 x `dim` rounded up to a
            multiple of 256.

    Raises:
        Mistake: a width is no multiple of 8.
    """

    def __init__(self, dim: int, hidden_dim: int | None = None) -> None:
        super().__init__()
        hidden_dim = hidden_dim or llama_hidden_dim(dim)
        check_grouped_widths(dim, hidden_dim)
        self.gate = nn.Parameter(torch.empty(2, hidden_dim, dim))
        self.up = nn.Parameter(torch.empty(2, hidden_dim, dim))
        self.down = nn.Parameter(torch.empty(2, dim, hidden_dim))
        self.reset_parameters()

    def reset_parameters(self, out_std: float | None = None) -> None:
        """See `FeedForward.reset_parameters`."""
        init_linear(self.gate)
        init_linear(self.up)
        init_linear(self.down, out_std)

    def active_parameters(self) -> int:
        """See `FeedForward.active_parameters`: one of the two."""
        return super().active_parameters() // 2

    def plan(self, layout: SequenceLayout) -> ModalityRouting:
        """Text tokens and padding first, visual tokens behind them."""
        return ModalityRouting.from_visual(layout.visual)

    def forward(self, x: Tensor, routing: ModalityRouting) -> tuple[Tensor, None]:
        """(B, L, D) to (B, L, D)."""
        tokens = routing.sort(x.flatten(0, 1))
        out = grouped_swiglu(tokens, self.gate, self.up, self.down, routing.offsets)
        return routing.unsort(out).view_as(x), None
