"""Linear layers for groups of tokens, as one matrix product over tokens sorted by group."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import grouped_mm, linear, silu

from lit_mm.backbone.initialization import STD, init_linear
from lit_mm.mistake import Mistake


class GroupedSwiGLU(nn.Module):
    """A SwiGLU for each of several groups of tokens.

    Args:
        groups: how many.
        dim: model width D, a multiple of 8.
        hidden_dim: inner width H of each, a multiple of 8.
    """

    def __init__(self, groups: int, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.empty(groups, hidden_dim, dim))
        self.up = nn.Parameter(torch.empty(groups, hidden_dim, dim))
        self.down = nn.Parameter(torch.empty(groups, dim, hidden_dim))

    def reset_parameters(self, out_std: float = STD) -> None:
        """Fresh weights; those of the last matrix get the standard deviation `out_std`."""
        init_linear(self.gate)
        init_linear(self.up)
        init_linear(self.down, out_std)

    def swiglu(self, tokens: Tensor, offsets: Tensor, scale: Tensor | None = None) -> Tensor:
        """What each token's group makes of it.

        Args:
            tokens: (T, D), group after group.
            offsets: (groups,) int32, where each group ends.
            scale: (T, 1), what results are multiplied by. It is applied before the last product, which is linear: what
                is kept for its gradient is H wide instead of D.

        Returns:
            (T, D).
        """
        inner = silu(grouped_linear(tokens, self.gate, offsets)) * grouped_linear(tokens, self.up, offsets)
        if scale is not None:
            inner = inner * scale.to(inner.dtype)
        return grouped_linear(inner, self.down, offsets)

    def swiglu_of(self, group: int, tokens: Tensor) -> Tensor:
        """What one group makes of tokens (..., D)."""
        gate, up, down = (weight[group].to(tokens.dtype) for weight in (self.gate, self.up, self.down))
        return linear(silu(linear(tokens, gate)) * linear(tokens, up), down)


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


def grouped_linear(tokens: Tensor, weight: Tensor, offsets: Tensor) -> Tensor:
    """A linear layer per group of consecutive tokens, in their dtype.

    Args:
        tokens: (T, in_features), group after group.
        weight: (groups, out_features, in_features).
        offsets: (groups,) int32, where each group ends.

    Returns:
        (T, out_features).
    """
    weight = weight.to(tokens.dtype)
    if torch.compiler.is_compiling() and tokens.dtype == torch.float32:
        return _float32_grouped_mm(tokens, weight.mT, offsets)
    return grouped_mm(tokens, weight.mT, offs=offsets)


def grouped_mm_waits(tokens: Tensor) -> bool:
    """Whether a grouped product of such tokens makes the host wait for the device to say where groups end.

    On a GPU it is one kernel for bfloat16 on Hopper and Blackwell; elsewhere a loop over groups (pytorch#161407).
    """
    if not tokens.is_cuda:
        return False
    return tokens.dtype != torch.bfloat16 or torch.cuda.get_device_capability(tokens.device)[0] not in (9, 10)


# Custom operators: torch.compile knows the shapes of half-precision products only, and refuses float32, which works.
@torch.library.custom_op("lit_mm::float32_grouped_mm", mutates_args=())
def _float32_grouped_mm(tokens: Tensor, matrices: Tensor, offsets: Tensor) -> Tensor:
    return grouped_mm(tokens, matrices, offs=offsets)


@_float32_grouped_mm.register_fake
def _(tokens: Tensor, matrices: Tensor, offsets: Tensor) -> Tensor:
    return tokens.new_empty(tokens.shape[0], matrices.shape[2])


@torch.library.custom_op("lit_mm::float32_grouped_grad", mutates_args=())
def _float32_grouped_grad(tokens: Tensor, grad: Tensor, offsets: Tensor) -> Tensor:
    return grouped_mm(tokens.mT, grad, offs=offsets)


@_float32_grouped_grad.register_fake
def _(tokens: Tensor, grad: Tensor, offsets: Tensor) -> Tensor:
    return tokens.new_empty(offsets.shape[0], tokens.shape[1], grad.shape[1])


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
    tokens, matrices, offsets = ctx.saved_tensors
    grad = grad.contiguous()
    grad_matrices = _float32_grouped_grad(tokens, grad, offsets)
    return _float32_grouped_mm(grad, matrices.mT, offsets), grad_matrices, None


_float32_grouped_mm.register_autograd(_differentiate, setup_context=_save)
