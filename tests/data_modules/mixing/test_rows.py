"""From the plan to batches, through real worker processes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from data_modules.dataset import BrokenFile, DocumentFormat, Draw
from data_modules.mixing.rows import RowReader, Share, TrainingRows, ValidationRows
from lit_mm.sequence import Document, PackedBatch
from tests.helpers.documents import IMAGE_SIZE, TOKENS_PER_FRAME, FakeDataset, sources

WEIGHTS = {"text": 0.4, "pairs": 0.3, "video": 0.3}
STEP = 6  # rows of all ranks together


class BrokenDataset(FakeDataset):
    """Its documents of odd number cannot be read."""

    def document(self, draw: Draw) -> Document:
        if draw.index % 2:
            raise BrokenFile(f"{draw.index}.png", "cut")
        return super().document(draw)


@pytest.fixture
def reader(document_format: DocumentFormat) -> RowReader:
    format = replace(document_format, image_size=IMAGE_SIZE, tokens_per_frame=TOKENS_PER_FRAME)
    return RowReader(sources(), format, row_length=512, on_error="raise")


def digests(batch: PackedBatch) -> list[tuple[int, str]]:
    """Number and content of every row."""
    out = []
    for r, frames in enumerate(batch.frames.split(list(batch.frames_per_row))):
        parts = (batch.tokens[r], batch.targets[r], batch.source_ids[r], batch.document_ids[r], frames)
        content = b"".join(part.numpy().tobytes() for part in parts) + str(batch.seeds[r]).encode()
        out.append((batch.row_numbers[r], hashlib.sha256(content).hexdigest()))
    return out


def batches(reader: RowReader, share: Share, workers: int, state: dict[str, Any]) -> Iterator[PackedBatch]:
    rows = TrainingRows(reader, WEIGHTS, seed=7, share=share, state=state)
    return iter(DataLoader(rows, batch_size=None, num_workers=workers))


def global_order(
    reader: RowReader, ranks: int, workers: int, steps: int, state: dict[str, Any]
) -> tuple[list[tuple[int, str]], list[dict[str, Any]]]:
    """Rows in the order the ranks read them together, and the plan state after each step."""
    shares = [Share(rank, ranks, STEP // ranks) for rank in range(ranks)]
    of_ranks = [list(islice(batches(reader, share, workers, state), steps)) for share in shares]
    rows, states = [], []
    for together in zip(*of_ranks, strict=True):
        assert all(batch.plan_state == together[0].plan_state for batch in together)
        states.append(together[0].plan_state)
        rows += [row for batch in together for row in digests(batch)]
    return rows, states


@pytest.fixture
def planned(reader: RowReader) -> list[tuple[int, str]]:
    """The first rows of the plan, each read alone."""
    plans = TrainingRows(reader, WEIGHTS, 7, Share(0, 1, 1), {}).planner()
    return [digests(reader.read([plans.next_row()], {}))[0] for _ in range(9 * STEP)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_any_number_of_ranks_and_workers_reads_the_same_rows_in_the_same_order(
    reader: RowReader, planned: list[tuple[int, str]], ranks: int, workers: int
) -> None:
    rows, _ = global_order(reader, ranks, workers, steps=5, state={})
    assert [number for number, _ in rows] == list(range(5 * STEP))
    assert rows == planned[: 5 * STEP]


@pytest.mark.parametrize(("ranks", "workers"), [(1, 2), (2, 0), (3, 2)])
def test_another_number_of_ranks_and_workers_goes_on_with_the_next_row(
    reader: RowReader, planned: list[tuple[int, str]], ranks: int, workers: int
) -> None:
    _, states = global_order(reader, ranks=2, workers=2, steps=5, state={})
    for done in (1, 2, 5):
        rows, _ = global_order(reader, ranks, workers, steps=4, state=states[done - 1])
        assert rows == planned[done * STEP : (done + 4) * STEP]


def test_a_source_of_weight_zero_is_never_drawn(reader: RowReader) -> None:
    rows = TrainingRows(reader, {**WEIGHTS, "pairs": 0.0}, 7, Share(0, 1, 4), {})
    for batch in islice(iter(rows), 10):
        assert batch.sources == ("text", "pairs", "video")
        assert set(batch.source_ids.unique().tolist()) <= {-1, 0, 2}


def test_a_broken_document_leaves_a_gap_and_is_counted_or_ends_the_run(reader: RowReader) -> None:
    whole = sources(("text", "video"))
    broken = {"text": whole["text"], "video": BrokenDataset("video", whole["video"].lengths, frames=True)}
    weights = {"text": 0.5, "video": 0.5}
    skipping = replace(reader, datasets=broken, on_error="skip")
    plans = TrainingRows(skipping, weights, 7, Share(0, 1, 1), {}).planner()
    odd = 0
    for _ in range(20):
        plan = plans.next_row()
        batch = skipping.read([plan], {})
        lost = [p for p in plan.pieces if p.source == "video" and p.draw.index % 2]
        odd += len(lost)
        assert {name: len(said) for name, said in batch.skipped.items()} == ({"video": len(lost)} if lost else {})
        kept = sum(p.stop - p.start for p in plan.pieces if p not in lost)
        assert (batch.document_ids >= 0).sum() == kept
    assert odd > 0
    raising = TrainingRows(replace(skipping, on_error="raise"), weights, 7, Share(0, 1, 4), {})
    with pytest.raises(BrokenFile, match=r"^'\d+\.png' broke while being read: cut$"):
        list(islice(iter(raising), 20))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("source", ["text", "pairs"])
def test_validation_reads_evenly_spread_documents_once_on_any_number_of_ranks(
    reader: RowReader, source: str, ranks: int, workers: int
) -> None:
    count, dataset = 50, reader.datasets[source]
    of_ranks = []
    for rank in range(ranks):
        rows = ValidationRows(reader, source, Share(rank, ranks, 2), count)
        of_ranks.append(list(DataLoader(rows, batch_size=None, num_workers=workers)))
        assert len(of_ranks[-1]) == len(rows)
    assert len({len(of_rank) for of_rank in of_ranks}) == 1, "ranks would fall out of step"
    read = [batch for together in zip(*of_ranks, strict=True) for batch in together]
    numbers = [number for batch in read for number in batch.row_numbers if number >= 0]
    assert numbers == list(range(len(numbers)))
    ids = torch.cat([b.tokens[(b.source_ids >= 0) & (b.frame_ids < 0)] for b in read]).tolist()
    chosen = [i * len(dataset) // count for i in range(count)]
    if dataset.splittable:  # in order, every position once
        assert ids == [1000 * index + i for index in chosen for i in range(int(dataset.lengths[0, index]))]
    else:  # they wait for a row with room, so their order is their own
        begun = [i // 1000 for i in ids if i % 1000 == 0]
        assert sorted(begun) == chosen
        assert sum(len(b.frames) for b in read) == count
