"""Data that go bad while several processes train on them: one sentence, or they are waited out."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.program import ROOT, SMALL, environment
from tests.helpers.runs import run_all
from tests.helpers.tars import pairs, write_tar
from tests.helpers.web_server import Server

RANKS, STEPS = 2, 6


def arguments(folder: Path, train: object, cache: Path, *more: str, on_error: str = "raise") -> list[str]:
    """A run on captioned pictures."""
    loader = {"on_error": on_error, "workers": 0, "cache": str(cache), "shuffle_window": "all"}
    settings = {"train": str(train), "tokenizer": "data/tiny/tokenizer.json", "loader": loader}
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "data.yaml"
    file.write_text(json.dumps({"class_path": "data_modules.image_text.ImageTextDataModule", "init_args": settings}))
    own = [
        f"--trainer.max_steps={STEPS}",
        f"--trainer.devices={RANKS}",
        "--trainer.strategy=ddp",
        f"--trainer.logger.save_dir={folder}",
        "--trainer.log_every_n_steps=1",
    ]
    return ["fit", "--config=configs/tiny.yaml", f"--data={file}", *SMALL, *own, *more]


def tars(folder: Path, count: int = 3) -> Path:
    for n in range(count):
        write_tar(folder / f"{n:05}.tar", pairs(20, 20 * n))
    return folder


def under_torchrun(run: list[str], expect: int = 0) -> str:
    """What a run of real torchrun writes, all of whose processes have to end."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={RANKS}"]
    command = [*start, "-m", "lit_mm", *run]
    ended = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    output = ended.stdout + ended.stderr
    assert (ended.returncode != 0) == (expect != 0), output
    return output


def spoiling(pattern: str, *more: str) -> list[str]:
    """What has data spoiled before the third batch."""
    callback = "--trainer.callbacks"
    return [f"{callback}+=tests.helpers.cutting.Cut", f"{callback}.pattern={pattern}", f"{callback}.batch=2", *more]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Serves five tars."""
    with Server(tars(tmp_path / "tars", 5)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.long
@pytest.mark.parametrize(
    ("on_error", "gone", "expect", "said"),
    [
        ("raise", "*", 1, "broke while being read: it is no longer there"),
        ("skip", "*", 1, "documents broke while being read, more than 1 %"),
        ("skip", "*7", 0, "left out of 'image_text'; the first: "),  # as few as chance explains
    ],
)
def test_tars_that_vanish_while_training(tmp_path: Path, on_error: str, gone: str, expect: int, said: str) -> None:
    folder = tmp_path / "tars"
    for n in range(200):  # more than are opened before they vanish
        write_tar(folder / f"{n:05}.tar", pairs(1, n))
    vanish = spoiling(f"{folder}/{gone}.tar", "--trainer.callbacks.how=remove")
    output = under_torchrun(arguments(tmp_path, folder, tmp_path / "cache", *vanish, on_error=on_error), expect)
    assert said in output
    assert "looks like a fault of lit-mm" not in output


@pytest.mark.long
def test_a_server_that_hangs_while_training_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.later = {f"/{n:05}.tar": ["hang"] for n in range(5)}
    server.silence = 40.0  # longer than is waited for
    run = arguments(tmp_path, f"{server.url}/{{00000..00004}}.tar", tmp_path / "cache")
    begin = time.monotonic()
    under_torchrun([*run, *spoiling(f"{server.url}/trouble")])
    assert not any(server.later.values()), "every tar's server has hung"
    assert time.monotonic() - begin > 30


@pytest.mark.long
def test_a_server_that_fails_for_good_while_training_ends_all_processes(server: Server, tmp_path: Path) -> None:
    server.later = {f"/{n:05}.tar": [500] * 1000 for n in range(5)}
    run = arguments(tmp_path, f"{server.url}/{{00000..00004}}.tar", tmp_path / "cache")
    output = under_torchrun([*run, *spoiling(f"{server.url}/trouble")], 1)
    assert "6 attempts failed, the last with ClientResponseError 500" in output
    assert "looks like a fault of lit-mm" not in output


@pytest.mark.long
@pytest.mark.parametrize(
    ("on_error", "said"),
    [("raise", "it ends within the"), ("skip", r"documents broke while being read, more than 1 %")],
)
def test_a_tar_that_is_cut_while_training_ends_the_run(tmp_path: Path, on_error: str, said: str) -> None:
    folder = tars(tmp_path / "tars")
    run = arguments(tmp_path, folder, tmp_path / "cache", *spoiling(f"{folder}/*.tar"), on_error=on_error)
    assert said in run_all(tmp_path / "runs", [run], RANKS, expect=1)


@pytest.mark.long
def test_a_server_that_fails_for_a_while_is_waited_for(tmp_path: Path) -> None:
    with Server(tars(tmp_path / "tars")) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.failures = {f"/{n:05}.tar": [500, "cut", 503] for n in range(3)}
        path = f"{server.url}/{{00000..00002}}.tar"
        run_all(tmp_path / "runs", [arguments(tmp_path, path, tmp_path / "cache")], RANKS)
        assert not any(server.failures.values())
        server.shutdown()


@pytest.mark.long
def test_a_disk_that_is_full_while_indexing(small_disk: Path, tmp_path: Path) -> None:
    lines = tmp_path / "long.jsonl"
    lines.write_text("".join(json.dumps({"text": f"the cat {i} sat on the mat " * 40}) + "\n" for i in range(20_000)))
    run = arguments(tmp_path, lines, small_disk)
    file = tmp_path / "data.yaml"
    file.write_text(file.read_text().replace("image_text.ImageText", "text.Text"))
    output = run_all(tmp_path / "runs", [run], RANKS, expect=1)
    assert "cannot be written (No space left on device); name a folder with room" in output
    assert not [f for f in small_disk.rglob("*") if f.is_file() and "locks" not in f.parts], "nothing half-made is left"
