"""What the mixture monitor logs is what was read."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from callbacks.monitors import mixture_monitor
from callbacks.monitors.mixture_monitor import MixtureMonitor
from data_modules.mixing import rows
from data_modules.mixing.rows import RowReader, Share, TrainingRows
from lit_mm.packing import pack_rows
from lit_mm.sequence import Document, PackedRow, Text
from tests.helpers.documents import sources


def test_health_of_each_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two micro-batches, of which the second ends a step that logs."""
    logged: dict[str, float] = {}
    monkeypatch.setattr(mixture_monitor, "log_values", lambda _, values: logged.update(values))
    row = PackedRow((Document((Text(torch.arange(24)),), "books"),), 0, 0)
    batch = pack_rows([row], length=32, tokens_per_frame=4, image_size=32, pad_id=0, sources=("books", "photos"))
    books = {"tokens": 300, "next": 40, "documents": 20}
    batch.plan_state = {"sources": {"books": books, "photos": {"tokens": 100, "next": 5, "documents": 50}}}
    photos = SimpleNamespace(captions_cut=5, skipped_at_setup=3)
    datasets = {
        "books": SimpleNamespace(captions_cut=0, skipped_at_setup=0),
        "photos": type("P", (), {**vars(photos), "__len__": lambda _: 50})(),
    }
    data = SimpleNamespace(left_out=SimpleNamespace(counts=Counter(books=1)), datasets={"train": datasets})
    trainer: Any = SimpleNamespace(datamodule=data, accumulate_grad_batches=2, global_step=1, log_every_n_steps=1)
    monitor = MixtureMonitor()
    for number, reading in enumerate([{"books": (0.5, 2)}, {"books": (0.1, 1), "photos": (3.0, 4)}]):
        batch.reading = reading
        assert not logged
        monitor.on_train_batch_end(trainer, SimpleNamespace(), None, batch, number)  # type: ignore[arg-type]
    assert logged["data/tokens"] == 400
    assert logged["data/padding"] == pytest.approx(8 / 32)
    assert (logged["data/books/share"], logged["data/photos/share"]) == (0.75, 0.25)
    assert (logged["data/books/passes"], logged["data/photos/passes"]) == (2.0, 0.1)
    assert logged["data/books/seconds_a_document"] == pytest.approx(0.2)
    assert logged["data/photos/seconds_a_document"] == pytest.approx(0.75)
    assert logged["data/books/broken_per_million"] == pytest.approx(1e6 / 40)
    assert (logged["data/photos/skipped"], logged["data/photos/broken_per_million"]) == (3.0, 0.0)
    assert logged["data/photos/captions_cut"] == 0.1
    assert "data/books/captions_cut" not in logged


def test_reading_is_timed_document_by_document(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that goes on by a second whenever it is looked at."""
    seconds = iter(range(10_000))
    monkeypatch.setattr(rows.time, "perf_counter", lambda: float(next(seconds)))
    datasets = sources()
    format: Any = SimpleNamespace(tokens_per_frame=16, image_size=4, tokenizer=SimpleNamespace(pad_id=0))
    reader = RowReader(datasets, format, row_length=640, on_error="raise")
    batch = next(iter(TrainingRows(reader, dict.fromkeys(datasets, 1.0), 0, Share(0, 1, 4), {})))
    read = sum(count for _, count in batch.reading.values())
    assert read == sum(len(set(ids[ids >= 0].tolist())) for ids in batch.document_ids)
    assert all(took == count for took, count in batch.reading.values())
