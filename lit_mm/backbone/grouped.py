"""Linear layers for groups of tokens, as one matrix product over tokens sorted by group."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import grouped_mm, silu

from lit_mm.backbone.initialization import init_linear
from lit_mm.mistake import Mistake


class GroupedSwiGLU(nn.Module):
    """`experts` SwiGLUs, of which every token passes several.

    Args:
        experts: E.
        dim: model width D, a multiple of 8.
        hidden_dim: inner width H of each, a multiple of 8.
    """

    def __init__(self, experts: int, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.empty(experts, hidden_dim, dim))
        self.up = nn.Parameter(torch.empty(experts, hidden_dim, dim))
        self.down = nn.Parameter(torch.empty(experts, dim, hidden_dim))

    def reset_parameters(self, out_std: float | None = None) -> None:
        """Fresh weights; those of the last matrix get the standard deviation `out_std`."""
        init_linear(self.gate)
        init_linear(self.up)
        init_linear(self.down, out_std)

    def forward(self, tokens: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """The weighted sum of what each token's experts make of it.

        Args:
            tokens: (T, D).
            experts: (T, k) int64, which experts.
            weights: (T, k).

        Returns:
            (T, D).
        """
        count, chosen = experts.shape
        order = experts.flatten().argsort(stable=True)
        inverse = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        sizes = torch.zeros(len(self.gate), dtype=torch.int32, device=order.device)
        sizes = sizes.scatter_add_(0, experts.flatten(), torch.ones_like(order, dtype=torch.int32))
        offsets = sizes.cumsum(0, dtype=torch.int32)
        inputs = SortedCopies.apply(tokens, order, inverse, chosen)
        out = grouped_swiglu(inputs, self.gate, self.up, self.down, offsets)
        out = out.index_select(0, inverse).view(count, chosen, -1)
        return torch.bmm(weights.to(out.dtype).unsqueeze(1), out).squeeze(1)


class SortedCopies(torch.autograd.Function):
    """Copies every token k times and sorts the copies; the gradient of a token is the sum over its copies.

    `index_select` would add up that gradient in an order that differs from run to run on CUDA.
    """

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, order: Tensor, inverse: Tensor, copies: int) -> Tensor:
        """(T, D) to (T k, D)."""
        ctx.save_for_backward(inverse)
        ctx.copies = copies
        return tokens.index_select(0, order // copies)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        """(T k, D) to (T, D)."""
        (inverse,) = ctx.saved_tensors
        return gradient.index_select(0, inverse).view(-1, ctx.copies, gradient.shape[-1]).sum(1), None, None, None


def check_grouped_widths(dim: int, hidden_dim: int, width: str = "feed_forward.hidden_dim") -> None:
    """Grouped matrix products need rows of a multiple of 16 bytes, which is 8 numbers of bfloat16.

    Args:
        dim: model width.
        hidden_dim: inner width.
        width: what the inner width is called.

    Raises:
        Mistake: a width is no multiple of 8.
    """
    for name, value in (("dim", dim), (width, hidden_dim)):
        if value % 8:
            raise Mistake(
                f"model.backbone.{name} is {value}, but rows of a grouped matrix product take multiples of 16 bytes; "
                f"use a multiple of 8, for instance {8 * -(-value // 8)}"
            )


def grouped_swiglu(tokens: Tensor, gate: Tensor, up: Tensor, down: Tensor, offsets: Tensor) -> Tensor:
    """A SwiGLU per group of consecutive tokens.

    Args:
        tokens: (T, D), group after group.
        gate: (groups, H, D).
        up: (groups, H, D).
        down: (groups, D, H).
        offsets: (groups,) int32, where each group ends.

    Returns:
        (T, D).
    """
    inner = silu(grouped_linear(tokens, gate, offsets)) * grouped_linear(tokens, up, offsets)
    return grouped_linear(inner, down, offsets)


def grouped_linear(tokens: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
    """A linear layer per group of consecutive tokens.

    Args:
        tokens: (T, in_features), group after group.
        weight: (groups, out_features, in_features).
        offsets: (groups,) int32, where each group ends.

    Returns:
        (T, out_features).
    """
    # Unlike linear layers, grouped_mm is not among the functions that autocast casts.
    if torch.is_autocast_enabled(tokens.device.type):
        dtype = torch.get_autocast_dtype(tokens.device.type)
        tokens, weight = tokens.to(dtype), weight.to(dtype)
    product = grouped_mm if tokens.dtype in (torch.bfloat16, torch.float16) else _uncompiled_grouped_mm
    return product(tokens, weight.mT, offs=offsets)


# torch.compile knows the shapes of half-precision products only, and refuses float32, which works.
_uncompiled_grouped_mm = torch.compiler.disable(grouped_mm)
