"""Remote pictures are fetched ahead, many at once, and kept on the local disk up to a limit."""

from __future__ import annotations

import os
import pickle
import time
from itertools import islice
from pathlib import Path

import pytest
from fsspec import AbstractFileSystem

from data_modules.dataset import BrokenFile, DocumentFormat
from data_modules.image_text import ImageTextDataModule
from data_modules.index import range_cache
from data_modules.index.input_files import find_input_files
from data_modules.index.range_cache import RangeCache
from data_modules.index.ranges import RangeReader
from data_modules.mixing.loader_config import LoaderConfig
from lit_mm.mistake import Mistake
from tests.data_modules.index.test_tars import load, shown
from tests.helpers.tars import pairs, write_tar
from tests.helpers.web_server import Server


def served(server: Server, content: bytes = bytes(range(200)), name: str = "0.bin"):  # type: ignore[no-untyped-def]
    (server.folder / name).write_bytes(content)
    return find_input_files(f"{server.url}/{name}", (".bin",), "x")[0]


def test_ranges_are_on_their_way_at_once(server: Server) -> None:
    file, ranges = served(server), RangeReader()
    server.wait = 0.3
    for at in range(10):
        ranges.ahead(file, at, 5)
    start, asked = time.monotonic(), server.asked.total()
    assert [ranges.read(file, at, 5) for at in range(10)] == [bytes(range(at, at + 5)) for at in range(10)]
    assert server.most > 4
    assert time.monotonic() - start < 10 * 0.3
    assert server.asked.total() <= asked + 10
    assert ranges.read(file, 3, 2) == bytes([3, 4]), "what was not told ahead is read too"
    copied = pickle.loads(pickle.dumps(ranges))
    copied.ahead(file, 7, 1)
    assert copied.read(file, 7, 1) == b"\7"


def test_what_fails_ahead_is_said_when_it_is_read(server: Server) -> None:
    file, ranges = served(server), RangeReader()
    server.failures["/0.bin"] = [500, "cut"]
    ranges.ahead(file, 0, 5)
    assert ranges.read(file, 0, 5) == bytes(range(5)), "failures that pass are waited out"
    (server.folder / "0.bin").unlink()
    ranges.ahead(file, 10, 5)
    with pytest.raises(BrokenFile, match="it is no longer there"):
        ranges.read(file, 10, 5)


def test_a_child_process_fetches_by_itself(server: Server) -> None:
    """It has the parent's threads no longer."""
    file, ranges = served(server), RangeReader()
    ranges.ahead(file, 0, 5)
    child = os.fork()
    if not child:
        ranges.ahead(file, 5, 5)
        os._exit(0 if ranges.read(file, 0, 5) + ranges.read(file, 5, 5) == bytes(range(10)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ranges.read(file, 0, 5) == bytes(range(5))


def test_local_files_are_read_ahead_by_the_system(tmp_path: Path) -> None:
    (tmp_path / "0.bin").write_bytes(b"hello")
    (file,) = find_input_files(str(tmp_path), (".bin",), "x")
    ranges = RangeReader()
    ranges.ahead(file, 1, 3)
    assert ranges.read(file, 1, 3) == b"ell"
    gone = RangeReader()
    (tmp_path / "0.bin").unlink()
    gone.ahead(file, 1, 3)
    with pytest.raises(BrokenFile, match="no longer there"):
        gone.read(file, 1, 3)


def test_training_fetches_the_next_batch_while_it_reads_one(server: Server, document_format: DocumentFormat) -> None:
    write_tar(server.folder / "0.tar", pairs(30))
    data = ImageTextDataModule(
        train=f"{server.url}/0.tar",
        tokenizer=str(document_format.tokenizer.file),
        loader=LoaderConfig(row_length=128, rows=2, workers=0),
        image_size=32,
        tokens_per_frame=4,
    )
    data.setup("fit")
    server.wait = 0.05
    batches = list(islice(data.training_rows(), 2))
    assert server.most > 2
    write_tar(server.folder / "copy" / "0.tar", pairs(30))
    data.mixture.sources["image_text"].paths["train"] = str(server.folder / "copy")
    data.datasets.clear()
    for batch, local in zip(batches, islice(data.training_rows(), 2), strict=True):
        assert (batch.tokens == local.tokens).all()
        assert (batch.frames == local.frames).all()
        assert batch.plan_state["rows"] == local.plan_state["rows"]


def test_a_cache_is_asked_first(server: Server, tmp_path: Path, document_format: DocumentFormat) -> None:
    write_tar(server.folder / "0.tar", pairs(9))
    dataset = load(f"{server.url}/0.tar", document_format)
    dataset.pictures.ranges = RangeReader(RangeCache(tmp_path / "ranges", 10**9))
    first, sent = shown(dataset, document_format), server.sent
    assert shown(dataset, document_format) == first
    assert server.sent == sent
    for kept in (tmp_path / "ranges").rglob("*"):
        if kept.is_file():
            kept.write_bytes(kept.read_bytes()[:-1])
    assert shown(dataset, document_format) == first, "what is cut is read anew"
    assert server.sent > sent


def test_a_cache_keeps_to_its_limit(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_cache, "FOLDERS", 2)
    folder = tmp_path / "kept"
    file, cache = served(server), RangeCache(folder, 100)
    for at in range(20):
        cache.keep(file, at, bytes([at]) * 10)
        assert sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) <= 100
        time.sleep(0.01)  # the clock of files ticks slowly
        cache.get(file, 0, 10)  # used again and again, so it stays
        time.sleep(0.01)
    there = [at for at in range(20) if cache.get(file, at, 10) == bytes([at]) * 10]
    assert len(there) <= 10
    assert {0, 19} <= set(there)
    cache.keep(file, 50, bytes(60))
    assert cache.get(file, 50, 60) is None, "larger than a folder's share"
    other = served(server, bytes(7), "1.bin")
    assert cache.get(other, 0, 10) is None


def test_a_limit_below_nothing() -> None:
    with pytest.raises(Mistake, match=r"data\.loader\.remote_cache_gb is -1; use 0 or more"):
        LoaderConfig(remote_cache_gb=-1)


def test_tars_and_texts_on_s3(tmp_path: Path, document_format: DocumentFormat, s3: AbstractFileSystem) -> None:
    s3.mkdir("web")
    for n in range(2):
        s3.pipe(f"web/laion/{n:05}.tar", write_tar(tmp_path / f"{n}.tar", pairs(4, 4 * n)).read_bytes())
    wanted = {f"a cat number {i}": [i, 0, 0] for i in range(8)}
    for path in ("s3://web/laion", "s3://web/laion/*.tar", "s3://web/laion/{00000..00001}.tar"):
        dataset = load(path, document_format)
        dataset.pictures.ahead(range(8))
        assert shown(dataset, document_format) == wanted
    s3.pipe("web/laion/00001.tar", write_tar(tmp_path / "1.tar", pairs(5, 4)).read_bytes())
    s3.invalidate_cache()
    assert len(load("s3://web/laion", document_format)) == 9, "a tar that grew is indexed anew"
