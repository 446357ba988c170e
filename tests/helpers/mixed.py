"""What every kind of data has to keep to inside a mixture: shares of tokens, and rows that go on exactly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch

from data_modules.base import DocumentDataModule
from data_modules.dataset import DocumentFormat
from data_modules.mixing.loaders import LoaderConfig
from data_modules.mixture import MixtureDataModule
from data_modules.text import TextDataModule
from lit_mm.sequence import PackedBatch

ROW = 128


def mixture(kind: DocumentDataModule, folder: Path, format: DocumentFormat) -> MixtureDataModule:
    """The kind with 60 % of the tokens, and text with the rest."""
    file = folder / "beside_it.jsonl"
    file.write_text("".join(json.dumps({"text": f"the cat number {i} sat on the mat " * 4}) + "\n" for i in range(50)))
    loader = LoaderConfig(row_length=ROW, rows=2, workers=0)
    sources = {"kind": kind, "text": TextDataModule(str(file), window=ROW)}
    module = MixtureDataModule(sources, {"kind": 0.6, "text": 0.4}, loader=loader, tokenizer="x")
    module.format = format
    return module


def batches(module: MixtureDataModule) -> Iterator[PackedBatch]:
    module.setup("fit")
    return iter(module.training_rows())


def check_mixture(kind: DocumentDataModule, folder: Path, format: DocumentFormat, rows: int = 300) -> None:
    """Fails unless a plan goes on exactly, and shares of tokens are as asked for."""
    module = mixture(kind, folder, format)
    module.format = format
    whole = list(islice(batches(module), rows // 2))
    resumed = mixture(kind, folder, format)
    resumed.plan_state = json.loads(json.dumps(whole[9].plan_state))
    for before, after in zip(whole[10:20], islice(batches(resumed), 10), strict=True):
        assert before.row_numbers == after.row_numbers
        assert before.frame_origins == after.frame_origins
        for name in ("tokens", "targets", "document_ids", "branch_ids", "positions", "frames", "frame_clean"):
            assert torch.equal(getattr(before, name), getattr(after, name)), name
    placed = [torch.bincount(batch.source_ids[batch.source_ids >= 0], minlength=2) for batch in whole]
    share = torch.stack(placed).sum(0) / torch.stack(placed).sum()
    assert abs(float(share[whole[0].sources.index("kind")]) - 0.6) < 0.01, share
