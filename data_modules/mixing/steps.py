"""How much the micro-batches of an optimizer step predict together, known before the first of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice

from lit_mm.sequence import PackedBatch


def with_step_counts(
    batches: Iterator[PackedBatch], per_step: Callable[[], int], done: int = 0
) -> Iterator[PackedBatch]:
    """The same batches, each with the `step_counts` of its whole step, whose batches are read together.

    Args:
        batches: of one rank.
        per_step: how many make a step, asked at the beginning of each.
        done: batches that came before these; the first step may be gone on with in its middle.
    """
    while step := list(islice(batches, per_step() - done % per_step())):
        predicted, drawn, frames = (sum(counts) for counts in zip(*(batch.step_counts for batch in step), strict=True))
        done += len(step)
        for batch in step:
            yield replace(batch, step_counts=(predicted, drawn, frames))
