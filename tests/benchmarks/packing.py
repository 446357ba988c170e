"""What packing is worth: useful tokens a second of packed rows, and of rows that hold one document each and padding.

The documents are the same, cut at the same places: those of the tiny mixture, and texts as long as pages of the web
(log-normal, median 400 tokens, mean 700), both with the model of configs/model/tiny.yaml.

Run: `python -m tests.benchmarks.packing`, after `make data`.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import numpy as np
import torch
from rich.table import Table

from data_modules.dataset import DocumentDataset, DocumentFormat, Draw
from data_modules.mixing.rows import RowReader
from data_modules.mixing.sampler import DrawStream, RowPlan, RowPlanner
from lit_mm.backbone import ModalityFeedForward
from lit_mm.sequence import Document, PackedBatch, Text
from lit_mm.tokenizer import Tokenizer
from tests.benchmarks.interleaved import interleaved
from tests.benchmarks.our_model import Size, TrainingStep, lit_model, with_latents
from tests.benchmarks.report import finish, options
from tests.benchmarks.tiny_data import tiny_data

TOKENIZER = "data/tiny/tokenizer.json"
LENGTHS = {"tiny mixture": 512, "web pages": 2048}  # positions in a row
POSITIONS = 2048  # of a batch, where rows are as long as that


class WebText(DocumentDataset):
    """Random ids, in documents as long as web pages are."""

    splittable = True

    def __init__(self, documents: int = 4000) -> None:
        self.source = "web"
        lengths = np.exp(np.random.default_rng(0).normal(np.log(400), 1.06, documents))
        self.lengths = lengths.clip(8, 50_000).astype(np.int32)[None]

    def document(self, draw: Draw) -> Document:
        """See `DocumentDataset.document`."""
        generator = torch.Generator().manual_seed(draw.seed)
        ids = torch.randint(16, 8192, (int(self.lengths[0, draw.index]),), generator=generator)
        return Document((Text(ids),), self.source)


def web_pages() -> tuple[RowReader, RowPlanner]:
    """Reader and plan of the simulated texts."""
    dataset, length = WebText(), LENGTHS["web pages"]
    reader = RowReader({"web": dataset}, DocumentFormat(Tokenizer(TOKENIZER), 0, 16), length, "raise")
    return reader, RowPlanner({"web": DrawStream("web", dataset, seed=0)}, {"web": 1.0}, length, seed=0)


def tiny_mixture() -> tuple[RowReader, RowPlanner]:
    """Reader and plan of configs/tiny.yaml."""
    rows = tiny_data().training_rows()
    return rows.reader, rows.planner()


def batches(reader: RowReader, planner: RowPlanner, count: int) -> dict[str, list[PackedBatch]]:
    """The same pieces of documents, packed, and one in a row, in batches of 2,048 positions."""
    length = reader.row_length
    plans = [[planner.next_row() for _ in range(POSITIONS // length)] for _ in range(count)]
    alone = [RowPlan(plan.number, plan.seed, (piece,)) for rows in plans for plan in rows for piece in plan.pieces]
    of_row_length = [alone[i : i + POSITIONS // length] for i in range(0, len(alone), POSITIONS // length)]
    of_longest: list[list[RowPlan]] = [[]]
    for plan in alone:
        if of_longest[-1] and _longest([*of_longest[-1], plan]) * (len(of_longest[-1]) + 1) > POSITIONS:
            of_longest.append([])
        of_longest[-1].append(plan)
    shorter = [dataclasses.replace(reader, row_length=_longest(rows)) for rows in of_longest]
    return {
        "packed": [reader.read(rows, {}) for rows in plans],
        "padded to the longest of the batch": [r.read(rows, {}) for r, rows in zip(shorter, of_longest, strict=True)],
        "padded to the row length": [reader.read(rows, {}) for rows in of_row_length],
    }


def _longest(plans: list[RowPlan]) -> int:
    return max(piece.stop - piece.start for plan in plans for piece in plan.pieces)


def useful(batch: PackedBatch) -> int:
    """Positions that hold something."""
    return int((batch.document_ids >= 0).sum())


def measure(kinds: dict[str, list[PackedBatch]], rounds: int) -> dict[str, dict[str, float]]:
    """Train on all kinds of batches in turns."""
    size = Size()
    feed_forward = partial(ModalityFeedForward, hidden_dim=768)
    steps: dict[str, Any] = {
        kind: TrainingStep(lit_model(size, feed_forward), [with_latents(batch, size.channels) for batch in found])
        for kind, found in kinds.items()
    }
    warm_up = 2
    seconds = interleaved(steps, rounds, warm_up)
    speed, padding = {}, {}
    for kind, found in kinds.items():
        used = [found[(warm_up + number) % len(found)] for number in range(rounds)]
        speed[kind] = sum(map(useful, used)) / sum(seconds[kind])
        padding[kind] = 1 - sum(map(useful, found)) / sum(batch.tokens.numel() for batch in found)
    return {
        kind: {
            "useful_tokens_per_second": speed[kind],
            "padding": padding[kind],
            "packed": speed["packed"] / speed[kind],
        }
        for kind in kinds
    }


def main() -> None:
    """Print a table and write it as JSON."""
    parser = options(__doc__, "packing", rounds=16, threads=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    table = Table("documents", "rows", "padding", "useful tokens/s", "packed is so many times as fast")
    results: dict[str, Any] = {}
    for name, (reader, planner) in {"tiny mixture": tiny_mixture(), "web pages": web_pages()}.items():
        results[name] = measure(batches(reader, planner, count=arguments.rounds), arguments.rounds)
        for kind, found in results[name].items():
            numbers = f"{found['useful_tokens_per_second']:,.0f}", f"{found['packed']:.2f}"
            table.add_row(name, kind, f"{found['padding']:.1%}", *numbers)
    finish(table, results, arguments.out)


if __name__ == "__main__":
    main()
