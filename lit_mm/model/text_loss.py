"""Next-token losses whose gradients are made along with them, so that logits are neither kept nor computed twice."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from lit_mm.sequence import IGNORE

LOGIT_ROWS = 1024  # tokens whose logits exist at one time


class TextLosses(NamedTuple):
    """Cross-entropy in nats.

    Attributes:
        each: (T,) float32, 0 where the target is -100; to be looked at, it has no gradient.
        sum: () float32 over all of them, for the backward pass.
    """

    each: Tensor
    sum: Tensor


def text_losses(hidden: Tensor, weight: Tensor, targets: Tensor) -> TextLosses:
    """Cross-entropy of `hidden @ weight.T` per token, with the logits of only 1,024 tokens in memory.

    PyTorch's `linear_cross_entropy` does the same from version 2.14 on, but gives the sum alone; losses of each token
    take it a fourth matrix product.

    Args:
        hidden: (T, D).
        weight: (vocab_size, D).
        targets: (T,) int64, -100 where there is no loss.
    """
    if torch.is_autocast_enabled(hidden.device.type):
        dtype = torch.get_autocast_dtype(hidden.device.type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    return TextLosses(*_TextLosses.apply(hidden, weight, targets, torch.is_grad_enabled()))


class _TextLosses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, with_gradients: bool
    ) -> tuple[Tensor, Tensor]:
        losses = torch.empty(len(hidden), device=hidden.device)
        # Of the sum. What it is multiplied by later multiplies them too.
        of_hidden, of_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        parts = (t.split(LOGIT_ROWS) for t in (hidden, targets, losses, of_hidden))
        for rows, wanted, loss, of_rows in zip(*parts, strict=True):
            counted = (wanted != IGNORE)[:, None]
            wanted = wanted.clamp_min(0)[:, None]
            logits = linear(rows, weight).float()
            chances = logits.softmax(-1)
            # The largest chance is never too small for a logarithm, unlike that of the wanted token.
            log_sums = logits.amax(-1, keepdim=True) - chances.amax(-1, keepdim=True).log()
            loss.copy_(((log_sums - logits.gather(1, wanted)) * counted).squeeze(1))
            if with_gradients:
                of_logits = chances.scatter_add_(1, wanted, -torch.ones_like(log_sums)).mul_(counted).to(weight.dtype)
                torch.mm(of_logits, weight, out=of_rows)
                of_weight.addmm_(of_logits.T, rows)
        ctx.save_for_backward(of_hidden, of_weight)
        ctx.mark_non_differentiable(losses)
        return losses, losses.sum()

    @staticmethod
    def backward(ctx: Any, of_losses: Tensor, of_sum: Tensor) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[override]
        of_hidden, of_weight = ctx.saved_tensors
        return of_hidden * of_sum, of_weight * of_sum, None, None
