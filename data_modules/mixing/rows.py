"""From the plan to batches: worker processes read and decode what the plan names, and pack it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from data_modules.dataset import BrokenFile, DocumentDataset, DocumentFormat
from data_modules.mixing.promises import check_document
from data_modules.mixing.sampler import DrawStream, RowPlan, RowPlanner
from data_modules.mixing.stages import Stage, ever_drawn
from data_modules.reading.files import OnError
from lit_mm.packing import pack_rows
from lit_mm.sequence import Document, PackedBatch, PackedRow


@dataclass(frozen=True)
class Share:
    """Which part of every step's rows this process reads: `rows` rows as number `rank` of `ranks`."""

    rank: int
    ranks: int
    rows: int


@dataclass(frozen=True)
class RowReader:
    """Reads the documents that a plan names and packs them.

    Args:
        datasets: by source name; their order numbers the sources.
        format: tokenizer, picture size, tokens of a frame.
        row_length: positions in a row.
        on_error: see `LoaderConfig`.
    """

    datasets: Mapping[str, DocumentDataset]
    format: DocumentFormat
    row_length: int
    on_error: OnError

    def ahead(self, plans: list[RowPlan]) -> None:
        """Have on its way what `read` will need for `plans`."""
        for plan in plans:
            for piece in plan.pieces:
                self.datasets[piece.source].ahead(piece.draw)

    def read(self, plans: list[RowPlan], plan_state: dict[str, Any]) -> PackedBatch:
        """One batch of `plans`. A document whose file broke leaves a gap at the end of its row and is reported."""
        skipped: dict[str, list[str]] = {}
        reading: dict[str, tuple[float, int]] = {}
        rows = []
        for plan in plans:
            documents: list[Document] = []
            for piece in plan.pieces:
                dataset, start = self.datasets[piece.source], time.perf_counter()
                try:
                    document = dataset.document(piece.draw)
                except BrokenFile as error:
                    if self.on_error == "raise":
                        raise
                    skipped.setdefault(piece.source, []).append(str(error))
                    continue
                seconds, read = reading.get(piece.source, (0.0, 0))
                reading[piece.source] = seconds + time.perf_counter() - start, read + 1
                check_document(piece.source, dataset, piece.draw, document, self.format.tokens_per_frame)
                if dataset.splittable:
                    document = document.slice_text(piece.start, piece.stop)
                documents.append(document)
            rows.append(PackedRow(tuple(documents), plan.number, plan.seed))
        batch = pack_rows(
            rows,
            length=self.row_length,
            tokens_per_frame=self.format.tokens_per_frame,
            image_size=self.format.image_size,
            pad_id=self.format.tokenizer.pad_id,
            sources=tuple(self.datasets),
        )
        batch.plan_state, batch.skipped, batch.reading = plan_state, skipped, reading
        return batch


def _worker() -> tuple[int, int]:
    info = get_worker_info()
    return (info.id, info.num_workers) if info else (0, 1)


class TrainingRows(IterableDataset):
    """Endless batches of the mixture; batch number m of this rank comes from worker m modulo workers.

    Every worker computes the whole plan, which is cheap, and reads only its own rows, which is not.

    Args:
        reader: reads what the plan names.
        weights: share of tokens of each source; those of weight 0 are never drawn.
        seed: of the order of documents and of the rows' noise.
        share: this rank's part.
        state: plan state to go on from, as carried by a batch; empty starts at row 0.
        stages: other weights for the rows before.
        window: documents of a source that are shuffled among each other, see `DrawStream`.
    """

    def __init__(
        self,
        reader: RowReader,
        weights: Mapping[str, float],
        seed: int,
        share: Share,
        state: Mapping[str, Any],
        stages: Sequence[Stage] = (),
        window: int | None = None,
    ) -> None:
        self.reader, self.weights, self.seed, self.share, self.state = reader, weights, seed, share, state
        self.stages, self.window = stages, window

    def planner(self) -> RowPlanner:
        """The plan, standing at `state`."""
        streams = {
            name: DrawStream(name, dataset, self.seed, window=self.window)
            for name, dataset in self.reader.datasets.items()
            if ever_drawn(name, self.weights, self.stages)
        }
        planner = RowPlanner(streams, self.weights, self.reader.row_length, self.seed, self.stages)
        if self.state:
            planner.load_state(self.state)
        return planner

    def __iter__(self) -> Iterator[PackedBatch]:
        planned = self._planned(*_worker())
        coming = next(planned)
        while True:
            now, coming = coming, next(planned)
            yield self.reader.read(*now)

    def _planned(self, worker: int, workers: int) -> Iterator[tuple[list[RowPlan], dict[str, Any]]]:
        """Rows of a worker's batches, which are on their way, and the state of the plan after each."""
        planner, share, step = self.planner(), self.share, 0
        while True:
            rows = [planner.next_row() for _ in range(share.ranks * share.rows)]
            if step % workers == worker:
                mine = rows[share.rank * share.rows : (share.rank + 1) * share.rows]
                self.reader.ahead(mine)
                yield mine, planner.state()
            step += 1


class ValidationRows(IterableDataset):
    """Documents of one source once, always the same in the same order, shared out over the ranks.

    Every rank gets equally many batches (the last ones may hold empty rows), so that sharded models stay in step.
    """

    def __init__(self, reader: RowReader, source: str, share: Share, documents: int | None) -> None:
        self.reader, self.share = reader, share
        dataset = reader.datasets[source]
        count = min(len(dataset), documents or len(dataset))
        # The seed of validation is fixed: two runs with different seeds are compared on the same noise.
        stream = DrawStream(source, dataset, seed=0, shuffle=False, documents=count)
        planner = RowPlanner({source: stream}, {source: 1.0}, reader.row_length, seed=0)
        self.plans: list[RowPlan] = []
        while (plan := planner.next_row()).pieces:
            self.plans.append(plan)

    def __len__(self) -> int:
        return -(-len(self.plans) // (self.share.ranks * self.share.rows))

    def __iter__(self) -> Iterator[PackedBatch]:
        worker, workers = _worker()
        share = self.share
        for step in range(worker, len(self), workers):
            start = (step * share.ranks + share.rank) * share.rows
            rows = self.plans[start : start + share.rows]
            rows += [RowPlan(-1, 0, ())] * (share.rows - len(rows))
            yield self.reader.read(rows, {})
