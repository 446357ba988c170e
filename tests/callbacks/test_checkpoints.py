"""Checkpoints that stay for good beside the newest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from callbacks.checkpoints import Checkpoints
from lit_mm.mistake import Mistake
from tests.helpers.toy_runs import ToyModule, toy_trainer


@pytest.mark.parametrize("options", [{}, {"save_top_k": 2, "monitor": "step", "mode": "max"}], ids=str)
def test_every_so_many_steps_stay(options: dict[str, Any], tmp_path: Path) -> None:
    """They stay also when a run goes on, which knows of them by their names alone."""

    def fit(steps: int, **arguments: Any) -> list[int]:
        callback = Checkpoints(
            dirpath=tmp_path / "kept", every_n_train_steps=2, filename="{step}", keep_every_n_steps=6, **options
        )
        trainer = toy_trainer(tmp_path, callback, enable_checkpointing=True, max_steps=steps)
        trainer.fit(ToyModule(), **arguments)
        return sorted(int(file.stem.removeprefix("step=")) for file in (tmp_path / "kept").glob("step=*.ckpt"))

    newest = [14, 16] if options else [16]
    assert fit(16) == [6, 12, *newest]
    newest = [24, 26] if options else [26]
    path = str(tmp_path / "kept" / "step=16.ckpt")
    assert fit(26, ckpt_path=path) == sorted({6, 12, 18, 24, *newest})


def test_settings_that_keep_nothing_are_refused() -> None:
    with pytest.raises(Mistake, match="keep_every_n_steps is 15, but every_n_train_steps is 10; give a multiple"):
        Checkpoints(every_n_train_steps=10, keep_every_n_steps=15)
    with pytest.raises(Mistake, match=r"filename is 'newest', which does not say the step; write \{step\}"):
        Checkpoints(every_n_train_steps=10, keep_every_n_steps=20, filename="newest")
