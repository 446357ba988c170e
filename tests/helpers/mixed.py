"""What every kind of data has to keep to inside a mixture: shares of tokens, and rows that go on exactly."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import torch

from data_modules.base import DocumentDataModule
from data_modules.dataset import DocumentFormat
from data_modules.mixing.loader_config import LoaderConfig
from data_modules.mixture import MixtureDataModule
from data_modules.source import Source
from data_modules.text import TextSource
from lit_mm.sequence import Document, Frame

ROW = 128


def mixture(kind: Source, folder: Path, format: DocumentFormat) -> MixtureDataModule:
    """The kind with 60 % of the tokens, and text with the rest."""
    file = folder / "beside_it.jsonl"
    file.write_text("".join(json.dumps({"text": f"the cat number {i} sat on the mat " * 4}) + "\n" for i in range(50)))
    loader = LoaderConfig(row_length=ROW, rows=2, workers=0)
    sources = {"kind": kind, "text": TextSource(str(file), window=ROW)}
    module = MixtureDataModule(sources=sources, weights={"kind": 0.6, "text": 0.4}, loader=loader, tokenizer="x")
    module.format = format
    return module


def check_mixture(kind: Source, folder: Path, format: DocumentFormat) -> None:
    """Fails unless rows go on exactly, and shares of tokens are as asked for."""
    module = mixture(kind, folder, format)
    module.setup("fit")
    check_rows(module)


def check_rows(module: DocumentDataModule) -> None:
    """Fails unless rows of a data module that is set up go on exactly, with the shares of tokens of its weights."""
    whole = list(islice(module.training_rows(), 12))
    module.plan_state = json.loads(json.dumps(whole[5].plan_state))
    for before, after in zip(whole[6:], module.training_rows(), strict=False):
        assert before.row_numbers == after.row_numbers
        assert before.frame_origins == after.frame_origins
        for name in ("tokens", "targets", "document_ids", "branch_ids", "positions", "frames", "frame_clean"):
            assert torch.equal(getattr(before, name), getattr(after, name)), name
    placed: Counter[str] = Counter()
    planner = module.training_rows().planner()
    for _ in range(1000):
        for piece in planner.next_row().pieces:
            placed[piece.source] += piece.stop - piece.start
    weights = module.mixture.weights
    for name, weight in weights.items():
        assert abs(placed[name] / placed.total() - weight / sum(weights.values())) < 0.01, placed


def shown(document: Document, format: DocumentFormat) -> str:
    """Texts and pictures of a document in order, a picture as how it is taken, with its branch."""
    parts = []
    for segment in document.segments:
        if isinstance(segment, Frame):
            parts.append(("[read]" if segment.clean else "[drawn]") + (f"/{segment.branch}" if segment.branch else ""))
        else:
            parts.append(format.tokenizer.decode(segment.ids))
    return "".join(parts)
