"""Means over sources: the loss of validation is the same kind of mean as the loss of training."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lit_mm.module import LitMultimodal
from lit_mm.packing import pack_rows
from lit_mm.sequence import Document, Frame, PackedRow, Text
from lit_mm.training.metrics import LossMeans
from tests.helpers.small_model import small_model

SOURCES = ("talk", "pictures", "unused")


@pytest.fixture(scope="module")
def module() -> LitMultimodal:
    model = small_model()
    model.configure_model()
    return model


def validated(module: LitMultimodal, shares: Mapping[str, float]) -> dict[str, float]:
    """Results of a validation that has counted what is to be counted."""
    data = SimpleNamespace(mixture=SimpleNamespace(weights=shares), datasets={"val": dict.fromkeys(SOURCES)})
    trainer: Any = SimpleNamespace(datamodule=data)
    module.trainer, module.log_dict = trainer, lambda *_, **__: None  # type: ignore[method-assign]
    module.on_validation_epoch_end()
    return module.validation_results


def add(module: LitMultimodal, source: str, name: str, count: int, value: float) -> None:
    ids = torch.full((count,), SOURCES.index(source))
    module.val_means.add(name, torch.full((count,), value), ids, SOURCES)


def test_validation_weighs_sources_as_often_as_training_meets_them(module: LitMultimodal) -> None:
    def read() -> None:
        add(module, "talk", "positions", 100, 1.0)
        add(module, "talk", "text_loss", 80, 2.0)
        add(module, "pictures", "positions", 200, 1.0)
        add(module, "pictures", "text_loss", 20, 4.0)
        add(module, "pictures", "flow_loss", 10, 1.0)
        add(module, "unused", "positions", 10, 1.0)
        add(module, "unused", "text_loss", 9, 50.0)

    read()
    found = validated(module, {"talk": 1.0, "pictures": 3.0, "unused": 0.0})
    # Of 1,000 training positions, talk has 250, with 200 predicted tokens, and pictures have 750, with 75 of them.
    text = (200 * 2.0 + 75 * 4.0) / 275
    assert found["val/text_loss"] == pytest.approx(text)
    assert found["val/flow_loss"] == 1.0
    assert found["val/loss"] == pytest.approx(text + 3 * 1.0)
    assert found["val/unused/text_loss"] == 50.0, "what training does not count is still measured"
    read()
    none_trained = validated(module, {"talk": 0.0, "pictures": 0.0, "unused": 0.0, "elsewhere": 1.0})
    assert none_trained["val/text_loss"] == pytest.approx((80 * 2.0 + 20 * 4.0 + 9 * 50.0) / 109)


def test_padding_is_not_read(module: LitMultimodal) -> None:
    picture = torch.zeros(3, module.image_size, module.image_size, dtype=torch.uint8)
    talk = Document((Text(torch.arange(10, 30)),), "talk")
    drawn = Document((Text(torch.arange(10, 15)), Frame(picture)), "pictures")
    rows = [PackedRow((talk, drawn), 0, 0), PackedRow((talk,), 1, 0)]
    frame = module.tokens_per_frame
    batch = pack_rows(rows, length=64, tokens_per_frame=frame, image_size=module.image_size, pad_id=0, sources=SOURCES)
    with torch.no_grad():
        module.validation_step(batch, 0)
    sums = module.val_means.sums()
    read = {source: sums[source, "positions"][0] for source in ("talk", "pictures")}
    assert read == {"talk": 40, "pictures": 5 + frame}


def test_losses_are_averaged_by_tenths_of_the_timesteps() -> None:
    means = LossMeans()
    means.add_flow(torch.tensor([1.0, 3.0, 7.0]), torch.tensor([0.31, 0.39, 1.0]))
    means.add_flow(torch.tensor([]), torch.tensor([]))
    means.add_flow(torch.tensor([5.0]), torch.tensor([0.0]))
    assert means.of_timesteps() == {
        "flow_loss_at/0.0_0.1": 5.0,
        "flow_loss_at/0.3_0.4": 2.0,
        "flow_loss_at/0.9_1.0": 7.0,
    }
    assert means.of_timesteps() == {}
