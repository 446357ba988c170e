"""Muon for the matrices inside the transformer, AdamW for everything else, as one optimizer.

Why not PyTorch's `torch.optim.Muon`: it takes single matrices only, and feed-forwards here are stacks of them, one per
expert or modality, of which each is made orthogonal by itself. And of sharded matrices it would gather parts for every
product of every Newton-Schulz step, and all processes would compute the same. Here each process computes other
matrices, as in nanochat (github.com/karpathy/nanochat) and torchtitan's `dist_muon`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from lit_mm.precision import product_dtype
from lit_mm.training.whole_matrices import has_whole_matrices, in_turns, local, map_whole

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024 (kellerjordan.github.io/posts/muon)
_MOMENTUM, _STEPS, _EPS = 0.95, 5, 1e-7
_RMS = 0.2  # of an AdamW update, which Liu et al. 2025 (arXiv 2502.16982) scale Muon's to


class Muon(Optimizer):
    """Steps of orthogonalized momentum (Jordan et al. 2024), with updates as large as AdamW's (arXiv 2502.16982).

    Parameter groups that say `hidden: True` get Muon, see `parameter_groups`. All others get AdamW. The kernel of a
    convolution counts as one matrix (out, in * height * width), and has to be whole.

    Parameters may be sharded (FSDP2, with copies or without): matrices, or stacks of them, that are cut are gathered in
    bfloat16, each by another process, and what was made of them is shared out again. Each of many processes takes the
    step that one would take.

    Args:
        params: parameter groups.
        lr: learning rate of AdamW.
        hidden_lr: learning rate of Muon.
        betas: of AdamW's running means.
        eps: of AdamW.
        weight_decay: decoupled, of both.
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
                self._step_muon(params, group["lr"], group["weight_decay"])
            elif params:
                self._step_adamw(params, group)
        return loss

    def _step_muon(self, params: list[Tensor], lr: float, weight_decay: float) -> None:
        def move(p: Tensor, update: Tensor) -> None:
            size = max(_matrices(p).shape[-2:])
            local(p).mul_(1 - lr * weight_decay).add_(update, alpha=-lr * _RMS * math.sqrt(size))

        for p in filter(has_whole_matrices, params):
            direction = self._direction(p)
            move(p, orthogonalize(_matrices(direction)).view_as(direction))
        for turn in in_turns([p for p in params if not has_whole_matrices(p)]):
            updates = map_whole(orthogonalize, turn, [self._direction(p) for p in turn])
            for p, update in zip(turn, updates, strict=True):
                move(p, update)

    def _direction(self, p: Tensor) -> Tensor:
        """Nesterov's momentum, this process's part of it, in the precision of Newton-Schulz steps."""
        assert p.grad is not None
        if not self.state[p]:
            self.state[p] = {"momentum_buffer": torch.zeros_like(p)}
        gradient = local(p.grad)
        momentum = local(self.state[p]["momentum_buffer"]).lerp_(gradient, 1 - _MOMENTUM)
        return gradient.lerp(momentum, _MOMENTUM).to(product_dtype(p.device.type))

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
            [local(p) for p in params],
            [local(p.grad) for p in params if p.grad is not None],
            [local(state["exp_avg"]) for state in states],
            [local(state["exp_avg_sq"]) for state in states],
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


def _matrices(tensor: Tensor) -> Tensor:
    """The kernel of a convolution (out, in, height, width) is one matrix (out, in * height * width)."""
    return tensor.flatten(1) if tensor.ndim == 4 else tensor


def orthogonalize(matrices: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly: singular values become numbers around 1.

    Five Newton-Schulz steps, in bfloat16 where the device multiplies it.

    Args:
        matrices: (..., M, N).

    Returns:
        (..., M, N) in the precision of `matrices`.
    """
    a, b, c = _NEWTON_SCHULZ
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = (matrices if wide else matrices.mT).to(product_dtype(matrices.device.type))[None]
    x = (x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(_EPS)).flatten(0, -3)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.mT).reshape(matrices.shape).to(matrices.dtype)
