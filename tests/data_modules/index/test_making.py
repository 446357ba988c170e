"""Indexes are made once, by whoever is first, and nothing half-made is trusted."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from data_modules.dataset import DocumentFormat
from data_modules.image_text import ImageTextSource
from data_modules.index import array_file, making
from data_modules.index.__main__ import main
from data_modules.index.keys import cache_folder
from data_modules.index.sidecars import Indexing, Sidecar
from data_modules.index.storage import InputFile
from lit_mm.mistake import Mistake
from tests.data_modules.index.test_tars import load, shown
from tests.helpers.tars import pairs, write_tar


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    for n in range(6):
        write_tar(tmp_path / "tars" / f"{n}.tar", pairs(5, 5 * n))
    return tmp_path / "tars"


def indexing_of(tars: Path, format: DocumentFormat) -> Indexing:
    found = ImageTextSource(str(tars)).indexing("train", format.tokenizer)
    assert found is not None
    return found


def times(cache: Path) -> dict[str, int]:
    return {f.name: f.stat().st_mtime_ns for f in cache.rglob("*") if f.is_file() and "locks" not in f.parts}


def test_a_second_start_makes_nothing(tars: Path, document_format: DocumentFormat) -> None:
    first = shown(load(tars, document_format), document_format)
    made = times(cache_folder(None))
    assert len(made) == 6 + 2
    assert shown(load(tars, document_format), document_format) == first
    assert times(cache_folder(None)) == made
    os.utime(tars / "3.tar")
    load(tars, document_format)
    assert len(times(cache_folder(None)).keys() - made.keys()) == 1 + 2, "one index, and the view of all"
    load(tars, document_format, max_caption=3)
    assert len(times(cache_folder(None)).keys() - made.keys()) == 3 + 6 + 2, "other tokens, other indexes"


def cut_all(kind: str) -> None:
    for number, file in enumerate(sorted((cache_folder(None) / kind).rglob("*.*"))):
        content = file.read_bytes()
        file.write_bytes(content[: [0, 5, len(content) // 2, len(content) - 1][number % 4]])


def test_what_is_cut_is_made_again(tars: Path, document_format: DocumentFormat) -> None:
    first = shown(load(tars, document_format), document_format)
    cut_all("views")
    assert shown(load(tars, document_format), document_format) == first
    cut_all("files")
    with pytest.raises(Mistake, match=r"the index of '.*0\.tar', is gone or cut; start again to make it anew"):
        shown(load(tars, document_format), document_format)
    assert shown(load(tars, document_format), document_format) == first


def test_an_empty_array_is_made_again(tars: Path, document_format: DocumentFormat) -> None:
    first = shown(load(tars, document_format), document_format)
    for file in (cache_folder(None) / "views").rglob("*.npy"):
        file.write_bytes(b"")
    assert shown(load(tars, document_format), document_format) == first


def test_a_full_disk_leaves_nothing(
    tars: Path, document_format: DocumentFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(array_file.os, "fsync", full)
        with pytest.raises(Mistake, match=r"data\.loader\.cache: '.*' cannot be written \(No space left on device\)"):
            load(tars, document_format)
    assert times(cache_folder(None)) == {}
    assert len(load(tars, document_format)) == 30


def slow_indexer(file: InputFile) -> tuple[dict, dict]:
    with open(f"{file.path}.read", "a") as log:
        log.write(f"{os.getpid()}\n")
    time.sleep(0.2)
    return {}, {}


def make(folder: Path) -> None:
    sidecars = [Sidecar.of(InputFile(str(folder / f"{n}"), 1, ""), "x", folder / "cache") for n in range(5)]
    making.make_missing(Indexing(sidecars, slow_indexer), "x", folder / "lock")


def test_of_two_at_once_one_makes_and_the_other_waits(tmp_path: Path) -> None:
    """The first one is killed in the middle: the second goes on from there."""
    fork = multiprocessing.get_context("fork")
    both = [fork.Process(target=make, args=(tmp_path,)) for _ in range(2)]
    both[0].start()
    while not (tmp_path / "1.read").exists():
        time.sleep(0.01)
    both[1].start()
    os.kill(both[0].pid, signal.SIGKILL)  # type: ignore[arg-type]
    for process in both:
        process.join(60)
    assert both[1].exitcode == 0
    reads = [len((tmp_path / f"{n}.read").read_text().split()) for n in range(5)]
    assert reads[0] == 1, "what was made is not made again"
    assert min(reads) == 1
    assert sum(reads) <= 6, "the one that was being read is read again"
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 5


def test_all_cores(tars: Path, document_format: DocumentFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes make the same indexes as one."""
    monkeypatch.setattr(making, "cores", lambda: 2)
    monkeypatch.setattr(making, "ALONE", -1.0)
    by_two = indexing_of(tars, document_format)
    making.make_missing(by_two, "x", None)
    contents = [s.path.read_bytes() for s in by_two.sidecars]
    shutil.rmtree(cache_folder(None))
    monkeypatch.setattr(making, "cores", lambda: 1)
    making.make_missing(by_two, "x", None)
    assert [s.path.read_bytes() for s in by_two.sidecars] == contents


def test_a_log_is_told_how_long_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(making, "ALONE", 0.0)
    monkeypatch.setattr(making, "cores", lambda: 1)
    caplog.set_level(logging.INFO)
    make(tmp_path)
    assert "x: indexing 5 files" in caplog.text
    assert "x: 1 of 5 files are indexed, about 1 s to go" in caplog.text


def test_parts_of_an_array_make_all(tars: Path, document_format: DocumentFormat, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(f"""
trainer: {{max_steps: 3}}
data:
  class_path: data_modules.mixture.MixtureDataModule
  init_args:
    tokenizer: {document_format.tokenizer.file}
    weights: {{web: 1}}
    sources:
      web: {{class_path: data_modules.image_text.ImageTextSource, init_args: {{train: {tars}}}}}
""")
    for part in ("1/2", "2/2"):
        main([str(config), "--part", part])
    made = times(cache_folder(None))
    assert len(made) == 6
    load(tars, document_format)
    assert made.items() <= times(cache_folder(None)).items(), "a run finds them made"
    with pytest.raises(SystemExit, match=r"error: --part: '3/2' is no part; write the second of eight as 2/8"):
        main([str(config), "--part", "3/2"])
    config.write_text("model: {}")
    with pytest.raises(SystemExit, match=r"has no key 'data'"):
        main([str(config)])
