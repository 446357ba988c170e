"""Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598)."""

from __future__ import annotations

from torch import Tensor


def guide(conditional: Tensor, unconditional: Tensor, scale: float) -> Tensor:
    """`unconditional + scale * (conditional - unconditional)`, in velocities of any one shape.

    Args:
        conditional: velocity with the condition.
        unconditional: velocity without it.
        scale: 1 is no guidance; 3 (paper).
    """
    return unconditional + scale * (conditional - unconditional)
