"""Only a mistake of the user's is one sentence: a fault of the program, also a ValueError, keeps its traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from lit_mm import cli
from lit_mm.mistake import Mistake, mistake_in, notes_of
from tests.helpers.program import ROOT, SMALL, environment

TEXTS_THAT_FAIL = """
from data_modules.text import TextDataModule, TextDataset


class Failing(TextDataset):
    def document(self, draw):
        list(zip([1, 2], [1], strict=True))


class Texts(TextDataModule):
    def dataset(self, split, source, format):
        found = super().dataset(split, source, format)
        return Failing(found.source, found.windows, 0)
"""


def unequal(*_: Any, **__: Any) -> None:
    list(zip([1, 2], [1], strict=True))


def unequal_in_a_handler(*_: Any, **__: Any) -> None:
    try:
        raise Mistake("another sentence")
    except Mistake:
        unequal()


def meet_one_who_leaves() -> None:
    """A barrier of two processes, of which the other ends without a word before it."""
    address = f"tcp://127.0.0.1:{environment()['MASTER_PORT']}"
    join = (
        "import os, torch.distributed as dist; dist.init_process_group('gloo', init_method={!r}, rank=1, world_size=2)"
    )
    other = subprocess.Popen([sys.executable, "-c", f"{join.format(address)}; dist.barrier(); os._exit(0)"])
    dist.init_process_group("gloo", init_method=address, rank=0, world_size=2)
    try:
        dist.barrier()
        other.wait(60)
        dist.barrier()
    finally:
        dist.destroy_process_group()


def wrong_rate(*_: Any, **__: Any) -> None:
    torch.optim.SGD([torch.zeros(1)], lr=-1)


@pytest.mark.parametrize(
    ("fault", "words"),
    [(unequal, "zip"), (unequal_in_a_handler, "zip"), (wrong_rate, "Invalid learning rate")],
)
def test_a_value_error_is_not_taken_for_a_mistake(fault: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "LitCLI", fault)
    with pytest.raises(ValueError, match=words) as raised:
        cli.main(["fit"])
    assert notes_of(raised.value) == [cli.REPORT]


@pytest.mark.parametrize("workers", [0, 1])
def test_nor_is_one_of_a_data_worker(workers: int, tmp_path: Path) -> None:
    (tmp_path / "texts_that_fail.py").write_text(TEXTS_THAT_FAIL)
    environ = {**environment(), "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    options = [f"--data.loader.workers={workers}", f"--trainer.logger.save_dir={tmp_path}", "--trainer.max_steps=1"]
    data = ["--data.sources.text.class_path=texts_that_fail.Texts"]
    program = [sys.executable, "-m", "lit_mm", "fit", "--config=configs/tiny.yaml", *SMALL, *data, *options]
    ended = subprocess.run(program, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=300)
    said = ended.stderr
    assert ended.returncode == 1, ended.stdout + said
    assert "Traceback" in said
    assert "ValueError" in said
    assert "zip() argument 2 is shorter than argument 1" in said
    assert said.rstrip().endswith(cli.REPORT)
    assert "error: " not in said.lower().replace("valueerror: ", "")


def test_a_connection_to_another_process_that_is_lost_is_no_fault_of_the_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As gloo says it, whose other process has left a group of two."""
    monkeypatch.setattr(cli, "LitCLI", lambda **_: meet_one_who_leaves())
    with pytest.raises(SystemExit, match="^error: another process of this run no longer answers \\(Connection "):
        cli.main(["fit"])


def test_an_error_that_a_library_raised_from_a_mistake_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrapped(*_: Any, **__: Any) -> None:
        try:
            raise Mistake("the sentence")
        except Mistake as error:
            raise TypeError("a tree of attempts") from error

    monkeypatch.setattr(cli, "LitCLI", wrapped)
    with pytest.raises(SystemExit, match="^error: the sentence$"):
        cli.main(["fit"])
    assert mistake_in(TypeError("alone")) is None
