"""Mixtures that change over a run, counted from the plans alone."""

from __future__ import annotations

import json

import numpy as np
import pytest

from data_modules.mixing.sampler import DrawStream, RowPlan, RowPlanner
from data_modules.mixing.stages import Stage
from data_modules.mixture import MixtureDataModule
from data_modules.text import TextSource
from lit_mm.mistake import Mistake
from tests.helpers.documents import sources

LENGTH = 512
WEIGHTS = {"text": 0.5, "pairs": 0.25, "video": 0.25}
STAGES = [
    Stage(until=1000 * LENGTH, weights={"pairs": 1.0}),
    Stage(until=2200 * LENGTH - 1, weights={"text": 1.0, "video": 3.0}),
]
ENDS = (0, 1000, 2200, 3400)


def planner() -> RowPlanner:
    datasets = sources(tuple(WEIGHTS))
    return RowPlanner({n: DrawStream(n, datasets[n], seed=0) for n in WEIGHTS}, WEIGHTS, LENGTH, 0, STAGES)


def plan(rows: RowPlanner, count: int) -> list[RowPlan]:
    return [rows.next_row() for _ in range(count)]


def shares(rows: list[RowPlan]) -> list[float]:
    placed = [sum(p.stop - p.start for row in rows for p in row.pieces if p.source == name) for name in WEIGHTS]
    return list(np.array(placed) / sum(placed))


def test_each_stage_has_its_own_shares_from_its_first_row_to_its_last() -> None:
    rows = plan(planner(), ENDS[-1])
    for begin, end, wanted in zip(ENDS, ENDS[1:], ([0, 1, 0], [0.25, 0, 0.75], [0.5, 0.25, 0.25]), strict=False):
        found = shares(rows[begin:end])
        assert np.abs(np.array(found) - wanted).max() < 0.005
        assert [share > 0 for share in found] == [weight > 0 for weight in wanted]
        assert np.abs(np.array(shares(rows[begin : begin + 100])) - wanted).max() < 0.05


@pytest.mark.parametrize("stop", [500, 999, 1000, 1001, 2199, 2200, 3000])
def test_a_resumed_plan_is_the_unbroken_one_across_stages(stop: int) -> None:
    unbroken = plan(planner(), stop + 1300)
    first = planner()
    assert plan(first, stop) == unbroken[:stop]
    state = json.loads(json.dumps(first.state()))
    resumed = planner()
    assert resumed.load_state(state) == []
    assert plan(resumed, 1300) == unbroken[stop:]


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ([Stage(1e6, {"book": 1.0})], r"data\.stages\[0\]\.weights names an unknown source 'book'.*: books, news"),
        ([Stage(1e6, {"books": -1.0})], r"data\.stages\[0\]\.weights\.books is -1\.0; a weight is 0 or a positive"),
        ([Stage(1e6, {"books": 0.0})], r"data\.stages\[0\]\.weights are all 0"),
        ([Stage(0, {"books": 1.0})], r"data\.stages\[0\]\.until is 0; it has to be above 0"),
        (
            [Stage(2e6, {"books": 1.0}), Stage(1e6, {"news": 1.0})],
            r"data\.stages\[1\]\.until is 1e\+06; .* above 2e\+06",
        ),
    ],
)
def test_stages_that_make_no_sense_are_refused(stages: list[Stage], said: str) -> None:
    modules = {name: TextSource(train="text") for name in ("books", "news")}
    with pytest.raises(Mistake, match=said):
        MixtureDataModule(sources=modules, weights={"books": 1.0, "news": 1.0}, stages=stages)  # type: ignore[arg-type]
