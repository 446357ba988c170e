"""Norms of gradients and updates are those of the weights, part by part."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from callbacks.monitors import update_monitor
from callbacks.monitors.update_monitor import UpdateMonitor
from lit_mm.backbone import ModalityFeedForward, Transformer
from lit_mm.mistake import Mistake
from lit_mm.model.multimodal import MultimodalTransformer


def norm(tensors: list[torch.Tensor]) -> float:
    return float(torch.cat([t.detach().flatten() for t in tensors]).norm())


def test_parts_are_those_of_text_of_pictures_and_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = Transformer(
        64, dim=16, depth=1, heads=2, kv_heads=1, feed_forward=lambda dim: ModalityFeedForward(dim, 16)
    )
    model = MultimodalTransformer(backbone, 64, channels=8)
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
        parameter.grad = torch.randn_like(parameter)
    logged: dict[str, float] = {}
    monkeypatch.setattr(update_monitor, "log_values", lambda _, values: logged.update(values))
    trainer: Any = SimpleNamespace(global_step=3, accumulate_grad_batches=1)
    module: Any = SimpleNamespace(model=model)
    monitor = UpdateMonitor(every_n_steps=4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    monitor.on_before_optimizer_step(trainer, module, optimizer)
    optimizer.step()
    trainer.global_step = 4
    monitor.on_train_batch_end(trainer, module, None, None, 0)

    split = [name for name in weights if "feed_forward." in name]
    assert split
    named = dict(model.named_parameters())
    text = [name for name in weights if name.startswith(("backbone.embedding", "text_head"))]
    visual = [name for name in weights if name.startswith(("visual_input", "velocity_head"))]
    shared = [name for name in weights if name not in {*split, *text, *visual}]
    for part, whole, row in (("text", text, 0), ("visual", visual, 1), ("shared", shared, None)):
        halves = [] if row is None else split
        gradients = [named[n].grad for n in whole] + [named[n].grad[row] for n in halves]
        before = [weights[n] for n in whole] + [weights[n][row] for n in halves]
        assert logged[f"gradients/{part}"] == pytest.approx(norm(gradients), rel=1e-4)
        assert logged[f"updates/{part}"] == pytest.approx(0.5 * norm(gradients) / norm(before), rel=1e-4)
    logged.clear()
    monitor.on_before_optimizer_step(trainer, module, optimizer)
    monitor.on_train_batch_end(trainer, module, None, None, 1)
    assert not logged, "step 5 is not looked at"


def test_never_is_refused() -> None:
    with pytest.raises(Mistake, match="every_n_steps 0; give 1 or more"):
        UpdateMonitor(0)
