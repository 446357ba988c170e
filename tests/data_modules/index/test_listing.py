"""One rank looks files up, and all plan from what it has found."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from data_modules.conversation import ConversationSource
from data_modules.image_text import ImageTextSource
from data_modules.index import listing
from data_modules.index.listing import Listing
from data_modules.index.storage import InputFile
from data_modules.mixture import MixtureDataModule
from data_modules.source import Source
from data_modules.text import TextDataModule, TextSource
from data_modules.video import VideoSource
from tests.data_modules.video_files import moving_picture, write_video
from tests.helpers.processes import on_processes
from tests.helpers.program import ROOT
from tests.helpers.tars import picture


def found_by(rank: int, folder: str) -> tuple[list[InputFile], int, bool]:
    """What a rank finds, how often it looked, and whether it had found something else."""
    lookups = []
    look = listing.find_input_files

    def counted(*arguments: object) -> list[InputFile]:
        lookups.append(arguments)
        return look(*arguments)  # type: ignore[arg-type]

    listing.find_input_files = counted
    files = Listing()
    if rank != 1:
        files.find(f"{folder}/*.tar", (".tar",), "x")
    if rank == 2:  # as on a node that looked later
        files._found[f"{folder}/*.tar", (".tar",)].append(InputFile("late.tar", 1, ""))
    differs = files.agree()
    return files.find(f"{folder}/*.tar", (".tar",), "x"), len(lookups), differs


def test_one_rank_looks_files_up(tmp_path: Path) -> None:
    for n in range(3):
        (tmp_path / f"{n}.tar").write_bytes(b"x" * n)
    first, second, third = on_processes(found_by, 3, tmp_path / "ranks", str(tmp_path))
    assert [Path(file.path).name for file in first[0]] == ["0.tar", "1.tar", "2.tar"]
    assert first[0] == second[0] == third[0]
    assert [first[1], second[1], third[1]] == [1, 0, 1]
    assert [first[2], second[2], third[2]] == [False, False, True]


def documents_of(rank: int, folder: str) -> int:
    """Rank 0 prepares; then a file is added, and both set up."""
    data = TextDataModule(
        train=f"{folder}/*.jsonl", tokenizer=str(ROOT / "data/tiny/tokenizer.json"), image_size=64, tokens_per_frame=64
    )
    if rank == 0:
        data.prepare_data()
        (Path(folder) / "b.jsonl").write_text('{"text": "late"}\n')
    data.setup("fit")
    return len(data.datasets["train"]["text"])


def test_a_file_that_comes_while_a_run_starts_is_in_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "a.jsonl").write_text('{"text": "the cat"}\n' * 5)
    assert on_processes(documents_of, 2, tmp_path / "ranks", str(tmp_path)) == [5, 5]


def write_sources(folder: Path) -> None:
    """A few files of every kind that is read through tables, and videos."""
    for name in ("pairs", "classes/cat", "text", "talk", "clips"):
        (folder / name).mkdir(parents=True)
    for n in range(3):
        for where in ("pairs", "classes/cat"):
            (folder / where / f"{n}.png").write_bytes(picture((n, 0, 0)))
        (folder / f"text/{n}.csv").write_text("text\nthe cat\n")
        turns = [{"from": "human", "value": "what?"}, {"from": "gpt", "value": "a cat"}]
        (folder / f"talk/{n}.json").write_text(json.dumps([{"conversations": turns}]))
        write_video(folder / f"clips/{n}.mp4", moving_picture(9))
        (folder / f"clips/{n}.txt").write_text("a cat")
    lines = [json.dumps({"file_name": f"{n}.png", "caption": "a cat"}) for n in range(3)]
    (folder / "pairs/metadata.jsonl").write_text("\n".join(lines))


def looked_up_by(rank: int, folder: str) -> dict[str, int]:
    """Files of each source that a rank asks the file system about."""
    sources: dict[str, Source] = {
        "pairs": ImageTextSource(f"{folder}/pairs"),
        "classes": ImageTextSource(f"{folder}/classes", class_captions=["a {}"]),
        "text": TextSource(f"{folder}/text"),
        "talk": ConversationSource(f"{folder}/talk"),
        "clips": VideoSource(f"{folder}/clips", fps=10, frames=3, captions="txt"),
    }
    tokenizer, weights = str(ROOT / "data/tiny/tokenizer.json"), dict.fromkeys(sources, 1.0)
    data = MixtureDataModule(sources=sources, weights=weights, tokenizer=tokenizer, image_size=32, tokens_per_frame=4)
    asked: Counter[str] = Counter()
    stat, scan = os.stat, os.scandir

    def count(path: object) -> None:
        inside = os.path.relpath(str(path), folder).split(os.sep)
        if inside[0] in sources and len(inside) > 1:
            asked[inside[0]] += 1

    def counted_stat(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        count(path)
        return stat(path, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "stat", counted_stat)
        patch.setattr(os, "scandir", lambda path=".": (count(f"{path}/inside"), scan(path))[1])
        if rank == 0:
            data.prepare_data()
        dist.barrier()
        data.setup("fit")
    assert {name: len(dataset) for name, dataset in data.datasets["train"].items()} == {
        **dict.fromkeys(sources, 3),
        "clips": 9,
    }
    return dict(asked)


def test_the_other_ranks_do_not_look_up_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "tables"))
    write_sources(tmp_path)
    first, second = on_processes(looked_up_by, 2, tmp_path / "ranks", str(tmp_path))
    assert all(first[name] >= 3 for name in ("pairs", "text", "talk", "clips"))
    assert first["classes"] >= 1
    assert second == {}
