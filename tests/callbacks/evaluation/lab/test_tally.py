from __future__ import annotations

import math

import numpy as np
import pytest

from callbacks.evaluation.lab.tally import Tally, wilson


@pytest.mark.parametrize(("right", "of"), [(0, 10), (3, 10), (10, 10), (912, 1000), (999, 1000), (1, 1)])
def test_the_interval_holds_the_shares_that_would_not_be_surprised(right: int, of: int) -> None:
    """Wilson's ends are those p whose own deviation, times 1.96, reaches the share that was found."""
    share = right / of
    low, high = wilson(share, of)
    assert 0 <= low <= share <= high <= 1
    for end in {low, high} - {0.0, 1.0}:
        assert abs(share - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / of), rel=1e-4)
    assert (low == pytest.approx(0, abs=1e-12)) == (right == 0)
    assert (high == pytest.approx(1, abs=1e-12)) == (right == of)


def test_single_cases_have_the_plain_interval() -> None:
    tally = Tally()
    for number in range(1000):
        tally.add("right", number < 912)
    found = tally.values()
    assert found["right"] == 0.912
    assert found["right_cases"] == 1000
    assert (found["right_low"], found["right_high"]) == pytest.approx((0.89280, 0.92803), abs=1e-4)  # by hand


@pytest.mark.parametrize("alike", [0.0, 0.5, 1.0])
def test_the_interval_holds_the_truth_nineteen_times_of_twenty(alike: float) -> None:
    """Also where the eight things of a case are right or wrong together in a share of the cases."""
    random, truth, held = np.random.default_rng(0), 0.9, 0
    for _ in range(400):
        tally = Tally()
        for _ in range(150):
            together = random.random() < alike
            tally.add("facts", 8 * (random.random() < truth) if together else random.binomial(8, truth), 8)
        found = tally.values()
        held += found["facts_low"] <= truth <= found["facts_high"]
    assert 0.92 <= held / 400 <= 0.98


def test_what_is_not_judged_is_no_case() -> None:
    tally = Tally()
    tally.add("nothing", 0, 0)
    tally.add("some", 2, 3)
    tally.add("some", 0, 0)
    found = tally.values()
    assert found.keys() == {"some", "some_low", "some_high", "some_cases"}
    assert found["some"] == pytest.approx(2 / 3)
    assert found["some_cases"] == 1
