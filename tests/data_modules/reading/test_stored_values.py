"""Pictures of pages in Parquet files are read where they lie."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_modules.dataset import BrokenFile, DocumentFormat, Draw
from data_modules.interleaved import InterleavedDataset, InterleavedSource
from lit_mm.sequence import Frame

SIDE = 32


def noise(seed: int) -> np.ndarray:
    """A picture that no compression makes small."""
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


def page(number: int) -> dict[str, list]:
    """As OBELICS has it: two pictures, with a text between them."""
    images: list[dict | None] = []
    for seed in (2 * number, 2 * number + 1):
        buffer = io.BytesIO()
        Image.fromarray(noise(seed)).save(buffer, "PNG")
        images += [{"bytes": buffer.getvalue(), "path": None}, None]
    return {"texts": [None, f"page {number}", None, "end"], "images": images}


def load(path: Path, format: DocumentFormat) -> InterleavedDataset:
    dataset = InterleavedSource(str(path), drawn=0.0).dataset("train", "pages", format)
    assert dataset is not None
    return pickle.loads(pickle.dumps(dataset))


def test_pictures_are_not_copied(
    tmp_path: Path, document_format: DocumentFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "pages").mkdir()
    for file, numbers in enumerate((range(5), range(5, 8))):
        table = pa.Table.from_pylist([page(number) for number in numbers])
        pq.write_table(table, tmp_path / f"pages/{file}.parquet", row_group_size=2)
    dataset = load(tmp_path / "pages", document_format)
    pictures = [
        [s.image.permute(1, 2, 0).numpy() for s in dataset.document(Draw(i, 0, 0)).segments if isinstance(s, Frame)]
        for i in range(len(dataset))
    ]
    assert len(pictures) == 8
    for number, shown in enumerate(pictures):
        for which in (0, 1):
            assert any(np.array_equal(noise(2 * number + which), one) for one in shown)
    stored = sum(file.stat().st_size for file in (tmp_path / "pages").iterdir())
    cached = sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*") if file.is_file())
    assert stored > 16 * SIDE * SIDE * 3
    assert cached < stored / 2


def test_a_damaged_file_is_named(tmp_path: Path, document_format: DocumentFormat) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([page(number) for number in range(4)]), file, row_group_size=2)
    content = bytearray(file.read_bytes())
    content[100:1000] = bytes(900)
    file.write_bytes(content)
    with pytest.raises(BrokenFile, match=r"a.parquet' broke while being read"):
        load(file, document_format)
