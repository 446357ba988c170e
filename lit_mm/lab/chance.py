"""Random choices, the same on every machine for the same generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def one_of(choices: Sequence[T], rng: np.random.Generator, weights: Sequence[float] | None = None) -> T:
    """One of the choices; each as likely as the others, or by its weight."""
    if weights is None:
        return choices[int(rng.integers(len(choices)))]
    bounds = np.cumsum(weights)
    return choices[min(int(np.searchsorted(bounds, rng.random() * bounds[-1], side="right")), len(choices) - 1)]


def shuffled(choices: Sequence[T], rng: np.random.Generator) -> list[T]:
    """All choices in random order."""
    return [choices[i] for i in rng.permutation(len(choices))]
