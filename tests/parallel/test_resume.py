"""A killed run, resumed, is the unbroken run: the same documents and bit-equal losses."""

from pathlib import Path

import pytest

from tests.helpers.program import SMALL, kill_when, run, start
from tests.helpers.recorder import read
from tests.helpers.runs import run_all

STEPS, SAVED = 12, 4


def arguments(folder: Path, ranks: int, **options: str) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    args = [
        "fit",
        "--config=configs/tiny.yaml",
        *SMALL,
        f"--trainer.max_steps={STEPS}",
        f"--trainer.logger.save_dir={folder}",
        f"--trainer.devices={ranks}",
        f"--trainer.strategy={'ddp' if ranks > 1 else 'auto'}",
        "--trainer.callbacks+=tests.helpers.recorder.Recorder",
        f"--trainer.callbacks.folder={folder}",
        "--trainer.callbacks+=ModelCheckpoint",
        f"--trainer.callbacks.dirpath={folder}",
        f"--trainer.callbacks.every_n_train_steps={SAVED}",
        "--trainer.callbacks.save_top_k=-1",
        "--trainer.callbacks.filename={step}",
        "--data.loader.workers=2" if ranks == 1 else "--data.loader.workers=0",
    ]
    return args + [f"--{name}={value}" for name, value in options.items()]


def rows_in_order(folder: Path) -> list[list]:
    """Every row that was trained on, as (number, digest), in global order."""
    steps = zip(*read(folder), strict=True)
    return [row for step in steps for rank in step for row in rank["rows"]]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_killed_run_resumes_bit_equal(tmp_path: Path, ranks: int) -> None:
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    run(*arguments(unbroken, ranks))
    process = start(*arguments(broken, ranks))
    kill_when(process, lambda: (broken / "rank0.jsonl").exists() and len(read(broken)[0]) >= SAVED + 2)
    run(*arguments(broken, ranks, ckpt_path=str(broken / f"step={SAVED}.ckpt")))
    assert len(read(unbroken)[0]) == STEPS
    assert read(broken) == read(unbroken)


@pytest.mark.slow
def test_other_numbers_of_ranks_read_the_same_documents_in_the_same_order(tmp_path: Path) -> None:
    one, changed, rest, back = (tmp_path / name for name in ("one", "changed", "rest", "back"))
    on_one = {"data.loader.rows": "4"}
    on_two = arguments(changed, 2, **{"trainer.max_steps": str(SAVED)})
    run_all(tmp_path, [on_two], ranks=2)
    until = {"ckpt_path": str(changed / f"step={SAVED}.ckpt"), "trainer.max_steps": str(2 * SAVED)}
    run_all(tmp_path, [arguments(one, 1, **on_one), arguments(rest, 1, **until, **on_one)])
    run_all(tmp_path, [arguments(back, 2, ckpt_path=str(rest / f"step={2 * SAVED}.ckpt"))], ranks=2)
    followed = rows_in_order(changed) + rows_in_order(rest) + rows_in_order(back)
    assert followed == rows_in_order(one)
    assert [number for number, _ in followed] == list(range(4 * STEPS))
