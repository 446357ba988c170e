"""One rank looks files up, and all plan from what it has found."""

from __future__ import annotations

from pathlib import Path

from data_modules.index import listing
from data_modules.index.listing import Listing
from data_modules.index.storage import InputFile
from data_modules.text import TextDataModule
from tests.helpers.processes import on_processes
from tests.helpers.program import ROOT


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
        f"{folder}/*.jsonl", tokenizer=str(ROOT / "data/tiny/tokenizer.json"), image_size=64, tokens_per_frame=64
    )
    if rank == 0:
        data.prepare_data()
        (Path(folder) / "b.jsonl").write_text('{"text": "late"}\n')
    data.setup("fit")
    return len(data.datasets["train"]["text"])


def test_a_file_that_comes_while_a_run_starts_is_in_the_next(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "a.jsonl").write_text('{"text": "the cat"}\n' * 5)
    assert on_processes(documents_of, 2, tmp_path / "ranks", str(tmp_path)) == [5, 5]
