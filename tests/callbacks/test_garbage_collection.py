"""Garbage is collected at the steps that were asked for, and at no others."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import Any

import pytest

from callbacks.garbage_collection import GarbageCollection
from lit_mm.mistake import Mistake


class Knot:
    """Refers to itself, so that only the collector frees it."""

    def __init__(self) -> None:
        self.own = self


def test_garbage_waits_for_its_step() -> None:
    callback = GarbageCollection(every_n_steps=3)
    trainer: Any = SimpleNamespace(global_step=0, accumulate_grad_batches=2)
    module: Any = None
    try:
        callback.on_train_start(trainer, module)
        watched = weakref.ref(Knot())
        freed = []
        for batch in range(12):
            trainer.global_step = (batch + 1) // 2
            waste = [[] for _ in range(2000)]  # enough for the collector to come by itself, were it not told
            del waste
            callback.on_train_batch_end(trainer, module, None, None, batch)
            if watched() is None:
                freed.append(batch)
                watched = weakref.ref(Knot())
        assert freed == [5, 11], "the last micro-batches of steps 3 and 6"
    finally:
        callback.teardown(trainer, module, "fit")
    assert gc.isenabled()


def test_steps_are_counted_from_one() -> None:
    with pytest.raises(Mistake, match="every_n_steps of GarbageCollection is 0; use 1 or more"):
        GarbageCollection(every_n_steps=0)
