"""Tokens sorted by the weights they pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lit_mm.backbone.layout import SequenceLayout


@dataclass(frozen=True)
class Groups:
    """Tokens sorted by group; within a group they keep their order.

    A token may stand in several groups: there are `copies` of each, side by side before they are sorted.

    Attributes:
        order: (T copies,) int64, which of them stands at each sorted place.
        inverse: (T copies,) int64, where each of them went.
        offsets: (groups,) int32, where each group ends.
        copies: of a token.
    """

    order: Tensor
    inverse: Tensor
    offsets: Tensor
    copies: int = 1

    @classmethod
    def of_two(cls, second: Tensor) -> Groups:
        """From (T,) bool, true for tokens of the second of two groups, without asking the device for a count."""
        total = second.numel()
        first_before = (~second).cumsum(0)
        firsts = first_before[-1]
        index = torch.arange(total, device=second.device)
        inverse = torch.where(second, firsts + index - first_before, first_before - 1)
        order = torch.empty_like(index).scatter_(0, inverse, index)
        offsets = torch.stack((firsts, torch.full_like(firsts, total))).to(torch.int32)
        return cls(order, inverse, offsets)

    @classmethod
    def of_choices(cls, groups: Tensor, total: int) -> Groups:
        """From (T, k) int64, k groups for each token, of `total`."""
        flat = groups.flatten()
        order = flat.argsort(stable=True)
        inverse = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        sizes = torch.zeros(total, dtype=torch.int32, device=order.device)
        sizes = sizes.scatter_add_(0, flat, torch.ones_like(flat, dtype=torch.int32))
        return cls(order, inverse, sizes.cumsum(0, dtype=torch.int32), groups.shape[1])

    def sort(self, tokens: Tensor) -> Tensor:
        """(T, D) to (T copies, D), group after group."""
        return _Gather.apply(tokens, self.order // self.copies, self.inverse, self.copies)

    def sort_copies(self, values: Tensor) -> Tensor:
        """(T, copies), a value for each copy, to (T copies, 1), group after group."""
        return _Gather.apply(values.reshape(-1, 1), self.order, self.inverse, 1)

    def unsort(self, tokens: Tensor) -> Tensor:
        """The way back, (T copies, D) to (T, D): a token's copies are added up."""
        copies = _Gather.apply(tokens, self.inverse, self.order, 1)
        return copies if self.copies == 1 else copies.view(-1, self.copies, tokens.shape[-1]).sum(1)


class _Gather(torch.autograd.Function):
    """`tokens[index]`, each token `copies` times; the gradient is gathered too.

    Plain indexing would add it up, in an order that differs from run to run on CUDA.
    """

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, index: Tensor, inverse: Tensor, copies: int) -> Tensor:
        ctx.save_for_backward(inverse)
        ctx.copies = copies
        return tokens.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        (inverse,) = ctx.saved_tensors
        grad_copies = grad.index_select(0, inverse)
        if ctx.copies > 1:
            grad_copies = grad_copies.view(-1, ctx.copies, grad.shape[-1]).sum(1)
        return grad_copies, None, None, None


@dataclass(frozen=True)
class Routing:
    """What layers know of a batch's tokens, made once and shared by all of them.

    Attributes:
        visual: (T,) bool, false for text and padding.
        counted: (T,) float32, 0 for padding, else 1.
        kinds: (T,) int64, what experts are counted by.
        modality: text tokens and padding first, visual tokens behind them.
        grouped_mm_waits: see `grouped.grouped_mm_waits`.
    """

    visual: Tensor
    counted: Tensor
    kinds: Tensor
    modality: Groups
    grouped_mm_waits: bool = False

    @classmethod
    def of(cls, layout: SequenceLayout, grouped_mm_waits: bool = False) -> Routing:
        """Of all tokens of a layout, T = B L."""
        visual = layout.visual.flatten()
        kinds = visual.long() if layout.kinds is None else layout.kinds.flatten()
        counted = (layout.document_ids >= 0).flatten().float()
        return cls(visual, counted, kinds, Groups.of_two(visual), grouped_mm_waits)
