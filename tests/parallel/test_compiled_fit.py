"""`lit-mm fit` with everything that is in the way of compilation: many layers, experts, recomputing, all callbacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch._inductor.compile_fx
from torch import Tensor
from torch._dynamo.utils import counters

from lit_mm.cli import main
from tests.helpers.program import ROOT, SMALL

DEPTH = 10  # Dynamo gives up after 8 compilations of a function


@pytest.mark.slow
def test_training_and_validation_are_one_graph_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_gradients: list[bool] = []

    def run_by_operator(graph: Any, inputs: list[Tensor], **_: Any) -> Any:
        with_gradients.append(torch.is_grad_enabled())
        return graph.forward

    monkeypatch.setattr(torch._inductor.compile_fx, "compile_fx", run_by_operator)
    monkeypatch.chdir(ROOT)
    torch._dynamo.reset()
    counters.clear()
    small = [a for a in SMALL if "feed_forward" not in a and "callbacks" not in a]
    main(
        [
            "fit",
            "--config=configs/tiny.yaml",
            "--model.backbone=configs/backbone/experts.yaml",
            *small,
            f"--model.backbone.depth={DEPTH}",
            "--model.parallelize.compile=true",
            "--model.parallelize.recompute=selective",
            "--trainer.precision=bf16-mixed",
            "--trainer.max_steps=2",
            "--trainer.enable_progress_bar=true",
            "--trainer.num_sanity_val_steps=1",
            "--data.loader.workers=0",
            f"--trainer.logger.save_dir={tmp_path}",
        ]
    )
    torch._dynamo.reset()
    assert sorted(with_gradients) == [False, True]
    assert not counters["graph_break"]
