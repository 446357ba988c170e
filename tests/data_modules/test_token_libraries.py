"""Tokens that the libraries of other programs wrote themselves come out as they were given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_modules.dataset import DocumentFormat
from tests.data_modules.test_token_shards import load, windows

DOCUMENTS = [[5, 6, 7, 8, 9, 10, 11], [12, 13], [*range(20, 60)], *([i, i + 1, i + 2] for i in range(30, 60))]


def as_torch(number: int) -> Iterator[torch.Tensor]:
    """As litData's examples tokenize."""
    yield torch.tensor(DOCUMENTS[number])


@pytest.mark.slow
def test_litdata_as_its_examples_write(tmp_path: Path, document_format: DocumentFormat) -> None:
    litdata = pytest.importorskip("litdata")
    out, loader = str(tmp_path / "out"), litdata.streaming.item_loader.TokensLoader()
    numbers = list(range(len(DOCUMENTS)))
    litdata.optimize(as_torch, numbers, out, chunk_bytes="64MB", num_workers=1, item_loader=loader, verbose=False)
    assert sorted(windows(load(tmp_path / "out", document_format, window=64))) == sorted(DOCUMENTS)


@pytest.mark.filterwarnings("ignore:An item was larger")
@pytest.mark.parametrize("kind", [torch.int64, torch.int32, np.uint16, np.int32])
def test_litdata(kind: Any, tmp_path: Path, document_format: DocumentFormat) -> None:
    litdata = pytest.importorskip("litdata")
    loader = litdata.streaming.item_loader.TokensLoader()
    writer = litdata.streaming.writer.BinaryWriter(str(tmp_path / "out"), chunk_bytes=150, item_loader=loader)
    for number, document in enumerate(DOCUMENTS):
        writer[number] = (
            torch.tensor(document, dtype=kind) if isinstance(kind, torch.dtype) else np.array(document, kind)
        )
    writer.done()
    writer.merge()
    assert len(list((tmp_path / "out").glob("*.bin"))) > 1
    assert windows(load(tmp_path / "out", document_format, window=64)) == DOCUMENTS


def test_compressed_litdata(tmp_path: Path, document_format: DocumentFormat) -> None:
    litdata = pytest.importorskip("litdata")
    loader = litdata.streaming.item_loader.TokensLoader()
    packing = {"compression": "zstd", "compression_level": "chunk"}
    writer = litdata.streaming.writer.BinaryWriter(
        str(tmp_path / "out"), chunk_bytes=150, item_loader=loader, **packing
    )
    for number, document in enumerate(DOCUMENTS):
        writer[number] = torch.tensor(document)
    writer.done()
    writer.merge()
    assert len(list((tmp_path / "out").glob("*.zstd.bin"))) > 1
    assert windows(load(tmp_path / "out", document_format, window=64)) == DOCUMENTS


@pytest.mark.parametrize("compression", [None, "zstd:7", "gz", "bz2", "br:5"])
@pytest.mark.parametrize(
    ("encoding", "kind"),
    [("ndarray:uint16", np.uint16), ("ndarray", np.int32), ("ndarray:int32:7", np.int32), ("bytes", np.int64)],
)
def test_mds(
    encoding: str, kind: Any, compression: str | None, tmp_path: Path, document_format: DocumentFormat
) -> None:
    streaming = pytest.importorskip("streaming")
    documents = [one for one in DOCUMENTS if len(one) == 7] if encoding.endswith(":7") else DOCUMENTS
    columns = {"source": "str", "tokens": encoding}
    with streaming.MDSWriter(
        out=str(tmp_path / "out"), columns=columns, size_limit=300, compression=compression
    ) as out:
        for document in documents:
            tokens = np.array(document, kind)
            out.write({"source": "web", "tokens": tokens.tobytes() if encoding == "bytes" else tokens})
    assert windows(load(tmp_path / "out", document_format, window=64)) == documents
