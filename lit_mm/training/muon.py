"""Muon for the matrices inside the transformer, AdamW for everything else, as one optimizer.

PyTorch's `torch.optim.Muon` takes single matrices only; feed-forwards here are stacks of them, one per expert or
modality, and each is made orthogonal by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from lit_mm.mistake import Mistake

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024 (kellerjordan.github.io/posts/muon)
_MOMENTUM, _STEPS, _EPS = 0.95, 5, 1e-7
_RMS = 0.2  # of an AdamW update, which Liu et al. 2025 (arXiv 2502.16982) scale Muon's to


class Muon(Optimizer):
    """Steps of orthogonalized momentum (Jordan et al. 2024), with updates as large as AdamW's (arXiv 2502.16982).

    Parameter groups that say `hidden: True` get Muon, `LitMultimodal` says it of the matrices within its blocks. All
    others get AdamW.

    Args:
        params: parameter groups.
        lr: learning rate of AdamW.
        hidden_lr: learning rate of Muon.
        betas: of AdamW's running means.
        eps: of AdamW.
        weight_decay: decoupled, of both.

    Raises:
        Mistake: the matrices are spread over devices, where none has a whole one.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float = 1e-3,
        hidden_lr: float = 4e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
    ) -> None:
        groups = [{**group, "lr": hidden_lr} if group.get("hidden") else group for group in params]
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        hidden = [p for group in self.param_groups if group.get("hidden") for p in group["params"]]
        if any(isinstance(p, DTensor) or p.ndim < 2 for p in hidden):
            raise Mistake(
                "model.optimizer is Muon, which needs whole matrices, but trainer.strategy spreads them over devices; "
                "use a strategy that does not, such as 'ddp', or AdamW"
            )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if group.get("hidden"):
                for p in params:
                    self._step_matrices(p, group["lr"], group["weight_decay"])
            elif params:
                self._step_adamw(params, group)
        return loss

    def _step_matrices(self, p: Tensor, lr: float, weight_decay: float) -> None:
        assert p.grad is not None
        state = self.state[p]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(p)
        momentum = state["momentum_buffer"].lerp_(p.grad, 1 - _MOMENTUM)
        update = orthogonalize(p.grad.lerp(momentum, _MOMENTUM))
        p.mul_(1 - lr * weight_decay)
        p.add_(update, alpha=-lr * _RMS * math.sqrt(max(p.shape[-2:])))

    def _step_adamw(self, params: list[Tensor], group: dict[str, Any]) -> None:
        for p in params:
            if not self.state[p]:
                self.state[p] = {
                    "step": torch.zeros((), device=p.device),
                    "exp_avg": torch.zeros_like(p),
                    "exp_avg_sq": torch.zeros_like(p),
                }
        states = [self.state[p] for p in params]
        adamw(
            params,
            [p.grad for p in params if p.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )


def orthogonalize(matrices: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly: singular values become numbers around 1.

    Five Newton-Schulz steps in bfloat16.

    Args:
        matrices: (..., M, N).

    Returns:
        (..., M, N) in the precision of `matrices`.
    """
    a, b, c = _NEWTON_SCHULZ
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = (matrices if wide else matrices.mT).bfloat16()
    x = (x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(_EPS)).reshape(-1, *x.shape[-2:])
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.mT).reshape(matrices.shape).to(matrices.dtype)
