"""Tokens sorted by the weights they pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ModalityRouting:
    """Tokens of a batch in two groups: text (and padding), then visual. Order within a group is kept.

    Attributes:
        order: (T,) int64, which token stands at each sorted place.
        inverse: (T,) int64, where each token went.
        offsets: (2,) int32, where each group ends.
    """

    order: Tensor
    inverse: Tensor
    offsets: Tensor

    @classmethod
    def from_visual(cls, visual: Tensor) -> ModalityRouting:
        """From (B, L) bool, without asking the device for a count."""
        flat = visual.flatten()
        total = flat.numel()
        text_before = (~flat).cumsum(0)
        texts = text_before[-1]
        index = torch.arange(total, device=flat.device)
        inverse = torch.where(flat, texts + index - text_before, text_before - 1)
        order = torch.empty_like(index).scatter_(0, inverse, index)
        offsets = torch.stack((texts, torch.full_like(texts, total))).to(torch.int32)
        return cls(order, inverse, offsets)

    def sort(self, tokens: Tensor) -> Tensor:
        """(T, D) in reading order to (T, D) group after group."""
        return tokens.index_select(0, self.order)

    def unsort(self, tokens: Tensor) -> Tensor:
        """The way back."""
        return tokens.index_select(0, self.inverse)
