"""A run that is stopped, or fails, saves its last whole step on all processes, and goes on from there as if unbroken."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
import traceback
from pathlib import Path

import pytest
import torch

from lit_mm.cli import main
from tests.helpers.program import ROOT, SMALL, run, start
from tests.helpers.recorder import read


def arguments(folder: Path, ranks: int = 1, steps: int = 1000, *more: str) -> list[str]:
    return [
        "fit",
        "--config=configs/tiny.yaml",
        *SMALL,
        f"--trainer.max_steps={steps}",
        f"--trainer.logger.save_dir={folder}",
        f"--trainer.devices={ranks}",
        f"--trainer.strategy={'fsdp2' if ranks > 1 else 'auto'}",
        "--trainer.callbacks+=tests.helpers.recorder.Recorder",
        f"--trainer.callbacks.folder={folder}",
        *more,
    ]


CHECKPOINTS = [
    "--trainer.callbacks+=callbacks.checkpoints.Checkpoints",
    "--trainer.callbacks.every_n_train_steps=1000",
    "--trainer.callbacks.save_last=link",
]
SHORT = [*CHECKPOINTS, "--data.loader.workers=0", "--trainer.accumulate_grad_batches=2"]
STEPS = 4


def trouble(kind: str, batch: int) -> list[str]:
    path = "tests.helpers.trouble.Trouble"
    return [f"--trainer.callbacks+={path}", f"--trainer.callbacks.kind={kind}", f"--trainer.callbacks.batch={batch}"]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("unbroken")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        main(arguments(folder, 1, STEPS, *SHORT))
    return read(folder)[0]


@pytest.mark.parametrize(("kind", "code", "step"), [("SIGINT", 130, 3), ("SIGTERM", 75, 3), ("error", None, 2)])
def test_the_command_it_names_goes_on_as_if_unbroken(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    unbroken: list[dict],
    kind: str,
    code: int | None,
    step: int,
) -> None:
    """Trouble comes in the last of a step's micro-batches: a signal waits for its end, an error undoes all of it."""
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit if code else RuntimeError) as ended:
        main(arguments(tmp_path, 1, STEPS, *SHORT, *trouble(kind, 5)))
    assert getattr(ended.value, "code", None) == code
    output = capsys.readouterr().err
    shown = output if code else "".join(traceback.format_exception(ended.value))
    by = {"SIGINT": "Ctrl-C", "error": "an error"}.get(kind, kind)
    found = re.search(
        rf"stopped by {by} at step {step}: saved '(\S+)'; go on with: lit-mm (fit --ckpt_path \S+/last.ckpt)\s*\Z",
        shown,
    )
    assert found, "the last line says so"
    assert Path(found[1]).is_file()
    assert code or "stopped by" not in output, "it is said once"
    main(found[2].split())
    assert len(list(tmp_path.rglob("version_*"))) == 1, "it goes on in the same run folder"
    assert read(tmp_path)[0] == unbroken


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(RuntimeError, match="something broke") as ended:
        main(arguments(tmp_path, 1, STEPS, *SHORT, *trouble("nan", 4)))
    shown = traceback.format_exception(ended.value)[-1]
    assert "at step 2: it is not saved, as there is NaN or infinity in its weights" in shown
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_killed_data_worker_is_named_and_then_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose paths are relative to the working folder, also where those of the run are not."""
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    workers = [*CHECKPOINTS, "--data.loader.workers=1"]
    with pytest.raises(SystemExit) as ended:
        main(arguments(tmp_path, 1, STEPS, *workers, *trouble("worker", 2)))
    error, how = str(ended.value).splitlines()
    assert error.startswith("error: a data worker was killed by signal 9 (Killed, out of memory?)")
    folder = "tiny/version_0/checkpoints"
    assert how == (
        f"stopped by an error at step 2: saved '{folder}/epoch=0-step=2.ckpt'; "
        f"go on with: lit-mm fit --ckpt_path {folder}/last.ckpt"
    )
    assert Path(f"{folder}/last.ckpt").exists()


def test_before_the_first_step_a_mistake_is_all_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        main(arguments(tmp_path, 1, STEPS, *SHORT, *trouble("mistake", 0)))
    assert ended.value.code == "error: data.train is wrong"
    assert "stopped by" not in capsys.readouterr().err


def child_of(process: int) -> int:
    """The process of the second rank, which the first one started."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    (child,) = [int(c) for c in children if "LOCAL_RANK=1" in Path(f"/proc/{c}/environ").read_text()]
    return child


@pytest.mark.long
@pytest.mark.parametrize("ranks", [1, 2])
def test_real_processes_stop_after_one_step(tmp_path: Path, ranks: int) -> None:
    """One process with workers gets Ctrl-C as from a terminal, where all get it; of two, one alone gets a signal."""
    more = [*CHECKPOINTS, "--trainer.callbacks+=callbacks.graceful_stop.GracefulStop"]
    more += ["--trainer.callbacks.every_n_steps=2"]
    process = start(*arguments(tmp_path, ranks, 1000, *more))
    try:
        end = time.monotonic() + 100
        while not (tmp_path / "rank0.jsonl").exists() or len(read(tmp_path)[0]) < 3:
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < end
            time.sleep(0.05)
        if ranks == 1:
            os.killpg(process.pid, signal.SIGINT)
        else:
            os.kill(child_of(process.pid), signal.SIGUSR1)
        output, _ = process.communicate(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == (130 if ranks == 1 else 75), output
    (saved,) = tmp_path.rglob("last.ckpt")
    header = torch.load(saved / "meta.pt" if ranks > 1 else saved, weights_only=False)
    stopped = header["global_step"]
    assert [len(rank) for rank in read(tmp_path)] == [stopped] * ranks, "all stop after the step that was saved"
    if ranks > 1:
        assert stopped % 2 == 0
        run("fit", f"--ckpt_path={saved}", f"--trainer.max_steps={stopped + 2}")
        steps = list(zip(*read(tmp_path), strict=True))
        rows = [row[0] for step in steps for rank in step for row in rank["rows"]]
        assert rows == list(range(2 * ranks * (stopped + 2))), "no row is lost or read twice"
