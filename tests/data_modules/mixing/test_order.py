"""Every document comes once per pass, also where the source has grown in the middle of one."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from data_modules.mixing.order import Order, Stretch
from data_modules.mixing.sampler import DrawStream, RowPlanner
from tests.helpers.documents import FakeDataset

KEY = (0, "pairs")


def planner(dataset: FakeDataset) -> RowPlanner:
    streams = {"pairs": DrawStream("pairs", dataset, seed=0)}
    return RowPlanner(streams, {"pairs": 1.0}, row_length=256, seed=0)


def draws(rows: RowPlanner, count: int) -> list[int]:
    return [piece.draw.index for _ in range(count) for piece in rows.next_row().pieces]


def resumed(rows: RowPlanner, dataset: FakeDataset) -> tuple[RowPlanner, list[str]]:
    after = planner(dataset)
    return after, after.load_state(json.loads(json.dumps(rows.state())))


def pairs(lengths: np.ndarray, *names: str) -> FakeDataset:
    dataset = FakeDataset("pairs", lengths)
    dataset.files = [(f"/somewhere/{name}.tar", 100, 7) for name in names]
    return dataset


@pytest.mark.parametrize("first", [0, 1, 90, 100, 137, 250])
@pytest.mark.parametrize("second", [3, 40, 170, 1000])
def test_passes_of_a_source_that_grows_twice(first: int, second: int) -> None:
    """From 100 documents to 130, and then to 137."""
    order = Order([Stretch(0, 100), Stretch(first, 130), Stretch(first + second, 137)], None, *KEY)
    drawn = order.indices(np.arange(3000))
    assert drawn[:first].tolist() == Order([Stretch(0, 100)], None, *KEY).indices(np.arange(first)).tolist()
    begin, size, passes = 0, 100, 0
    while begin < 2500:
        # The pass ends when everything that there was by its end was shown.
        seen = Counter()
        for number in range(begin, len(drawn)):
            size = 100 if number < first else 130 if number < first + second else 137
            seen[int(drawn[number])] += 1
            if len(seen) == size:
                break
        assert set(seen.values()) == {1}
        assert set(seen) == set(range(size))
        begin, passes = number + 1, passes + 1
    assert passes > 15


def test_order_does_not_depend_on_what_is_asked_together() -> None:
    order = Order([Stretch(0, 50), Stretch(70, 90)], None, *KEY)
    together = order.indices(np.arange(300))
    assert [int(order.indices(np.array([n]))[0]) for n in range(300)] == together.tolist()


def test_new_documents_come_evenly_among_the_rest() -> None:
    drawn = Order([Stretch(0, 10_000), Stretch(4_000, 20_000)], None, *KEY).indices(np.arange(4_000, 20_000))
    new = drawn >= 10_000
    assert [new[part].mean() for part in np.split(np.arange(16_000), 4)] == pytest.approx([10 / 16] * 4, abs=0.02)


def test_a_source_that_outgrows_its_window_shows_everything_once() -> None:
    """5,000 documents fit one window of 6,144, and 20,000 do not."""
    drawn = Order([Stretch(0, 5_000), Stretch(3_000, 20_000)], 6_144, *KEY).indices(np.arange(60_000))
    assert all(sorted(part) == list(range(20_000)) for part in drawn.reshape(3, 20_000).tolist())
    before = Order([Stretch(0, 5_000)], None, *KEY).indices(np.arange(3_000))
    assert drawn[:3_000].tolist() == before.tolist()


def test_a_source_with_one_more_file_goes_on() -> None:
    lengths = np.random.default_rng(0).integers(20, 60, 800)
    before = planner(pairs(lengths[:600], "a", "b"))
    shown = draws(before, 40)
    waiting = len(before.state()["sources"]["pairs"]["waiting"])
    after, said = resumed(before, pairs(lengths, "a", "b", "c"))
    assert said == ["source 'pairs' had 600 documents and now has 800: it goes on, the new ones among the rest"]
    again, said = resumed(after, pairs(lengths, "a", "b", "c"))
    assert said == []
    pass_ends = 800 - len(shown)
    rest = draws(again, 120)[: pass_ends - waiting]
    assert len(rest) == pass_ends - waiting
    assert len(set(shown) | set(rest)) > 0.95 * 800
    assert len(set(shown) & set(rest)) < 0.05 * len(shown), "nothing that was shown comes again before the pass ends"


@pytest.mark.parametrize("equal", [False, True])
def test_an_exchanged_source_is_noticed(equal: bool) -> None:
    lengths = np.full(600, 32) if equal else np.random.default_rng(0).integers(20, 60, 600)
    before = planner(pairs(lengths, "a", "b"))
    shown = draws(before, 20)
    after, said = resumed(before, pairs(lengths, "a", "x"))
    assert said == ["source 'pairs' has other files than before, with documents of the same lengths: it goes on"]
    assert not set(draws(after, 20)) & set(shown)


def test_files_may_move_and_be_copied() -> None:
    before = planner(pairs(np.full(600, 32), "a", "b"))
    draws(before, 20)
    moved = pairs(np.full(600, 32))
    moved.files = [(f"/elsewhere/{name}.tar", 100, 9) for name in ("a", "b")]
    assert resumed(before, moved)[1] == []


@pytest.mark.parametrize(
    ("names", "appends"), [(("x", "a", "b"), True), (("a", "b", "c"), False)], ids=["before the others", "shuffled"]
)
def test_what_is_not_appended_starts_again(names: tuple[str, ...], appends: bool) -> None:
    before = planner(pairs(np.full(600, 32), "a", "b"))
    draws(before, 20)
    grown = pairs(np.full(800, 32), *names)
    grown.appends = appends
    assert resumed(before, grown)[1] == [
        "source 'pairs' had 600 documents and now has 800: it starts again at its first document"
    ]
