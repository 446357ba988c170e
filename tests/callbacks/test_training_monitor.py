"""How long training waited for its data."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from torch.utils.data import IterableDataset

from data_modules.base import TimedLoader


class Slow(IterableDataset):
    def __iter__(self) -> Iterator[int]:
        for number in range(5):
            time.sleep(0.05)
            yield number


@pytest.mark.parametrize("workers", [0, 1])
def test_waiting_is_what_the_loader_takes_while_nobody_else_works(workers: int) -> None:
    loader = TimedLoader(Slow(), batch_size=None, num_workers=workers, prefetch_factor=1 if workers else None)
    batches = iter(loader)
    assert next(batches) == 0
    before = loader.waited
    start = time.perf_counter()
    for expected in range(1, 5):
        time.sleep(0.15)  # work, during which a worker process reads the next
        assert next(batches) == expected
    worked = time.perf_counter() - start
    waited = loader.waited - before
    assert waited > 4 * 0.05 if workers == 0 else waited < 0.5 * 4 * 0.05
    assert waited < worked - 4 * 0.15 + 0.05
