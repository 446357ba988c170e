"""Next-token losses whose gradients are made along with them, so that logits are neither kept nor computed twice."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
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
        hidden: (T, D), in whose dtype products are made.
        weight: (vocab_size, D).
        targets: (T,) int64, -100 where there is no loss.
    """
    return TextLosses(*_TextLosses.apply(hidden, weight, targets, torch.is_grad_enabled()))


class _TextLosses(torch.autograd.Function):
    """Gradients are those of the sum; what it is multiplied by later multiplies them too."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, with_gradients: bool
    ) -> tuple[Tensor, Tensor]:
        computed = weight.to(hidden.dtype)
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        parts = [t.split(LOGIT_ROWS) for t in (hidden, targets, losses)]
        if with_gradients:
            grad_hidden = torch.empty_like(hidden)
            # float32: a sum of many products, of which half precision would keep the largest alone
            grad_weight = torch.zeros_like(weight, dtype=torch.float32)
            parts.append(grad_hidden.split(LOGIT_ROWS))
            ctx.save_for_backward(grad_hidden, grad_weight)
        for rows, wanted, loss, *grad_rows in zip(*parts, strict=True):
            compute = _compiled_cross_entropy() if rows.is_cuda else cross_entropy
            of_rows, grad_logits = compute(linear(rows, computed), wanted, with_gradients)
            loss.copy_(of_rows)
            if grad_logits is not None:
                torch.mm(grad_logits, computed, out=grad_rows[0])
                _add_product(grad_weight, grad_logits.T, rows)
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(losses)
        return losses, losses.sum()

    @staticmethod
    def backward(ctx: Any, _: Tensor, grad_sum: Tensor) -> tuple[Tensor, Tensor, None, None]:  # type: ignore[override]
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grad_sum, (grad_weight * grad_sum).to(ctx.weight_dtype), None, None


def cross_entropy(logits: Tensor, targets: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """Losses (T,) float32, and if it is wanted the gradient (T, vocabulary) of their sum, like the logits.

    Args:
        logits: (T, vocabulary).
        targets: (T,) int64, -100 where there is no loss.
        with_gradient: whether it is wanted.
    """
    counted = (targets != IGNORE)[:, None]
    wanted = targets.clamp_min(0)[:, None]
    dtype, logits = logits.dtype, logits.float()
    probabilities = logits.softmax(-1)
    # The largest probability is never too small for a logarithm, unlike that of the wanted token.
    lse = logits.amax(-1, keepdim=True) - probabilities.amax(-1, keepdim=True).log()
    losses = ((lse - logits.gather(1, wanted)) * counted).squeeze(1)
    if not with_gradient:
        return losses, None
    grad = probabilities.scatter_add_(1, wanted, -torch.ones_like(lse)).mul_(counted)
    return losses, grad.to(dtype)


@cache  # compiled when it is first used, as a compiler takes two seconds to import
def _compiled_cross_entropy() -> Callable[[Tensor, Tensor, bool], tuple[Tensor, Tensor | None]]:
    """One pass over the logits instead of twelve."""
    return torch.compile(cross_entropy, dynamic=True)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    else:
        total.add_(a @ b)
