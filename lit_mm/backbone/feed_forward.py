"""Feed-forward layers: one for all tokens, or one per modality; see `experts.py` for many."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from lit_mm.backbone.balance import ExpertUse
from lit_mm.backbone.grouped import GroupedSwiGLU, check_grouped_widths
from lit_mm.backbone.initialization import STD, init_linear
from lit_mm.backbone.layers import Linear
from lit_mm.backbone.routing import Routing
from lit_mm.mistake import Mistake, name_of


def llama_hidden_dim(dim: int, multiplier: float = 1.5, multiple_of: int = 256) -> int:
    """Hidden width by the Llama 3 rule: two thirds of 4 x `dim`, times `multiplier`, rounded up to `multiple_of`.

    The paper's expansion factor is 3/2 (paper); with this reading of it (ours) a width of 2048 gives 8192.
    """
    hidden = int(multiplier * int(2 * 4 * dim / 3))
    return multiple_of * -(-hidden // multiple_of)


class FeedForward(nn.Module, ABC):
    """The second half of a transformer block. A subclass decides which weights a token passes."""

    @abstractmethod
    def forward(self, x: Tensor, routing: Routing) -> tuple[Tensor, ExpertUse | None]:
        """(B, L, D) to (B, L, D), and how experts were used, if there are any."""

    def balance(self, load: Tensor) -> None:
        """Even out the use of experts, `load` (E,) being the tokens of each in the last step. Nothing by default."""
        return None

    def active_parameters(self) -> int:
        """How many of the parameters a token passes; all of them by default."""
        return sum(parameter.numel() for parameter in self.parameters())

    @abstractmethod
    def reset_parameters(self, out_std: float = STD) -> None:
        """Fresh weights; those that write to the residual stream get the standard deviation `out_std`."""


def check_feed_forward(layer: object) -> None:
    """Refuse what cannot be the feed-forward of a block.

    Raises:
        Mistake: it is no `FeedForward`, or its `reset_parameters` takes no `out_std`.
    """
    if not isinstance(layer, FeedForward):
        raise Mistake(
            f"model.backbone.feed_forward made a {name_of(layer)}; a subclass of lit_mm.backbone.FeedForward is needed"
        )
    try:
        inspect.signature(layer.reset_parameters).bind(STD)
    except TypeError as error:
        raise Mistake(
            f"reset_parameters of {name_of(layer)} does not take out_std, the standard deviation of weights that write "
            "to the residual stream; make it its one argument"
        ) from error


def check_result(layer: FeedForward, found: object, x: Tensor) -> None:
    """Refuse a result that a block cannot add to what it has.

    Raises:
        Mistake: it is no pair, or the first of it has another shape than the layer's input `x`.
    """
    if not isinstance(found, tuple) or len(found) != 2 or not isinstance(found[0], Tensor):
        raise Mistake(
            f"{name_of(layer)}.forward returned a {type(found).__name__}, expected a pair: a tensor of shape "
            f"{tuple(x.shape)}, and how experts were used or None"
        )
    if found[0].shape != x.shape:
        raise Mistake(
            f"{name_of(layer)}.forward returned a tensor of shape {tuple(found[0].shape)}, expected {tuple(x.shape)}, "
            "that of its input"
        )


class DenseFeedForward(FeedForward):
    """SwiGLU, `down(silu(gate(x)) * up(x))` (Shazeer 2020, arXiv 2002.05202), the same for text and visual tokens.

    Args:
        dim: model width.
        hidden_dim: inner width; by default the Llama 3 rule, 4 x `dim` rounded up to a multiple of 256.
    """

    def __init__(self, dim: int, hidden_dim: int | None = None) -> None:
        super().__init__()
        hidden_dim = hidden_dim or llama_hidden_dim(dim)
        self.gate = Linear(dim, hidden_dim, bias=False)
        self.up = Linear(dim, hidden_dim, bias=False)
        self.down = Linear(hidden_dim, dim, bias=False)
        self.reset_parameters()

    def reset_parameters(self, out_std: float = STD) -> None:
        """See `FeedForward.reset_parameters`."""
        init_linear(self.gate.weight)
        init_linear(self.up.weight)
        init_linear(self.down.weight, out_std)

    def forward(self, x: Tensor, routing: Routing) -> tuple[Tensor, None]:
        """(B, L, D) to (B, L, D)."""
        return self.down(silu(self.gate(x)) * self.up(x)), None


class ModalityFeedForward(GroupedSwiGLU, FeedForward):
    """Two SwiGLUs, one for text and one for visual tokens (paper).

    Every token passes exactly one, so it costs what one `DenseFeedForward` costs. Both are computed by one grouped
    matrix product over tokens sorted by modality: static shapes, and no wait for the device to say how many there are.
    Where a grouped product would wait, every token passes both, and one result is chosen.

    Args:
        dim: model width, a multiple of 8.
        hidden_dim: inner width of each, a multiple of 8; by default the Llama 3 rule, 4 x `dim` rounded up to a
            multiple of 256.

    Raises:
        Mistake: a width is no multiple of 8.
    """

    def __init__(self, dim: int, hidden_dim: int | None = None) -> None:
        hidden_dim = hidden_dim or llama_hidden_dim(dim)
        check_grouped_widths(dim, hidden_dim)
        super().__init__(2, dim, hidden_dim)
        self.reset_parameters()

    def active_parameters(self) -> int:
        """See `FeedForward.active_parameters`: one of the two."""
        return super().active_parameters() // 2

    def forward(self, x: Tensor, routing: Routing) -> tuple[Tensor, None]:
        """(B, L, D) to (B, L, D)."""
        tokens = x.flatten(0, 1)
        if routing.grouped_mm_waits:
            out = torch.where(routing.visual[:, None], self.swiglu_of(1, tokens), self.swiglu_of(0, tokens))
        else:
            groups = routing.modality
            out = groups.unsort(self.swiglu(groups.sort(tokens), groups.offsets))
        return out.view_as(x), None
