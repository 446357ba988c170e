"""The average is the formula's, validation uses it, and checkpoints with and without one are both read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lit_mm.cli import main
from tests.helpers.program import ROOT, SMALL

DECAY, STEPS = 0.3, 4
AVERAGED = ["--trainer.callbacks+=callbacks.weight_averaging.WeightAveraging", f"--trainer.callbacks.decay={DECAY}"]
RESULTS = "--trainer.callbacks+=callbacks.pages.results_table.ResultsTable"


def arguments(command: str, folder: Path, *more: str) -> list[str]:
    logs = f"--trainer.logger.save_dir={folder}"
    return [command, "--config=configs/tiny.yaml", *SMALL, "--data.loader.workers=0", logs, RESULTS, *more]


def fit(folder: Path, *more: str, steps: int = STEPS) -> list[Path]:
    """Train and save every step; the checkpoints in order."""
    saving = ["--trainer.callbacks+=ModelCheckpoint", f"--trainer.callbacks.dirpath={folder}"]
    saving += ["--trainer.callbacks.every_n_train_steps=1", "--trainer.callbacks.save_top_k=-1"]
    saving += ["--trainer.callbacks.filename={step}"]
    main(arguments("fit", folder, f"--trainer.max_steps={steps}", "--model.schedule.warmup_steps=1", *more, *saving))
    return sorted(folder.glob("*.ckpt"))


def weights(checkpoint: Path, prefix: str) -> dict[str, Tensor]:
    found = torch.load(checkpoint, weights_only=False)["state_dict"]
    return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}


def validation(folder: Path, *more: str) -> dict[str, float]:
    main(arguments("validate", folder, *more))
    (file,) = folder.rglob("validation.jsonl")
    return json.loads(file.read_text())


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_the_average_is_the_formulas_and_validation_uses_it(tmp_path: Path) -> None:
    checkpoints = fit(tmp_path / "run", *AVERAGED)
    assert len(checkpoints) == STEPS
    averages = [weights(checkpoint, "averaged.") for checkpoint in checkpoints]
    expected = averages[0]
    decays = [3 / 12, DECAY, DECAY]  # of steps 2, 3 and 4: of the second step it is (1 + 2) / (10 + 2)
    for decay, checkpoint, average in zip(decays, checkpoints[1:], averages[1:], strict=True):
        expected = {
            name: decay * expected[name] + (1 - decay) * value for name, value in weights(checkpoint, "model.").items()
        }
        for name, value in average.items():
            torch.testing.assert_close(value, expected[name], msg=name)
    # A checkpoint whose plain weights are the expected average, validated without the callback.
    plain = torch.load(checkpoints[-1], weights_only=False)
    plain["state_dict"] = {f"model.{name}": value for name, value in expected.items()}
    torch.save(plain, tmp_path / "plain.ckpt")
    truth = validation(tmp_path / "plain", f"--ckpt_path={tmp_path / 'plain.ckpt'}")
    last = f"--ckpt_path={checkpoints[-1]}"
    assert validation(tmp_path / "averaged", last, *AVERAGED) == pytest.approx(truth, rel=1e-5)
    assert validation(tmp_path / "weights", last, "--trainer.callbacks=[]", RESULTS)["val/loss"] != pytest.approx(
        truth["val/loss"], rel=1e-5
    )


def test_it_may_be_switched_on_and_off(tmp_path: Path) -> None:
    without = fit(tmp_path / "without", steps=1)
    (before,) = without
    first, second = fit(tmp_path / "on", f"--ckpt_path={before}", *AVERAGED, steps=3)
    start, then = weights(before, "model."), weights(first, "model.")
    for name, value in weights(first, "averaged.").items():
        torch.testing.assert_close(value, 0.25 * start[name] + 0.75 * then[name], msg=name)  # step 2
    (after,) = fit(tmp_path / "off", f"--ckpt_path={second}", "--trainer.callbacks=[]", steps=4)
    assert not weights(after, "averaged.")
