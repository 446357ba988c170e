"""Plans of rows: shares, padding, passes and resuming, counted from the plans alone."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest

from data_modules.mixing.sampler import DrawStream, Piece, RowPlan, RowPlanner
from lit_mm.mistake import Mistake
from tests.helpers.documents import FakeDataset, later, sources

LENGTH = 512
HARD = [
    {"text": 0.9, "pairs": 0.099, "video": 0.001},
    {"text": 0.099, "pairs": 0.001, "video": 0.9},
    {"text": 0.001, "pairs": 0.099, "video": 0.9},
    {"text": 0.4, "pairs": 0.001, "video": 0.3, "actions": 0.299},
    {"text": 7, "pairs": 2, "video": 1},
]


def planner(weights: Mapping[str, float], seed: int = 0, datasets: dict[str, FakeDataset] | None = None) -> RowPlanner:
    datasets = datasets or sources(tuple(weights))
    streams = {name: DrawStream(name, datasets[name], seed) for name in weights}
    return RowPlanner(streams, weights, LENGTH, seed)


def plan(rows: RowPlanner, count: int) -> list[RowPlan]:
    return [rows.next_row() for _ in range(count)]


def pieces_of(rows: list[RowPlan], source: str) -> list[Piece]:
    return [piece for row in rows for piece in row.pieces if piece.source == source]


def tokens(rows: list[RowPlan], names: list[str]) -> np.ndarray:
    """(rows, sources) positions placed."""
    placed = np.zeros((len(rows), len(names)))
    for row, plan_ in enumerate(rows):
        for piece in plan_.pieces:
            placed[row, names.index(piece.source)] += piece.stop - piece.start
    return placed


def windows(values: np.ndarray, size: int) -> np.ndarray:
    """Sums over every stretch of `size` rows."""
    sums = np.concatenate([np.zeros((1, values.shape[1])), values.cumsum(0)])
    return sums[size:] - sums[:-size]


@pytest.mark.parametrize("weights", HARD, ids=lambda weights: "-".join(map(str, weights.values())))
def test_shares_hold_over_any_thousand_rows_and_padding_is_below_a_percent(weights: dict[str, float]) -> None:
    placed = tokens(plan(planner(weights), 2500), list(weights))
    assert (placed.sum(1) <= LENGTH).all()
    stretches = windows(placed, 1000)
    wanted = np.array(list(weights.values())) / sum(weights.values())
    shares = stretches / stretches.sum(1, keepdims=True)
    assert np.abs(shares - wanted).max() < 0.01
    assert (stretches > 0).all(), "a source is starved"
    assert 1 - stretches.sum(1).min() / (1000 * LENGTH) < 0.01


def test_shares_hold_where_a_rare_text_cannot_fill_all_gaps() -> None:
    weights = {"text": 0.001, "video": 0.9, "actions": 0.099}
    stretches = windows(tokens(plan(planner(weights), 2000), list(weights)), 1000)
    shares = stretches / stretches.sum(1, keepdims=True)
    assert np.abs(shares - list(weights.values())).max() < 0.01


def tile(pieces: list[Piece], dataset: FakeDataset) -> list[int]:
    """Documents in the order their pieces begin; fails unless the pieces of each lie end to end and are all of it."""
    order: list[int] = []
    at, current = 0, None
    for piece in pieces:
        assert piece.stop > piece.start
        assert piece.start == at
        assert current in (None, piece.draw)
        order += [piece.draw.index] if at == 0 else []
        ended = piece.stop == dataset.lengths[piece.draw.variant, piece.draw.index]
        at, current = (0, None) if ended else (piece.stop, piece.draw)
    return order


def test_pieces_of_text_tile_each_document_and_every_pass_is_another_permutation() -> None:
    datasets = sources()
    rows = plan(planner({"text": 0.8, "pairs": 0.1, "video": 0.1}, datasets=datasets), 3500)
    order = tile(pieces_of(rows, "text"), datasets["text"])
    size = len(datasets["text"])
    passes = [order[start : start + size] for start in range(0, len(order) - size + 1, size)]
    assert len(passes) >= 2
    assert all(sorted(one) == list(range(size)) for one in passes)
    assert passes[0] != passes[1]
    assert passes[0] != sorted(passes[0])


@pytest.mark.parametrize("source", ["pairs", "video", "actions", "text"])
def test_a_source_that_ends_has_shown_every_document_equally_often(source: str) -> None:
    dataset = sources((source,))[source]
    stream = DrawStream(source, dataset, seed=3, documents=3 * len(dataset))
    rows = RowPlanner({source: stream}, {source: 1.0}, LENGTH, seed=3)
    pieces: list[Piece] = []
    while row := rows.next_row().pieces:
        pieces += row
    assert Counter(p.draw.index for p in pieces if p.start == 0) == dict.fromkeys(range(len(dataset)), 3)
    whole = sum(int(dataset.lengths[p.draw.variant, p.draw.index]) for p in pieces if p.start == 0)
    assert sum(p.stop - p.start for p in pieces) == whole


def test_nothing_is_lost_or_twice_but_what_waits() -> None:
    weights = {"text": 0.3, "pairs": 0.3, "video": 0.4}
    datasets = sources()
    rows = planner(weights, datasets=datasets)
    planned = plan(rows, 3000)
    for name in ("pairs", "video"):
        state, size = rows.state()["sources"][name], len(datasets[name])
        pieces = pieces_of(planned, name)
        assert all((p.start, p.stop) == (0, datasets[name].lengths[p.draw.variant, p.draw.index]) for p in pieces)
        assert len({p.draw for p in pieces}) == len(pieces) == state["next"] - len(state["waiting"])
        counts = np.bincount([p.draw.index for p in pieces], minlength=size)
        passes, rest = divmod(state["next"], size)
        assert passes >= 2
        assert counts.max() <= passes + (rest > 0)
        assert np.maximum(passes - counts, 0).sum() <= len(state["waiting"]) <= 24


def test_variants_come_in_their_shares() -> None:
    pieces = pieces_of(plan(planner({"pairs": 1.0}), 400), "pairs")
    share = sum(p.draw.variant for p in pieces) / len(pieces)
    assert abs(share - 0.75) < 4 * np.sqrt(0.25 * 0.75 / len(pieces))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_plan_goes_on_from_every_row(seed: int) -> None:
    weights = {"text": 0.5, "pairs": 0.2, "video": 0.3}
    datasets = sources()
    unbroken = planner(weights, seed, datasets)
    states, rows = [], []
    for _ in range(350):
        states.append(json.dumps(unbroken.state()))
        rows.append(unbroken.next_row())
    assert [row.number for row in rows] == list(range(350))
    assert len({row.seed for row in rows}) == 350
    assert json.loads(states[325])["sources"]["pairs"]["next"] > 1024, "draws are looked up 1,024 at a time"
    for row in (*range(40), *range(290, 330)):
        resumed = planner(weights, seed, datasets)
        assert resumed.load_state(json.loads(states[row])) == []
        assert plan(resumed, 20) == rows[row : row + 20]
    assert plan(planner(weights, seed + 1, datasets), 5) != rows[:5]


def test_changes_are_said_and_what_stays_goes_on_where_it_was() -> None:
    datasets = sources(("text", "pairs", "video", "actions"))
    before = planner({"text": 0.5, "pairs": 0.1, "video": 0.4}, datasets=datasets)
    first = plan(before, 60)
    weights = {"text": 0.5, "pairs": 0.2, "actions": 0.3}
    after = planner(weights, datasets=datasets)
    said = after.load_state(json.loads(json.dumps(before.state())))
    assert said == [
        "source 'actions' is new and starts at its first document",
        "source 'video' is no longer in the mixture",
        "shares changed from row 60 on: pairs 0.1 → 0.2",
    ]
    second = plan(after, 1000)
    assert second[0].number == 60
    # Text: the pieces of both tile the documents, in the order of a run on text alone.
    order = tile(pieces_of(first + second, "text"), datasets["text"])
    alone = tile(pieces_of(plan(planner({"text": 1.0}, datasets=datasets), 700), "text"), datasets["text"])
    assert len(order) > 150
    assert order == alone[: len(order)]
    # Pairs: no draw of the first part comes again in the second, and none but those that wait are missing.
    pairs = pieces_of(first + second, "pairs")
    state = after.state()["sources"]["pairs"]
    assert len({p.draw for p in pairs}) == len(pairs) == state["next"] - len(state["waiting"])
    placed = tokens(second, list(weights)).sum(0)
    assert np.abs(placed / placed.sum() - list(weights.values())).max() < 0.01


def test_a_source_of_another_size_starts_again_and_says_so() -> None:
    before = planner({"text": 0.5, "video": 0.5})
    plan(before, 30)
    datasets = sources(("text", "video"))
    datasets["video"] = FakeDataset("video", [38] * 77)
    after = planner({"text": 0.5, "video": 0.5}, datasets=datasets)
    assert after.load_state(before.state()) == [
        "source 'video' had 300 documents and now has 77: it starts again at its first document"
    ]
    drawn = [p.draw.index for p in pieces_of(plan(after, 40), "video")]
    assert sorted(drawn[:50]) == sorted(set(drawn[:50]))


def test_another_seed_is_refused() -> None:
    with pytest.raises(Mistake, match=r"^data\.loader\.seed is 1 but the checkpoint's data order was made with 0; "):
        planner({"text": 1.0}, seed=1).load_state(planner({"text": 1.0}).state())


def test_a_source_of_a_billion_documents_costs_no_memory() -> None:
    size = 10**9
    huge = {
        "text": FakeDataset("text", [700], splittable=True),
        "pairs": FakeDataset("pairs", [[30], [28]], shares=(0.5, 0.5)),
    }
    for dataset in huge.values():
        dataset.lengths = np.broadcast_to(dataset.lengths, (len(dataset.shares), size))
    rows = planner({"text": 0.5, "pairs": 0.5}, datasets=huge)
    tracemalloc.start()
    planned = plan(rows, 100)
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    drawn = [p.draw.index for p in pieces_of(planned, "pairs")]
    for _ in range(400):
        rows.next_row()
    after, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak - before < 2**21
    assert after - before < 2**19
    assert len(set(drawn)) == len(drawn)
    assert max(drawn) > 0.9 * size
    assert len(json.dumps(rows.state())) < 2000


def test_a_source_with_other_lengths_starts_again_and_says_so() -> None:
    def planner(lengths: np.ndarray) -> RowPlanner:
        dataset = FakeDataset("text", lengths, splittable=True)
        return RowPlanner({"text": DrawStream("text", dataset, seed=0)}, {"text": 1.0}, row_length=256, seed=0)

    before = planner(np.full(10, 1000))
    for _ in range(3):
        before.next_row()
    after = planner(np.full(10, 100))
    (sentence,) = after.load_state(before.state())
    assert "'text'" in sentence
    assert "other lengths" in sentence
    assert all(0 <= piece.start < piece.stop <= 100 for piece in after.next_row().pieces)
    lengths = np.full(10, 1000)
    lengths[7] = 900
    (sentence,) = planner(lengths).load_state(before.state())
    assert "other lengths" in sentence, "of one document among the others"


def test_no_document_waits_for_long_behind_others_that_fit_better() -> None:
    lengths = np.random.default_rng(0).integers(100, 250, 300)
    dataset = FakeDataset("video", lengths)
    stream = DrawStream("video", dataset, seed=0)
    planner = RowPlanner({"video": stream}, {"video": 1.0}, row_length=512, seed=0)
    for _ in range(3000):
        planner.next_row()
        assert stream.next - stream.waiting[0].number < 400


def test_a_plan_at_row_a_hundred_million_keeps_shares_and_passes() -> None:
    weights = HARD[4]
    early = planner(weights)
    plan(early, 1000)
    late = planner(weights)
    assert late.load_state(later(early.state(), 10**8)) == []
    first = late.state()["sources"]["pairs"]
    rows = plan(late, 2500)
    assert rows[0].number == 10**8
    placed = tokens(rows, list(weights))
    stretches = windows(placed, 1000)
    wanted = np.array(list(weights.values())) / sum(weights.values())
    assert np.abs(stretches / stretches.sum(1, keepdims=True) - wanted).max() < 0.01
    drawn = Counter(piece.draw.index for piece in pieces_of(rows, "pairs"))
    size = len(sources(("pairs",))["pairs"])
    passes = late.state()["sources"]["pairs"]["next"] // size - first["next"] // size - 1
    assert passes >= 1, "some passes begin and end within"
    assert min(drawn[index] for index in range(size)) >= passes
    assert max(drawn.values()) <= passes + 3  # in the passes cut by both ends, and among those that waited


def test_another_shuffle_window_goes_on_and_is_said() -> None:
    dataset = FakeDataset("video", np.full(20_000, 38))

    def planner(window: int | None) -> RowPlanner:
        stream = DrawStream("video", dataset, seed=0, window=window)
        return RowPlanner({"video": stream}, {"video": 1.0}, LENGTH, seed=0)

    unbroken = planner(2048)
    rows = plan(unbroken, 60)
    state = json.loads(json.dumps(unbroken.state()))
    again = planner(2048)
    assert again.load_state(state) == []
    assert plan(again, 20) == plan(unbroken, 20)
    near = [piece.draw.index // 1024 for piece in pieces_of(rows[:40], "video")]
    assert len(set(near)) <= 4
    said = planner(None).load_state(state)
    assert said == [
        "source 'video' is shuffled among all documents, not 2048: some come twice in this pass, and others not at all"
    ]
    assert planner(32_768).load_state(planner(None).state()) == [], "a window of the whole source and more is all of it"
