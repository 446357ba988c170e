"""Shares of what is right, with the interval that so many cases allow."""

from __future__ import annotations

import math

import numpy as np

Z = 1.959964  # of a normal distribution, 95 % of which lie within so many deviations
LOW, HIGH, CASES = "_low", "_high", "_cases"  # behind a share's name: the ends of its interval, and what it is of


class Tally:
    """Counts what is right among what is judged, under several names, case by case."""

    def __init__(self) -> None:
        self._counts: dict[str, list[tuple[int, int]]] = {}

    def add(self, name: str, right: int, of: int = 1) -> None:
        """Count one case, in which `right` of `of` things are right. One in which nothing is judged is no case."""
        if of:
            self._counts.setdefault(name, []).append((int(right), int(of)))

    def values(self) -> dict[str, float]:
        """The share of each name, and behind its name the ends of its interval and the number of cases.

        The interval is Wilson's of 95 %. Things of one case are right or wrong together more often than chance would
        have it, so that many of them tell less than as many cases of one. They count as the number of single cases
        that would give the share the same variance (Korn and Graubard 1998); where all are right, or none, as one a
        case.
        """
        found: dict[str, float] = {}
        for name, counts in self._counts.items():
            right, of = np.array(counts, float).T
            share = float(right.sum() / of.sum())
            variance = float(np.square(right - share * of).sum() / of.sum() ** 2)
            independent = min(share * (1 - share) / variance, float(of.sum())) if variance else float(len(of))
            low, high = wilson(share, independent)
            found |= {name: share, name + LOW: low, name + HIGH: high, name + CASES: float(len(of))}
        return found


def wilson(share: float, cases: float) -> tuple[float, float]:
    """Ends of Wilson's 95 % interval of a share of so many independent cases (Wilson 1927)."""
    square = Z * Z / cases
    middle = (share + square / 2) / (1 + square)
    half = Z / (1 + square) * math.sqrt(share * (1 - share) / cases + square / (4 * cases))
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))  # both are rounded
