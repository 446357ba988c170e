"""What counts as a spike."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lit_mm.training.spikes import SpikeDetector

WARMUP = 20


def verdicts(losses: list[float], norms: list[float] | None = None) -> list[bool]:
    detector = SpikeDetector(deviations=6, warmup_steps=WARMUP, decay=0.99)
    pairs = zip(losses, norms or [1.0] * len(losses), strict=True)
    return [bool(detector(torch.tensor(loss), torch.tensor(norm))) for loss, norm in pairs]


def ordinary(steps: int) -> list[float]:
    return np.random.default_rng(0).normal(3.0, 0.1, steps).tolist()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_skipped_from_the_first_step(bad: float) -> None:
    assert verdicts([bad, 3.0, bad, 3.1]) == [True, False, True, False]
    assert verdicts([3.0] * 3, [bad, 1.0, bad]) == [True, False, True]


def test_ordinary_losses_are_not_spikes() -> None:
    assert not any(verdicts(ordinary(2000)))


def test_a_falling_loss_is_no_spike() -> None:
    assert not any(verdicts([9.0 * 0.99**step for step in range(500)]))


@pytest.mark.parametrize("of_norm", [True, False])
def test_a_value_far_above_the_usual_is_a_spike_after_the_warm_up(of_norm: bool) -> None:
    for step in (WARMUP - 1, WARMUP, 500):
        values = ordinary(501)
        values[step] = 3.0 + 8 * 0.1
        found = verdicts([3.0] * 501, values) if of_norm else verdicts(values)
        assert [i for i, skipped in enumerate(found) if skipped] == [step] * (step >= WARMUP)


def test_skipped_values_do_not_become_usual() -> None:
    assert verdicts([*ordinary(200), *[50.0] * 100])[200:] == [True] * 100


def test_a_resumed_detector_goes_on() -> None:
    losses = [*ordinary(100), 4.0, *ordinary(100)]
    first = SpikeDetector(6, WARMUP, 0.99)
    for loss in losses[:60]:
        first(torch.tensor(loss), torch.tensor(1.0))
    second = SpikeDetector(6, WARMUP, 0.99)
    second.load_state(first.state())
    found = [bool(second(torch.tensor(loss), torch.tensor(1.0))) for loss in losses[60:]]
    assert found == verdicts(losses)[60:]
    assert found[40]


def test_the_device_is_never_asked() -> None:
    """Values on the meta device cannot be read: any attempt raises."""
    detector = SpikeDetector(6, WARMUP, 0.99)
    detector.to(torch.device("meta"))
    for _ in range(3):
        detector(torch.zeros((), device="meta"), torch.zeros((), device="meta"))
