"""Mean and deviation of visual tokens by source, against numpy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from callbacks.monitors.latent_monitor import LatentMonitor
from lit_mm.training.state import TrainingState


def test_statistics_are_those_of_each_source_s_tokens() -> None:
    torch.manual_seed(0)
    latents = torch.randn(6, 16, 32) * torch.tensor([1.0, 3.0, 1.0, 3.0, 1.0, 1.0])[:, None, None] + 2
    logged: dict[str, float] = {}
    state = TrainingState(latents=latents)
    module: Any = SimpleNamespace(state=state, log_dict=lambda values, **_: logged.update(values))
    source_ids = torch.tensor([0, 2, 0, 2, 0, 0])
    batch: Any = SimpleNamespace(frame_source_ids=source_ids, sources=("pairs", "text", "video"))
    trainer: Any = SimpleNamespace(global_step=10, log_every_n_steps=10, accumulate_grad_batches=1)
    callback = LatentMonitor()
    callback.on_train_batch_end(trainer, module, None, batch, 9)
    for number, source in ((0, "pairs"), (2, "video")):
        own = latents[source_ids == number].numpy()
        assert logged[f"latents/{source}/mean"] == pytest.approx(own.mean(), rel=1e-5)
        assert logged[f"latents/{source}/deviation"] == pytest.approx(own.std(), rel=1e-4)
    assert len(logged) == 4, "a source without frames has none"
    trainer.global_step = 11
    logged.clear()
    callback.on_train_batch_end(trainer, module, None, batch, 10)
    assert not logged
