"""Several things timed in turns, so that whatever else the machine does meets all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def interleaved(tasks: Mapping[str, Callable[[int], None]], rounds: int, warm_up: int = 3) -> dict[str, list[float]]:
    """Seconds of each task in each round; every round runs all tasks, each round beginning with another.

    Args:
        tasks: called with the number of the round.
        rounds: that count.
        warm_up: rounds before them.
    """
    names = list(tasks)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(warm_up + rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            begin = time.perf_counter()
            tasks[name](number)
            if number >= warm_up:
                seconds[name].append(time.perf_counter() - begin)
    return seconds


def ratio(seconds: list[float], reference: list[float]) -> float:
    """Median over the rounds of how much longer a task takes than the reference."""
    return statistics.median(a / b for a, b in zip(seconds, reference, strict=True))
