"""A disk that is full while an index or a cache is written is one sentence on every rank, and nothing of it is used."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch.distributed as dist
from datasets.arrow_writer import ArrowWriter

from data_modules.dataset import DocumentFormat
from data_modules.index.keys import cache_folder
from data_modules.text import TextDataModule, TextSource
from lit_mm.mistake import Mistake
from tests.helpers.processes import on_processes
from tests.helpers.program import ROOT


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def disk_is_full(rank: int) -> Iterator[None]:
    """On one of two nodes, each of which has a disk of its own."""
    with pytest.MonkeyPatch.context() as patch:
        if rank == 1:
            patch.setattr(os, "fsync", full)
        yield


def prepared(rank: int, folder: str) -> tuple[str, list[str], int]:
    """What a rank says while one disk is full, what is in its cache then, and the documents of the next start.

    It does what Lightning does: every rank that is the first of its node prepares, and all wait before they set up.
    """
    os.environ["XDG_CACHE_HOME"] = f"{folder}/cache_{rank}"
    tokenizer, said = str(ROOT / "data/tiny/tokenizer.json"), ""
    with disk_is_full(rank):
        data = TextDataModule(train=f"{folder}/*.jsonl", tokenizer=tokenizer, image_size=64, tokens_per_frame=64)
        data.prepare_data()
        dist.barrier()
        try:
            data.setup("fit")
        except Mistake as error:
            said = error.sentence
    there = [str(f) for f in cache_folder(None).rglob("*") if f.is_file() and "locks" not in f.parts]
    data = TextDataModule(train=f"{folder}/*.jsonl", tokenizer=tokenizer, image_size=64, tokens_per_frame=64)
    data.prepare_data()
    data.setup("fit")
    return said, there, len(data.datasets["train"]["text"])


def test_all_ranks_end_with_the_sentence_of_one(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "the cat"}\n' * 5)
    first, second = on_processes(prepared, 2, tmp_path / "ranks", str(tmp_path))
    assert "/cache_1/" in second[0], "the disk of the second rank is meant"
    assert second[0].endswith("cannot be written (No space left on device); name a folder with room")
    assert first[0] == second[0]
    assert second[1] == []
    assert [first[2], second[2]] == [5, 5]


def test_no_room_for_the_lengths_of_all_documents(
    tmp_path: Path, document_format: DocumentFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are written to mapped memory, where a full disk would kill the process."""
    (tmp_path / "a.jsonl").write_text('{"text": "the cat"}\n' * 5)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(Mistake, match=r"cache: '.*\.npy' cannot be written \(No space left on device\)"):
            TextSource(str(tmp_path)).dataset("train", "x", document_format)
    views = [file for file in (cache_folder(None) / "views").rglob("*") if file.is_file()]
    assert views == []
    dataset = TextSource(str(tmp_path)).dataset("train", "x", document_format)
    assert dataset is not None
    assert len(dataset) == 5


@pytest.mark.parametrize("method", ["write", "write_batch"])
def test_no_room_for_a_table(
    method: str, tmp_path: Path, document_format: DocumentFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of rows, and of the tokens that are made of them."""
    (tmp_path / "a.csv").write_text("text\n" + "the cat\n" * 5)
    with monkeypatch.context() as patch:
        patch.setattr(ArrowWriter, method, full)
        with pytest.raises(Mistake, match=r"cache: nothing can be written in '.*' \(No space left on device\); name"):
            TextSource(str(tmp_path)).dataset("train", "x", document_format)
    dataset = TextSource(str(tmp_path)).dataset("train", "x", document_format)
    assert dataset is not None
    assert len(dataset) == 5
